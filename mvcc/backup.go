package mvcc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/internal/yield"
	"github.com/spillwaydb/spillway/snapshot"
)

// BackupOptions of a backup. The zero value is good. Their JSON is what a client asks a
// serving process for.
type BackupOptions struct {
	Owner string `json:"owner"` // what operators see in Status, as the next one
	Label string `json:"label"`
	// FullSpeed says that the scan of the data file does not rest while others
	// commit.
	FullSpeed bool `json:"full_speed,omitempty"`
	// Base makes the backup incremental: it hands out the blocks in use whose
	// version is newer than Base. 0: all blocks in use. ErrBase if the changed-block
	// map does not reach back to Base.
	Base block.LSN `json:"base,omitempty"`
	// AuditBlocks is how many blocks that did not change since Base an incremental
	// hands out all the same, extents drawn at random, for its taker to compare with
	// the base. Their trailers' LSNs are at or below Base. At most 4096: they are drawn
	// while the backup wants everything.
	AuditBlocks int `json:"audit_blocks,omitempty"`
	// FileOrder has blocks that change often wait for their turn in the order of the
	// file: for disks that seek slowly, and for comparisons.
	FileOrder bool `json:"file_order,omitempty"`
	// OnExhaustion says what the backup does when its originals outgrow what was
	// granted. "": ExhaustionForward.
	OnExhaustion Exhaustion `json:"on_exhaustion,omitempty"`
	// Guards end the backup early, with a GuardError, when it costs too much.
	Guards Guards `json:"guards,omitzero"`
	// HurryShare is the share of what temporary storage and overflow may have at which
	// the scan rests no more, because the backup holds so much. 0: it always rests.
	HurryShare float64 `json:"hurry_share,omitempty"`
	// Rescue takes the backup from a store that has failed (L8), at its last durable
	// commit. Others are refused there with ErrEmergency.
	Rescue bool `json:"rescue,omitempty"`
}

// BackupInfo says what a backup is of.
type BackupInfo struct {
	Database   block.DatabaseID
	Timeline   block.TimelineID
	LSN        block.LSN // S: the backup is exactly the state at S
	Time       time.Time // no commit at or below S is newer; never steps back (R19)
	BlockSize  int
	HighWater  block.ID // first block number never used at S
	Blocks     uint64   // how many blocks Next will hand out
	Opened     time.Time
	StartStall time.Duration // how long opening it kept writers waiting
	Base       block.LSN     // of an incremental; then Blocks is how many are in use, not how many are handed out
	History    []block.Fork  // the timelines that led to Timeline, the newest first (R18)
	RecordSum  uint32        // checksum of the log record that ends LSN: with it the name of a history (R18); 0 where the log no longer has it
}

// Backup hands out every block that was allocated at its LSN (with a base, those
// that changed since), once, in the order that the store chooses (order.go). A block's original is let go of as soon as the block
// was handed out. Next is for one goroutine at a time; Close may come from any.
type Backup struct {
	s    *Store
	live *snapshot.Backup
	info BackupInfo
	view view

	mu      sync.Mutex // held by Next and Close
	closed  bool
	handed  uint64
	group   uint64     // the scan is in this group
	pending []block.ID // blocks of the group that the scan has not come to
	loaded  bool       // pending was filled for group
	asked   block.ID   // up to here a full backup has told the system what it will read
	meta    bool       // the meta block was handed out
	queued  []block.ID
	file    vfs.File   // the data file, for the scan
	read    []byte     // where the scan reads several blocks at once
	inc     *increment // nil: all blocks in use
	cost    Cost
	scanned ScanCost
	pace    *scanPace // nil: full speed

	spilledBefore    int64
	overflowedBefore int64
	peaks            *blockcache.Peaks
	track            *backupTrack
	charges          charges
	hot              hotOrder
	fwd              forward
	canForward       bool
	guards           guarding
	hurryAt          float64     // BackupOptions.HurryShare
	hurry            atomic.Bool // the scan rests no more
}

// Cost is what a backup has cost so far. The peaks are the store's while the
// backup is open: several backups share them.
type Cost struct {
	OriginalsMade    uint64 // versions kept because this backup would still read them
	OriginalsShared  uint64 // of these, kept for someone else, too
	OriginalsSpilled uint64 // written to temporary storage
	OriginalsRead    uint64 // handed out from originals

	// BlocksChanged is how many blocks in use at the backup's LSN were changed or freed
	// while it was open, each counted once: what it would have kept had it kept
	// everything to the end.
	BlocksChanged     uint64
	OriginalsPruned   uint64 // of these, never kept: in hand before, or not carried
	OriginalsPeak     uint64 // most that were kept at one moment
	OriginalsHeldPeak uint64 // most that took RAM or temporary storage at one moment; the others were in place only

	BlocksHot uint64 // handed out before their turn, because they change often

	HeldBytes     int64 // of originals that it still wants, in RAM and temporary storage
	HeldPeakBytes int64

	RAMPeakBytes      int64 // of what could not leave RAM without I/O
	SpillPeakBytes    int64
	OverflowPeakBytes int64

	OriginalsOverflowed uint64   `json:",omitempty"` // frames that were taken beyond MaxRAM, one after the other
	Margins             []Margin `json:",omitempty"` // how near each guard came to its limit

	Levels           []LevelPeak `json:",omitempty"` // each where it was fullest
	Crossings        []Crossing  `json:",omitempty"` // watermarks crossed, in order, the first 64
	CrossingsLeftOut int         `json:",omitempty"`
}

// readAhead is how many bytes the scan reads at once: so few that others do not
// wait long for the disk. What was read is left in the operating system's cache:
// writers change blocks that they have to read first, and a scan that dropped
// what it read would take from them what they had.
const readAhead = 64 << 10

// auditBlocksMax is how many blocks an incremental may hand out to be audited.
const auditBlocksMax = 4096

func (o *BackupOptions) validate() error {
	if o.AuditBlocks < 0 || o.AuditBlocks > auditBlocksMax {
		return optionError("%d blocks to audit: there may be 0 to %d", o.AuditBlocks, auditBlocksMax)
	}
	return errors.Join(o.OnExhaustion.validate(), o.Guards.validate())
}

// OpenBackup opens a backup at the newest commit that readers see, and makes it
// durable first in the weaker modes (R6). ErrTooManyBackups of package snapshot
// if there are too many. Close it.
func (s *Store) OpenBackup(ctx context.Context, o BackupOptions) (*Backup, error) {
	if err := s.state.enterUnlessClosed(); err != nil {
		return nil, err
	}
	if err := s.mayOpen(ctx, &o); err != nil {
		s.leave()
		return nil, fmt.Errorf("open backup: %w", err)
	}
	b, err := s.openBackup(o)
	if err != nil {
		s.leave()
		return nil, fmt.Errorf("open backup: %w", err)
	}
	return b, nil
}

func (s *Store) openBackup(o BackupOptions) (*Backup, error) {
	began := time.Now()
	live, err := s.snapshots.OpenBackup(o.Owner, o.Label)
	if err != nil {
		return nil, err
	}
	stall := time.Since(began) // all that a writer could have waited for
	b := &Backup{s: s, live: live, queued: make([]block.ID, 64), hot: hotOrder{off: o.FileOrder}, canForward: o.OnExhaustion != ExhaustionAbort, hurryAt: o.HurryShare}
	b.guards.margins = o.Guards.limits()
	if !o.FullSpeed {
		b.pace = &scanPace{newest: live.LSN()}
	}
	b.view = view{live.LSN(), live}
	b.spilledBefore, b.overflowedBefore, b.peaks = s.cache.Counts().Spilled, s.cache.Counts().Overflowed, s.cache.FollowPeaks()
	err = s.log.Sync(live.LSN())
	if err == nil {
		err = b.describe(began, stall)
	}
	if err == nil && o.Base > 0 {
		err = b.makeIncremental(o.Base, o.AuditBlocks)
	}
	if err == nil {
		b.file, err = s.data.openScan(s.opts.FS)
	}
	if err == nil && b.canForward {
		live.CanFallForward(b.fellForward)
	}
	if err != nil {
		live.Close()
		s.cache.UnfollowPeaks(b.peaks)
		return nil, err
	}
	b.track = &backupTrack{backup: b, groups: s.geo.groups(b.info.HighWater)}
	s.live.enter(b.track)
	s.followBackups(time.Now()) // the first reading: it may end before the next
	return b, nil
}

func (b *Backup) describe(began time.Time, stall time.Duration) error {
	s := b.s
	r, err := s.get(metaBlock, b.view)
	if err != nil {
		return fmt.Errorf("read meta block: %w", err)
	}
	s.given(r, b.live.LSN(), "a backup")
	m := decodeMeta(r.Payload())
	r.Release()
	b.info = BackupInfo{
		Database: s.database, Timeline: s.timeline, LSN: b.live.LSN(), Time: s.lastCommitTime(),
		BlockSize: s.geo.size, HighWater: m.highWater,
		Blocks: s.inUseAt(&m),
		Opened: began, StartStall: stall,
		History: s.history(), RecordSum: s.recordSum(b.live.LSN()),
	}
	return nil
}

// Info says what the backup is of.
func (b *Backup) Info() BackupInfo { return b.info }

// Cost is what the backup has cost so far.
func (b *Backup) Cost() Cost {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := b.live.Stats()
	c := b.cost
	c.OriginalsMade, c.OriginalsShared = st.OriginalsMade, st.OriginalsShared
	c.BlocksChanged, c.OriginalsPruned = st.Replaced, st.Replaced-st.OriginalsMade
	c.OriginalsPeak, c.OriginalsHeldPeak = st.Peak, st.StoredPeak
	c.HeldBytes, c.HeldPeakBytes = st.HeldBytes, st.HeldPeakBytes
	c.OriginalsSpilled = b.spilled()
	c.OriginalsOverflowed, c.Margins = uint64(b.s.cache.Counts().Overflowed-b.overflowedBefore), b.guards.seen()
	p := b.s.cache.PeaksSince(b.peaks)
	c.RAMPeakBytes, c.SpillPeakBytes, c.OverflowPeakBytes = p.RAM, p.Temporary, p.Overflow
	b.met(&c)
	return c
}

// Close ends the backup and lets go of what only it wanted. Calling it again
// does nothing.
func (b *Backup) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	b.s.live.leave(b.track)
	b.live.Close()
	b.fwd.close()
	b.s.cache.UnfollowPeaks(b.peaks)
	b.charges.close(b.s)
	b.s.leave()
	return b.file.Close()
}

// Next fills buf with whole verified block images, trailers sealed, and ids
// with their numbers, as many as fit into both, and returns how many. io.EOF
// with 0 after the last. The images are the caller's: Next has let go of the
// originals (R10). After another error it may be called again and goes on where
// it was. A snapshot that was broken returns *snapshot.BrokenError for ever
// after (L10). One that fell forward says so once, by a *FellForwardError.
func (b *Backup) Next(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, ErrTxDone
	}
	size := b.s.geo.size
	room := min(len(ids), len(buf)/size)
	if room == 0 {
		return 0, fmt.Errorf("backup: buffer of %d bytes and %d numbers holds no block", len(buf), len(ids))
	}
	n := 0
	defer b.expect()
	for n < room && !b.turning() {
		got, err := 0, b.stop(ctx)
		if err == nil {
			got, err = b.step(ctx, buf[n*size:room*size], ids[n:room])
			n += got
		}
		if err != nil && n == 0 && !b.turning() { // else it is because originals are gone
			return 0, b.explain(err)
		}
		if err != nil || got == 0 {
			break // what was taken is done (R10) and must be handed out; the error comes again
		}
	}
	if err := b.live.Err(); err != nil {
		return 0, err
	}
	if n == 0 && b.turning() {
		return 0, b.turn()
	}
	if n == 0 {
		return 0, b.end()
	}
	b.handed += uint64(n)
	b.track.handed.Store(b.handed)
	return n, nil
}

func (b *Backup) stop(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return b.stopForward()
}

// explain prefers "broken" to what followed from it.
func (b *Backup) explain(err error) error {
	if broken := b.live.Err(); broken != nil {
		return broken
	}
	return fmt.Errorf("backup at LSN %v: %w", b.info.LSN, err)
}

// end is io.EOF if the number of blocks handed out is what the meta block says. How
// many an incremental has to hand out nobody knows; who lays it over its base counts.
func (b *Backup) end() error {
	if b.fwd.told {
		return b.endForward()
	}
	if b.inc != nil {
		return b.endIncremental()
	}
	if b.handed != b.info.Blocks {
		return b.s.data.corrupt(metaBlock, fmt.Sprintf("bitmaps name %d blocks in use at LSN %v, the meta block counts %d", b.handed, b.info.LSN, b.info.Blocks))
	}
	return io.EOF
}

// step hands out some blocks; none means that all are done.
func (b *Backup) step(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	if b.fwd.told {
		return b.stepForward(ctx, buf, ids)
	}
	for {
		if n, err := b.fromQueue(buf, ids); n > 0 || err != nil {
			return n, err
		}
		if n, err := b.fromHot(ctx, buf, ids); n > 0 || err != nil {
			return n, err
		}
		if n, err := b.fromScan(ctx, buf, ids); n > 0 || err != nil {
			return n, err
		}
		more, err := b.countNext()
		if err == nil && !more {
			more, err = b.nextGroup()
		}
		if err != nil {
			return 0, err
		}
		if !more {
			return 0, nil
		}
		if err := b.stop(ctx); err != nil { // there may be many groups without a block
			return 0, err
		}
	}
}

// fromQueue hands out originals that are in hand.
func (b *Backup) fromQueue(buf []byte, ids []block.ID) (int, error) {
	n := b.live.Queued(b.queued[:min(len(ids), len(b.queued))])
	out := 0
	for _, id := range b.queued[:n] {
		if b.holdsBitmap(id) {
			continue // until its group is listed
		}
		ok, err := b.takeOne(id, buf[out*b.s.geo.size:][:b.s.geo.size])
		if err != nil {
			return out, err
		}
		if ok {
			ids[out] = id
			out++
			b.cost.OriginalsRead++
		}
	}
	return out, nil
}

// holdsBitmap reports whether id is a bitmap that the scan still has to read.
func (b *Backup) holdsBitmap(id block.ID) bool {
	g := b.s.geo
	return id == g.bitmapOf(g.groupOf(id)) && (g.groupOf(id) > b.group || g.groupOf(id) == b.group && !b.loaded)
}

// takeOne copies a block as of S and marks it done, unless it was.
func (b *Backup) takeOne(id block.ID, dst []byte) (bool, error) {
	s := b.s
	if b.live.IsDone(id) {
		return false, nil
	}
	r, err := b.getVersion(id)
	if err != nil {
		if b.gone(id, err) {
			b.leftOut(id, nil)
			return false, nil
		}
		return false, err
	}
	defer r.Release()
	yield.At("block pinned by a backup, not done")
	if b.live.FellForward() {
		return false, errGivenUp
	}
	if carried, err := b.carries(id, r.v.LSN); err != nil || !carried {
		b.leftOut(id, err)
		return false, err
	}
	b.taken(r)
	copy(dst, r.data)
	block.Seal(dst, block.Trailer{Type: r.v.Type, ID: id, LSN: r.v.LSN}, s.data.seed)
	b.done(id)
	return true, nil
}

// done lets go of the block's original, under the latch by which commits ask
// for wants (R10).
func (b *Backup) done(id block.ID) {
	l := b.s.cache.Latch(id)
	b.live.Done(id)
	l.Unlock()
}

// nextGroup lists the blocks of the next group that are still wanted, or, before
// that, hot blocks from there on.
func (b *Backup) nextGroup() (bool, error) {
	s := b.s
	if b.loaded {
		b.group++
		b.loaded, b.hot.looked = false, false
		b.live.Passed(block.ID(b.group * s.geo.group))
	}
	if b.group >= s.geo.groups(b.info.HighWater) {
		return false, nil
	}
	if !b.hot.looked {
		b.lookForHot()
		return true, nil
	}
	if b.inc != nil {
		err := b.listChanges()
		b.loaded = err == nil
		return true, err
	}
	id := s.geo.bitmapOf(b.group)
	r, err := b.bitmap(b.group)
	if err != nil {
		return false, err
	}
	defer r.Release()
	b.pending = b.pending[:0]
	if !b.meta {
		b.meta = true
		b.pending = append(b.pending, metaBlock)
	}
	b.pending = append(b.pending, id)
	s.geo.eachInUse(b.group, r.Payload(), func(id block.ID) { b.pending = append(b.pending, id) })
	b.loaded = true
	return true, nil
}

// gapMax is how many blocks in a row an incremental reads in vain rather than read
// twice.
const gapMax = 2

// fromScan hands out the next blocks of the group: a run of up to readAhead
// bytes of the file.
func (b *Backup) fromScan(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	if b.pace != nil && !b.hurry.Load() { // here: originals in hand do not wait for it (L3)
		b.pace.rest(ctx)
	}
	if b.inc != nil {
		return b.fromPending(buf, ids, gapMax, b.takeChanged)
	}
	b.askAhead()
	return b.fromPending(buf, ids, readAhead, b.takeRun) // a full backup wants what lies between, too
}

// aheadBytes is how much of the file a full backup has the system read before it is asked
// for.
const aheadBytes = 512 << 10

// askAhead tells the system what the scan will read next, while it has the disk for
// itself: it waits for each of its reads, and in between a fast disk would idle. Where
// others commit their reads would wait behind these.
func (b *Backup) askAhead() {
	if len(b.pending) == 0 || !b.alone() {
		return
	}
	g, first := b.s.geo, b.pending[0]
	ahead := block.ID(aheadBytes / g.size)
	if b.asked >= first+ahead/2 {
		return
	}
	end := first + ahead
	i, _ := slices.BinarySearch(b.pending, max(b.asked, first))
	j, _ := slices.BinarySearch(b.pending, end)
	b.willRead(b.pending[i:max(i, j)], 1, block.ID(readAhead/g.size), aheadBytes)
	b.asked = end
}

// willRead tells the system that blocks will be read, width of them from each that is
// listed, in order: about most bytes of the file. What has no more than gap blocks
// between it is asked for at once.
func (b *Backup) willRead(list []block.ID, width, gap block.ID, most int64) {
	size := int64(b.s.geo.size)
	for len(list) > 0 && most > 0 {
		n := 1
		for n < len(list) && list[n]-list[n-1] <= width+gap && int64(list[n]-list[0])*size < most {
			n++
		}
		bytes := int64(list[n-1]-list[0]+width) * size
		b.file.WillRead(b.s.geo.offset(list[0]), bytes)
		list, most = list[n:], most-bytes
	}
}

// alone reports whether nobody needs the disk, or the backup need not care.
func (b *Backup) alone() bool { return b.pace == nil || b.hurry.Load() || !b.pace.busy() }

// fromPending hands out the next of the blocks that are listed, a stretch at a time, by
// way of take, which leaves the rest of one with an error.
func (b *Backup) fromPending(buf []byte, ids []block.ID, gap block.ID, take func(run []block.ID, buf []byte, ids []block.ID) (int, []block.ID, error)) (int, error) {
	for len(b.pending) > 0 {
		run := b.pending[:b.stretch(b.pending, len(ids), gap)]
		b.pending = b.pending[len(run):]
		out, rest, err := take(run, buf, ids)
		if err != nil {
			b.pending = slices.Concat(rest, b.pending)
		}
		if out > 0 || err != nil {
			return out, err
		}
	}
	return 0, nil
}

// stretch is how many of a sorted list of blocks are read at once, at most most: up
// to readAhead bytes of the file, with no more than gap blocks between two.
func (b *Backup) stretch(list []block.ID, most int, gap block.ID) int {
	span := block.ID(max(readAhead/b.s.geo.size, 1))
	n := 0
	for n < len(list) && n < most && list[n] < list[0]+span && (n == 0 || list[n] <= list[n-1]+1+gap) {
		n++
	}
	return n
}

// wantedInPlace tells whether the file holds the version of a block that the
// backup wants, wholly, now: then a read that begins later gets that version,
// or something that checksum and LSN tell apart from it (R4).
//
// No head, and no original: what is in place is the newest version; if that is
// newer than S the LSN says so. A clean head at or below S, or an original in
// place: the LSN must be that one. A dirty head at or below S is the trap: the
// file holds an older version with a good checksum and a good LSN.
func (b *Backup) wantedInPlace(id block.ID) (ok bool, exact block.LSN) {
	s := b.s
	l := s.cache.Latch(id)
	defer l.Unlock()
	if h := l.Head(id); h != nil && h.Loading {
		return false, 0
	}
	v, err := s.find(l, id, b.view)
	switch {
	case err != nil:
		return false, 0
	case v == nil:
		return true, 0
	case v.InPlace && !v.Loading && !(v.Role == blockcache.RoleHead && v.Dirty):
		return true, v.LSN
	}
	return false, 0
}

// takeRun hands out those blocks of a run that are not done, as of S. An error leaves
// the rest.
func (b *Backup) takeRun(run []block.ID, buf []byte, ids []block.ID) (out int, rest []block.ID, err error) {
	run = slices.DeleteFunc(run, b.live.IsDone)
	if b.inc != nil {
		run = b.dropKnown(run)
	}
	return b.readRun(run, buf, ids, b.wantedInPlace, b.take)
}

// readRun hands out those blocks of a run that take takes: from one read of the file
// where inPlace says that this may be right, and of which LSN, one by one where not
// (take then gets no image). An error leaves the rest.
func (b *Backup) readRun(run []block.ID, buf []byte, ids []block.ID, inPlace func(block.ID) (bool, block.LSN),
	take func(id block.ID, image []byte, lsn block.LSN, dst []byte) (bool, error)) (out int, rest []block.ID, err error) {
	direct, lsn := make([]bool, len(run)), make([]block.LSN, len(run))
	for i, id := range run {
		direct[i], lsn[i] = inPlace(id)
	}
	var images []byte
	if slices.Contains(direct, true) {
		images = b.readFile(run[0], run[len(run)-1])
		yield.At("run read by a backup, none done")
	}
	size := b.s.geo.size
	for i, id := range run {
		var image []byte
		if at := int(id-run[0]) * size; direct[i] && at+size <= len(images) {
			image = images[at : at+size]
		}
		ok, err := take(id, image, lsn[i], buf[out*size:][:size])
		if err != nil {
			return out, run[i:], err
		}
		if ok {
			ids[out] = id
			out++
		}
	}
	return out, nil, nil
}

// take hands out one block: the image from the file (or nil) if it is the version
// wanted, or what the index has.
func (b *Backup) take(id block.ID, image []byte, exact block.LSN, dst []byte) (bool, error) {
	lsn, sound := b.sound(id, image, exact)
	if !sound {
		return b.takeOne(id, dst)
	}
	if b.live.FellForward() {
		return false, errGivenUp
	}
	carried, err := b.carries(id, lsn)
	if carried {
		b.takenFrom(id, image, lsn)
		copy(dst, image)
		b.done(id)
	} else {
		b.leftOut(id, err)
	}
	return carried, err
}

// readFile reads a stretch of the data file. What cannot be read is left out:
// block by block it will be told which one it was.
func (b *Backup) readFile(first, last block.ID) []byte {
	s := b.s
	n := int(last-first+1) * s.geo.size
	if cap(b.read) < n {
		b.read = make([]byte, max(n, readAhead))
	}
	began := time.Now()
	got, _ := b.file.ReadAt(b.read[:n], s.geo.offset(first))
	b.scanned.Blocks += uint64(got / s.geo.size)
	if b.pace != nil {
		b.pace.read(time.Since(began), s.newestLSN())
	}
	return b.read[:got]
}

// sound says whether an image from the file is the version wanted, and its LSN.
func (b *Backup) sound(id block.ID, image []byte, exact block.LSN) (block.LSN, bool) {
	if image == nil {
		return 0, false
	}
	t, reason := block.Verify(image, id, b.s.data.seed)
	if reason != "" || t.LSN > b.info.LSN {
		return 0, false
	}
	return t.LSN, exact == 0 && !b.s.isLost(id, t.LSN) || t.LSN == exact
}
