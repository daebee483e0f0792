package livebackup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// BackupType says what kind of backup is wanted.
type BackupType string

// The types of backups that can be asked for.
const (
	// TypeAuto is an incremental where that is reasonable, else a full backup; the
	// default. See Backup for what is reasonable.
	TypeAuto        BackupType = "auto"
	TypeFull        BackupType = "full"
	TypeIncremental BackupType = "incremental"
)

// chainIncrementsMax is how many incrementals a chain gets before a full backup
// begins another, unless options say otherwise.
const chainIncrementsMax = 30

// An incremental audits one in auditShare of the blocks in use, but a few at least
// and not many at most. They come eight at a time, an extent. To look at one in the base
// costs a group, 1 MiB if options say nothing else, and so does the bitmap of a few
// of them: with blocks of 4 KiB this share reads 0.8 % of the base, and of a database of
// more than 1.5 GiB less.
const (
	auditShare = 6144
	auditMin   = 16
	auditMax   = 64
)

// basePicker finds the backup that an incremental is to add to. What the repository
// has was listed before the first snapshot was opened.
type basePicker struct {
	o       BackupOptions
	entries []Entry
	refused []refusal
	why     error // there is no base: the last reason
}

// refusal is a base that was tried and found of no use.
type refusal struct {
	id  BackupID
	lsn block.LSN
	err error
}

// openSession opens a snapshot for the kind of backup that is due, and returns the
// chain of its base, nil for a full backup.
//
// A snapshot is opened for a base. Which bases are of the database's history only
// the database knows, and the one that opens the snapshot is the one whose answer
// counts: asked before, it might be another by then. So the newest backup is
// supposed to be the base, which it nearly always is, and what the snapshot says of
// its history decides; where that rules the base out, the snapshot is closed, and
// another opened for the right one. It has cost nothing but the opening.
func (p *basePicker) openSession(ctx context.Context, src Source) (Session, []Entry, error) {
	base := p.pick(nil)
	for range 8 {
		if base == nil && p.o.Type == TypeIncremental && len(p.refused) == 0 {
			return nil, nil, fmt.Errorf("%w: %w", ErrNoBase, p.why)
		}
		s, err := src.Open(ctx, p.sessionOptions(base))
		if base != nil && errors.Is(err, mvcc.ErrBase) {
			p.refuse(base, err)
			base = nil // to see what the database says of itself
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("open snapshot: %w", err)
		}
		info := s.Info()
		if base != nil && info.Base == 0 { // a process of an older version serves it
			p.refuse(base, errors.New("the database hands out all its blocks"))
			base = nil
		}
		want := p.pick(&info)
		if sameChain(want, base) && (base != nil || p.o.Type != TypeIncremental) {
			if err := p.checkBase(base, info); err != nil {
				s.Close()
				return nil, nil, err
			}
			return s, base, nil
		}
		s.Close()
		if want == nil && p.o.Type == TypeIncremental {
			return nil, nil, fmt.Errorf("%w: %w", ErrNoBase, p.why)
		}
		base = want
	}
	return nil, nil, fmt.Errorf("%w: the database changes while it is looked at", ErrNoBase)
}

func sameChain(a, b []Entry) bool {
	return len(a) == len(b) && (len(a) == 0 || a[0].ID == b[0].ID)
}

func (p *basePicker) checkBase(base []Entry, info mvcc.BackupInfo) error {
	want := block.LSN(0)
	if base != nil {
		want = base[0].Manifest.EndLSN
	}
	if info.Base != want {
		return fmt.Errorf("source says what cannot be: increment from LSN %v where %v was asked for", info.Base, want)
	}
	return nil
}

func (p *basePicker) sessionOptions(base []Entry) SessionOptions {
	o := SessionOptions{Owner: p.o.Owner, Label: p.o.Label, FullSpeed: p.o.FullSpeed, OnExhaustion: p.o.OnExhaustion,
		Guards: p.o.Guards.Guards, HurryShare: p.o.HurryShare, Rescue: p.o.Rescue}
	if base != nil {
		o.Base, o.AuditBlocks = base[0].Manifest.EndLSN, auditBlocks(&base[0].Manifest)
	}
	return o
}

// auditBlocks is how many blocks an incremental on base compares with it.
func auditBlocks(base *Manifest) int {
	return int(min(max(base.inUse()/auditShare, auditMin), auditMax))
}

// refuse notes that a base was tried in vain.
func (p *basePicker) refuse(base []Entry, err error) {
	p.refused = append(p.refused, refusal{base[0].ID, base[0].Manifest.EndLSN, err})
}

// pick returns the chain of the base for a snapshot, nil if a full backup is due;
// p.why then says why. With info nil nothing is known of the database.
func (p *basePicker) pick(info *mvcc.BackupInfo) []Entry {
	p.why = nil
	if p.o.Type == TypeFull {
		return nil
	}
	var chain []Entry
	for i := range p.entries {
		e := &p.entries[i]
		if p.o.Base != (BackupID{}) && e.ID != p.o.Base {
			continue
		}
		members, err := p.usable(e, info)
		switch {
		case err != nil:
			p.why = fmt.Errorf("backup %v: %w", e.ID, err) // the newest one's stays
		case chain == nil || newer(&members[0], &chain[0], info):
			chain = members
		}
	}
	if chain == nil && p.why == nil {
		p.why = errors.New("the repository has no backup")
		if p.o.Base != (BackupID{}) {
			p.why = fmt.Errorf("backup %v: %w", p.o.Base, ErrBackupNotFound)
		}
	}
	if chain != nil && p.o.Type == TypeAuto {
		if p.why = p.unreasonable(chain); p.why != nil {
			return nil
		}
	}
	return chain
}

// newer reports whether a makes a smaller increment than b. Before the database has
// told its history, LSNs of several timelines are not compared.
func newer(a, b *Entry, info *mvcc.BackupInfo) bool {
	if info != nil {
		if c := cmp.Compare(a.Manifest.EndLSN, b.Manifest.EndLSN); c != 0 {
			return c > 0
		}
	}
	return a.ID.Sequence >= b.ID.Sequence
}

// usable returns the chain of e, or why no incremental can be made on it.
func (p *basePicker) usable(e *Entry, info *mvcc.BackupInfo) ([]Entry, error) {
	m := &e.Manifest
	switch {
	case e.Damage != nil || e.Unreadable != nil:
		return nil, fmt.Errorf("it is listed as %s", e.State())
	case e.Disabled != "" && info == nil: // a database of that history may come and take its place back
		return nil, errors.New(e.Disabled)
	case e.making:
		return nil, errors.New("its run is not through with it")
	case m.EndLSN == 0:
		return nil, errors.New("it is of an empty database")
	}
	for _, r := range p.refused {
		// What the map does not know of one LSN it does not know of those before,
		// unless the LSN is in another history.
		if e.ID == r.id || info != nil && r.lsn <= info.LSN && m.EndLSN <= r.lsn {
			return nil, r.err
		}
	}
	switch {
	case info == nil:
	case m.Database != info.Database || m.BlockSize != info.BlockSize:
		return nil, errors.New("it is of another database")
	case m.EndLSN > info.LSN || !lineageOf(info.Timeline, info.History).usable(m):
		return nil, fmt.Errorf("its LSN %v of timeline %v is not in the history of this database (R18)", m.EndLSN, m.Timeline)
	case m.RecordSum == 0 && info.RecordSum != 0 && m.Timeline == info.Timeline: // also below one that has: that says nothing of this one
		return nil, errors.New("it has no checksum, as those of a standby have none, and whose history it is of cannot be told (R18)")
	}
	return chainOf(p.entries, e.ID)
}

// unreasonable says why another increment on a chain is not what a full backup
// would be: restoring takes more and more, and each member may be lost.
func (p *basePicker) unreasonable(chain []Entry) error {
	increments := len(chain) - 1
	if increments >= p.o.ChainMax {
		return fmt.Errorf("there are %d incrementals on the full backup %v", increments, chain[increments].ID)
	}
	stored := int64(0)
	for _, e := range chain[:increments] {
		stored += e.Manifest.StoredBytes
	}
	if full := &chain[increments].Manifest; stored > full.StoredBytes/2 {
		return fmt.Errorf("the incrementals on the full backup %v have %.0f %% of its size", full.ID, 100*float64(stored)/float64(max(full.StoredBytes, 1)))
	}
	return nil
}

// auditBlock is a block that did not change since the base, as the database has it.
type auditBlock struct {
	id    block.ID
	lsn   block.LSN
	image []byte
}

// auditor holds blocks against the base while the backup goes on: what it reads is in
// other places, and it has all been read when the last one has come.
type auditor struct {
	blocks chan auditBlock // room for all
	cancel context.CancelFunc
	ended  chan error
}

// startAudit starts the auditor of an incremental.
func (r *run) startAudit(ctx context.Context) *auditor {
	if r.base == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &auditor{make(chan auditBlock, auditBlocks(&r.base[0].Manifest)), cancel, make(chan error, 1)}
	go func() { a.ended <- r.audit(ctx, a.blocks) }()
	return a
}

// end waits for the last block, and returns what was found.
func (a *auditor) end() error {
	if a == nil {
		return nil
	}
	defer a.cancel()
	close(a.blocks)
	return <-a.ended
}

// give ends it: nobody asks any more.
func (a *auditor) give() {
	if a != nil {
		a.cancel()
		_ = a.end()
	}
}

// audit compares with the base what the database said is as it was then, until there is
// no more. Of a group that is not compressed it reads what it compares.
func (r *run) audit(ctx context.Context, blocks <-chan auditBlock) error {
	first, ok := <-blocks
	if !ok {
		return nil
	}
	img, err := openChain(ctx, r.repo, r.base, ImageOptions{CacheBytes: imageCacheMin, singly: true})
	if err != nil {
		return r.auditFailed(ctx, err)
	}
	defer img.Close()
	held := make([]byte, r.info.BlockSize)
	for a := first; ok; a, ok = <-blocks {
		if err := r.auditOne(ctx, img, &a, held); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) auditOne(ctx context.Context, img *Image, a *auditBlock, held []byte) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	err := img.ReadBlock(a.id, held)
	switch {
	case errors.Is(err, mvcc.ErrNotInUse):
		return fmt.Errorf("%w: block %v is in use and older than LSN %v, and free in base %v", ErrAuditMismatch, a.id, r.info.Base, r.base[0].ID)
	case err != nil:
		return r.auditFailed(ctx, err)
	case !bytes.Equal(a.image, held):
		return fmt.Errorf("%w: block %v, last changed at LSN %v, is another one in base %v", ErrAuditMismatch, a.id, a.lsn, r.base[0].ID)
	}
	return nil
}

// auditFailed says that the base cannot be read, which is damage or worse.
func (r *run) auditFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: base %v cannot be read: %w", ErrNoBase, r.base[0].ID, err)
}
