package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// BackupOptions of Backup. The zero value is good.
type BackupOptions struct {
	Type BackupType // "": TypeAuto
	// Base is the backup that an incremental adds to; zero: the newest that can be
	// one. Who names a base asks for an incremental.
	Base BackupID
	// ChainMax is how many incrementals TypeAuto puts on one full backup; 0: 30.
	ChainMax int
	// Owner and Label name the backup in the database's status and in the
	// manifest; at most 256 bytes each.
	Owner, Label string
	Compression  Compression // "": CompressionFastest
	Workers      int         // goroutines that compress; 0: two, or one on up to three CPUs
	// OnExhaustion says what happens when what is kept for the backup outgrows what the
	// database grants: it falls forward, and is exact at a later commit, with the redo
	// up to there; or it is broken. "": mvcc.ExhaustionForward.
	OnExhaustion mvcc.Exhaustion
	// Guards end the backup early, with a *mvcc.GuardError, when it costs too much.
	Guards Guards
	// HurryShare is the share of what temporary storage and overflow may have at which
	// the database's file is read without resting; see mvcc.BackupOptions. 0: never.
	HurryShare float64
	// Rescue takes a full backup from a database that has failed and takes no commit any
	// more, at its last durable commit; see mvcc.BackupOptions. The manifest says so.
	Rescue bool
	// FullSpeed says that the backup does not rest while others write to the
	// database. It ends sooner then, and takes some of their speed.
	FullSpeed bool
	// BytesPerSecond limits what is written to the repository; 0: no limit.
	BytesPerSecond int64
	// ObjectBytes is the size at which an object is finished; 0: 64 MiB.
	ObjectBytes int64
	// GroupBytes is how much is compressed together; 0: 1 MiB. Larger is
	// smaller in the repository, and slower to read a single block from.
	GroupBytes int
	// Progress is called after each group, by one goroutine. It must be quick.
	Progress func(Progress)
	Logger   *slog.Logger // nil: nothing is logged

	resumeEvery time.Duration // 0: the constant; for tests
}

// Progress of a backup, a verify or a restore.
type Progress struct {
	// BlocksTotal is how many there will be. While an incremental is made it is worked out
	// from what the map of changed blocks says, and how much of that has turned out to be
	// right; it is exact when all blocks have come.
	Blocks, BlocksTotal   uint64
	RawBytes, StoredBytes int64
	Elapsed               time.Duration
	Cost                  Cost // of a backup, so far

	// While a restore rolls forward: where it is, where it goes, and the redo so far.
	LSN, EndLSN block.LSN
	LogBytes    int64
}

// Result is what Backup did.
type Result struct {
	Manifest    Manifest // as published
	WhyFull     error    // why it is a full backup: nil for an incremental, and where a full one was asked for
	BufferBytes int64    // what the backup's own buffers took in memory, at most
	Swept       int      // objects of dead runs that were removed first
	Resumed     uint64   // blocks that were taken over from a run that was cut off; some of them may have come again
	Kept        uint64   // of a backup that failed: blocks that stay in the repository, for the next one to go on with
	Record      Record   // also of a backup that failed
}

func (o BackupOptions) withDefaults() (BackupOptions, error) {
	if o.Type == "" {
		o.Type = TypeAuto
	}
	if o.OnExhaustion == "" {
		o.OnExhaustion = mvcc.ExhaustionForward
	}
	if o.Type == TypeAuto && !o.Base.IsZero() {
		o.Type = TypeIncremental
	}
	if o.ChainMax == 0 {
		o.ChainMax = chainIncrementsMax
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Compression == "" {
		o.Compression = CompressionFastest
	}
	if o.Workers == 0 {
		o.Workers = min(2, (runtime.GOMAXPROCS(0)+1)/2) // the others are the writers
	}
	if o.ObjectBytes == 0 {
		o.ObjectBytes = 64 << 20
	}
	if o.GroupBytes == 0 {
		o.GroupBytes = 1 << 20
	}
	if o.Rescue && o.Type == TypeAuto {
		o.Type = TypeFull
	}
	switch {
	case o.Rescue && o.Type != TypeFull:
		return o, optionError("a rescue is a full backup")
	case o.Guards.TimeMax < 0 || o.Guards.RateMin < 0:
		return o, optionError("guards must not be negative")
	case !(o.HurryShare >= 0 && o.HurryShare <= 1):
		return o, optionError("hurry share must be 0 to 1")
	case o.Type != TypeAuto && o.Type != TypeFull && o.Type != TypeIncremental:
		return o, optionError("type %q is none of auto, full, incremental", o.Type)
	case o.Type == TypeFull && !o.Base.IsZero():
		return o, optionError("a full backup has no base")
	case o.OnExhaustion != mvcc.ExhaustionForward && o.OnExhaustion != mvcc.ExhaustionAbort:
		return o, optionError("on exhaustion %q is none of %s, %s", string(o.OnExhaustion), mvcc.ExhaustionForward, mvcc.ExhaustionAbort)
	case o.ChainMax < 0:
		return o, optionError("chain max must not be negative")
	case !o.Compression.valid():
		return o, optionError("compression %q is unknown", o.Compression)
	case o.Workers < 1 || o.Workers > 64:
		return o, optionError("workers must be 1 to 64")
	case o.BytesPerSecond < 0:
		return o, optionError("bytes per second must not be negative")
	case o.ObjectBytes < 1 || o.ObjectBytes > objectBytesMax-2*groupBytesMax:
		return o, optionError("object bytes must be 1 to about 1 GiB")
	case o.GroupBytes < 0 || o.GroupBytes > groupBytesMax:
		return o, optionError("group bytes must be at most 4 MiB")
	}
	if err := errors.Join(checkText("owner", o.Owner), checkText("label", o.Label)); err != nil {
		return o, optionError("%w", err)
	}
	return o, nil
}

// Validate returns ErrOptions, with the reason, for what Backup would refuse.
func (o BackupOptions) Validate() error {
	_, err := o.withDefaults()
	return err
}

func optionError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrOptions, fmt.Errorf(format, args...))
}

// Backup makes a backup of src in repo. When it returns nil the backup is
// whole, durable and listed (L12). When it returns an error, or ctx ends, there
// is no such backup, and what was written is removed; a run that is killed
// leaves objects that nobody lists and the next run sweeps. But a run of more than ten
// seconds that is killed, cancelled, or loses the database or the repository leaves
// what the next one goes on with, if that is of the same kind and base: it writes only
// what is not there yet, or has changed since.
//
// An incremental has what changed since its base, which is any sound backup of the
// database's own history (R18). TypeAuto makes one unless there is no base; the
// chain has ChainMax incrementals, or they have half the bytes of its full backup;
// or the database no longer knows what changed since. An incremental holds a
// random sample of what it leaves out against its base. If that finds a difference
// or the base cannot be read, ErrAuditMismatch or ErrNoBase is logged, and TypeAuto
// makes a full backup instead; TypeIncremental returns it.
func Backup(ctx context.Context, src Source, repo *Repository, o BackupOptions) (Result, error) {
	began := time.Now()
	res, err := backup(ctx, src, repo, o)
	if err != nil {
		err = fmt.Errorf("backup: %w", err)
	}
	res.Record.ended(o, began, err)
	return res, err
}

func backup(ctx context.Context, src Source, repo *Repository, o BackupOptions) (res Result, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return res, err
	}
	if res.Swept, err = Sweep(ctx, repo); err != nil {
		return res, err
	}
	wanted := o.Type
	err = attempt(ctx, src, repo, o, &res)
	if wanted == TypeAuto && (errors.Is(err, ErrAuditMismatch) || errors.Is(err, ErrNoBase)) {
		o.Logger.Error("incremental backup given up, making a full one", "error", err)
		o.Type = TypeFull
		res.WhyFull = err
		err = attempt(ctx, src, repo, o, &res)
	}
	return res, err
}

// attempt makes one backup of the type that o asks for.
func attempt(ctx context.Context, src Source, repo *Repository, o BackupOptions, res *Result) error {
	v, err := repo.inventory(ctx)
	if err != nil {
		return err
	}
	heads, err := repo.headsOf(ctx, v) // before the snapshot is opened: see heads
	if err != nil {
		return err
	}
	started := time.Now()
	picker := &basePicker{o: o, entries: v.entries}
	session, base, err := picker.openSession(ctx, src)
	if err != nil {
		return err
	}
	defer session.Close()
	info := session.Info()
	res.Record.attempted(o, info, base, started)
	if err := checkInfo(info, base); err != nil {
		return err
	}
	if err := repo.bind(ctx, info.Database); err != nil {
		return err
	}
	if err := repo.enter(ctx, src, heads, info); err != nil {
		return err
	}
	lease, err := repo.leaseBase(ctx, base)
	if errors.Is(err, ErrBackupNotFound) {
		err = fmt.Errorf("%w: the base was removed: %w", ErrNoBase, err)
	}
	if err != nil {
		return err
	}
	defer lease.Close()
	r := newRun(repo, src, o, info, base, started)
	if err := r.begin(ctx); err != nil {
		return err
	}
	if r.resumed != nil {
		res.Resumed = r.resumed.blocks
	}
	r.heads = heads
	if base == nil && res.WhyFull == nil {
		res.WhyFull = picker.why
	}
	if base == nil && res.WhyFull != nil {
		r.whyFull = strings.ToValidUTF8(clip(res.WhyFull.Error()), "?") // else it would not read back as it was written
	}
	r.pace.follow(session)
	res.Manifest, err = r.make(ctx, session)
	res.BufferBytes = r.memory()
	if err == nil {
		res.Record = res.Manifest.Record()
		return nil
	}
	session.Close() // what it says of its cost is complete then
	res.Kept = r.left
	res.Record.got(r, session.Cost())
	return err
}

// checkInfo refuses what a manifest could not hold.
func checkInfo(i mvcc.BackupInfo, base []Entry) error {
	m := manifestOf(i, base)
	m.Compression, m.Groups = CompressionNone, uint32(min(1, m.Blocks))
	m.ID.Sequence = m.Base.Sequence + 1
	if reason := m.invalid(); reason != "" {
		return fmt.Errorf("source says what cannot be: %s", reason)
	}
	return nil
}

// manifestOf is what is known of a backup beforehand: of an incremental not yet how
// many blocks it has.
func manifestOf(i mvcc.BackupInfo, base []Entry) Manifest {
	m := Manifest{
		Kind: KindFull, Database: i.Database, Timeline: i.Timeline, History: i.History,
		LSN: i.LSN, EndLSN: i.LSN, Committed: i.Time.UTC(), RecordSum: i.RecordSum,
		BlockSize: i.BlockSize, HighWater: i.HighWater, Blocks: i.Blocks,
		StartStall: i.StartStall, Objects: []Object{},
	}
	if base != nil {
		m.Kind, m.Blocks, m.BlocksInUse = KindIncremental, 0, i.Blocks
		m.Base, m.BaseManifest, m.BaseLSN = base[0].ID, base[0].digest, base[0].Manifest.EndLSN
	}
	m.RawBytes = int64(m.Blocks) * int64(m.BlockSize)
	return m
}

// newRun is a run that has no id yet.
func newRun(repo *Repository, src Source, o BackupOptions, info mvcc.BackupInfo, base []Entry, started time.Time) *run {
	return &run{
		repo: repo, src: src, o: o, info: info, base: base, started: started, lastRecord: time.Now(),
		bounds: bounds{seed: block.SeedOf(info.Database), upTo: info.LSN, highWater: info.HighWater},
		pace:   pacer{rate: o.BytesPerSecond}, guards: runGuards{limits: o.Guards, started: started, meter: sinkMeter{pieceMax: pieceOf(o.Guards.RateMin)}},
	}
}

// begin has the run go on with what was cut off, or else claims a new id for it. From
// then on other runs leave its objects alone.
func (r *run) begin(ctx context.Context) error {
	if went, err := r.takeOver(ctx); went || err != nil {
		return err
	}
	c, err := r.repo.catalog(ctx)
	if err != nil {
		return err
	}
	for range nameTries {
		// Somebody who sweeps may take a claim that is not locked yet for one of the dead:
		// then another is tried.
		err = r.claimID(ctx, newBackupID(c.sequence+1))
		if !errors.Is(err, ErrClaimed) {
			break
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	if err != nil {
		return writeError("claim backup id", err)
	}
	return nil
}

// claimID makes id the run's.
func (r *run) claimID(ctx context.Context, id BackupID) error {
	host, _ := os.Hostname() // "" will do
	note := fmt.Sprintf("pid %d on %q since %s\n", os.Getpid(), host, r.started.UTC().Format(time.RFC3339))
	claim, err := r.repo.objects.Claim(ctx, objectName(id, kindRun, 0), []byte(note))
	if err != nil {
		return err
	}
	r.become(id, claim)
	return nil
}

// become gives the run its id, of which it has the claim.
func (r *run) become(id BackupID, claim io.Closer) {
	r.id, r.claim = id, claim
	r.blocks, r.index.out = r.series(magicBlocks, kindBlocks), r.series(magicIndex, kindIndex)
}

// series is what the run writes of one kind.
func (r *run) series(m magic, k kind) *objectSeries {
	return &objectSeries{
		objects: r.repo.objects, pace: &r.pace, meter: &r.guards.meter, magic: m, kind: k,
		db: r.info.Database, id: r.id, limit: r.o.ObjectBytes,
	}
}
