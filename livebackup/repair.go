package livebackup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Repair of a database by what a repository has of it. The store decides what belongs
// in a block's place, proves what it is given and writes it (mvcc/repair.go); here is
// who finds the damage and an image:
//
//	own      is the repository this database's, and its head in the database's
//	         history (R18)? Else nothing is touched
//	check    which blocks are damaged; or those that are named
//	ask      the store, block by block: it may have what belongs there in RAM or in its
//	         log. What it lacks it says: an image as of a commit from F to T
//	fetch    from the newest sound backup of the same history at L <= T, block by block,
//	         in place. Where L < F the archived log (L, F] rolls all of them forward in
//	         one pass (R8). What one backup does not have sound, the next older has
//	give     the image to the store, with the commit that it is as of
//	check    again, until nothing is found that could be repaired
//
// The store's log is held from F on meanwhile, so that F stays enough. Nothing of the
// repository is changed, but that a lease keeps the backup (R10 has no say here: no
// original is let go).

// RepairOptions of Repair. The zero value is good.
type RepairOptions struct {
	// Blocks are looked at, whether a check finds something or not: an old version of
	// a block, whose rewriting was lost, is sound by itself. None: what a check finds.
	Blocks []block.ID
	// DryRun finds out what would be done, from where, and changes nothing.
	DryRun bool
	// Progress is that of the checks, may be nil.
	Progress func(done, total uint64)
}

// RepairResult is what Repair found and did.
type RepairResult struct {
	Blocks []RepairedBlock
	// Check is the last check; zero if blocks were named.
	Check mvcc.CheckResult
}

// RepairedBlock is one block.
type RepairedBlock struct {
	mvcc.BlockRepaired
	// Backup is the one that the image is of, which is as of commit BackupLSN; zero if
	// none was needed.
	Backup    BackupID
	BackupLSN block.LSN
	AsOf      block.LSN // up to here archived log was rolled forward; BackupLSN if none
	Err       error     // why it could not be repaired; nil: nothing is wrong with it now, or with DryRun would be
}

// Failed is how many blocks could not be repaired.
func (r *RepairResult) Failed() (n int) {
	for i := range r.Blocks {
		if r.Blocks[i].Err != nil {
			n++
		}
	}
	return n
}

// repairRounds bounds how often is checked again: a damaged bitmap hides what it is
// the bitmap of, and a list of damage is bounded.
const repairRounds = 64

// Repair repairs the damaged blocks of a database, live or not, one by one, with what
// is in its memory and log and in a repository. It is never silent: the result lists
// every block that was found, what was done with it and from where, or why not. A
// database without damage is left alone.
//
// An error means that nothing could be tried: the repository is another database's
// ([ErrForeignDatabase]), or of another history ([mvcc.ErrHistory],
// [ErrRepositoryAhead], [ErrForeignTimeline]); or that src failed. Damage of the repository
// itself is not repaired.
func Repair(ctx context.Context, src Source, repo *Repository, o RepairOptions) (RepairResult, error) {
	if o.Progress == nil {
		o.Progress = func(uint64, uint64) {}
	}
	r := repairer{src: src, heads: src, repo: repo, o: o, done: map[block.ID]bool{}}
	err := r.own(ctx)
	if err == nil {
		err = r.run(ctx)
	}
	if r.hold != nil {
		r.hold.Close()
	}
	if err != nil {
		return r.result, fmt.Errorf("repair: %w", err)
	}
	return r.result, nil
}

type repairer struct {
	src     Source      // nil: of a database that is not open yet
	heads   headChecker // knows its history
	repo    *Repository
	o       RepairOptions
	info    LogInfo
	size    int // of a block
	history lineage
	backups []Entry // of the history, the newest first
	logs    []LogObject
	hold    LogSession // keeps the store's log
	done    map[block.ID]bool
	result  RepairResult
}

// own proves that the repository is this database's, and of its history.
func (r *repairer) own(ctx context.Context) error {
	st, err := r.src.Status(ctx)
	if err != nil {
		return err
	}
	r.size = st.BlockSize
	if r.hold, err = r.src.OpenLog(ctx, LogOptions{Name: mvcc.RepairTail, After: st.DurableLSN}); err != nil {
		return err
	}
	r.info = r.hold.Info()
	r.history = lineageOf(r.info.Timeline, r.info.History)
	if err := r.owned(ctx); err != nil {
		return err
	}
	return r.list(ctx)
}

// owned proves it with what is known of the database.
func (r *repairer) owned(ctx context.Context) error {
	owner, bound, err := r.repo.Database(ctx)
	switch {
	case err != nil:
		return err
	case bound && owner != r.info.Database:
		return fmt.Errorf("%w: it has database %v, this is %v", ErrForeignDatabase, owner, r.info.Database)
	}
	h, err := r.repo.heads(ctx)
	if err != nil {
		return err
	}
	head := h.newest[r.info.Timeline]
	switch {
	case head.LSN > r.info.Durable:
		return fmt.Errorf("%w: it has LSN %v of timeline %v, the database is at %v", ErrRepositoryAhead, head.LSN, r.info.Timeline, r.info.Durable)
	}
	return r.repo.checkHead(ctx, r.heads, r.info.Timeline, h.named[r.info.Timeline])
}

// list finds what the repository has of the history.
func (r *repairer) list(ctx context.Context) error {
	entries, err := List(ctx, r.repo)
	if err != nil {
		return err
	}
	known := false
	var unread error // why it is not known of a backup what it is of
	for i := range slices.Backward(entries) {
		e := &entries[i]
		m := &e.Manifest
		unread = cmp.Or(unread, e.Unreadable)
		known = known || m.ID == e.ID
		if e.Unreadable == nil && e.Damage == nil && m.ID == e.ID && r.history.usable(m) && m.EndLSN <= r.info.Durable {
			r.backups = append(r.backups, *e)
		}
	}
	slices.SortStableFunc(r.backups, func(a, b Entry) int { return cmp.Compare(b.Manifest.EndLSN, a.Manifest.EndLSN) })
	switch {
	case len(r.backups) == 0 && known && unread != nil:
		return fmt.Errorf("whether a backup is of timeline %v cannot be told: %w", r.info.Timeline, unread)
	case len(r.backups) == 0 && known:
		return fmt.Errorf("%w: no sound backup is of timeline %v or of one that led to it", ErrForeignTimeline, r.info.Timeline)
	}
	r.logs, err = r.repo.logs(ctx)
	return err
}

func (r *repairer) run(ctx context.Context) error {
	if len(r.o.Blocks) > 0 {
		return r.repairAll(ctx, slices.Clone(r.o.Blocks))
	}
	for range repairRounds {
		ids, err := r.check(ctx)
		if err != nil || len(ids) == 0 {
			return err
		}
		if err := r.repairAll(ctx, ids); err != nil || r.o.DryRun {
			return err
		}
	}
	return nil
}

// check lists the damaged blocks that were not tried yet.
func (r *repairer) check(ctx context.Context) (ids []block.ID, err error) {
	res, err := r.src.Check(ctx, r.o.Progress)
	var damage *block.CorruptError
	if errors.As(err, &damage) && damage.Block != block.NoBlock && !r.done[damage.Block] {
		return []block.ID{damage.Block}, nil // it could not even begin
	}
	if err != nil {
		return nil, err
	}
	r.result.Check = res
	for _, d := range res.Damaged {
		if !r.done[d.Block] {
			ids = append(ids, d.Block)
		}
	}
	return ids, nil
}

// repairAll repairs blocks: the bitmaps first, without which nobody knows about the rest.
func (r *repairer) repairAll(ctx context.Context, ids []block.ID) error {
	layout := mvcc.LayoutOf(r.size)
	rank := func(id block.ID) int {
		if layout.Bitmap(layout.GroupOf(id)) == id || id < layout.Bitmap(0) {
			return 0
		}
		return 1
	}
	slices.SortFunc(ids, func(a, b block.ID) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b)) })
	ids = slices.Compact(ids)
	for len(ids) > 0 {
		n := 1
		for n < len(ids) && rank(ids[n]) == rank(ids[0]) {
			n++
		}
		if err := r.repairSome(ctx, ids[:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

// repairSome asks the store for each, and fetches what it lacks. What ends the repair is
// told of the block at which it does, too: what is listed without an error is mended.
func (r *repairer) repairSome(ctx context.Context, ids []block.ID) (err error) {
	var lacking []*RepairedBlock
	all := make([]*RepairedBlock, 0, len(ids))
	for _, id := range ids {
		r.done[id] = true
		b := &RepairedBlock{}
		all = append(all, b)
		if b.BlockRepaired, b.Err = r.ask(ctx, mvcc.BlockRepair{Block: id}); b.Err != nil {
			b.Block = id
			if _, err = blockError(b.Err); err != nil {
				break
			}
			continue
		}
		if b.From+b.To > 0 { // it lacks one, or could tell more with one
			lacking = append(lacking, b)
		}
		if b.State == mvcc.RepairNoImage {
			b.Err = fmt.Errorf("%w: there is no sound backup as of LSN %v or before", mvcc.ErrNoImage, b.To)
		}
	}
	if err == nil {
		err = r.fetch(ctx, lacking)
	}
	for _, b := range all {
		r.result.Blocks = append(r.result.Blocks, *b)
	}
	return err
}

func (r *repairer) ask(ctx context.Context, q mvcc.BlockRepair) (mvcc.BlockRepaired, error) {
	q.DryRun = r.o.DryRun
	return r.src.RepairBlock(ctx, q)
}

// blockError tells what is wrong with one block from what ends the repair.
func blockError(err error) (ofBlock, ofAll error) {
	if errors.Is(err, block.ErrCorrupt) || errors.Is(err, mvcc.ErrOptions) || errors.Is(err, mvcc.ErrBehind) || errors.Is(err, mvcc.ErrLogGone) {
		return err, nil
	}
	return nil, err
}

// fetch gets images for blocks and gives them to the store.
func (r *repairer) fetch(ctx context.Context, lacking []*RepairedBlock) error {
	if len(lacking) == 0 {
		return nil
	}
	from := block.LSN(0)
	for _, b := range lacking {
		from = max(from, b.From)
	}
	if err := r.holdFrom(ctx, from); err != nil {
		return err
	}
	for i := range r.backups {
		e := &r.backups[i]
		left := slices.DeleteFunc(slices.Clone(lacking), func(b *RepairedBlock) bool { return b.From+b.To == 0 || e.Manifest.EndLSN > b.To })
		if len(left) == 0 {
			continue
		}
		if err := r.fetchFrom(ctx, e, from, left); err != nil {
			return err
		}
	}
	return nil
}

// holdFrom keeps the store's log behind commit from.
func (r *repairer) holdFrom(ctx context.Context, from block.LSN) error {
	hold, err := r.src.OpenLog(ctx, LogOptions{Name: mvcc.RepairTail, After: from})
	if errors.Is(err, mvcc.ErrLogGone) {
		return nil // then it is asked for more: see fetchFrom
	}
	if err != nil {
		return err
	}
	r.hold.Close()
	r.hold = hold
	return nil
}

// fetchFrom tries one backup for some blocks. What an image is good for is the store's
// to say.
func (r *repairer) fetchFrom(ctx context.Context, e *Entry, from block.LSN, blocks []*RepairedBlock) error {
	roller, asOf, lost, err := r.roll(ctx, e, from, blocks)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if err := r.give(ctx, e, roller, b, asOf, lost); err != nil {
			return err
		}
	}
	return nil
}

// roll reads blocks from a backup and rolls them forward to commit from, if that is
// later. asOf is how far they got, lost why no further.
func (r *repairer) roll(ctx context.Context, e *Entry, from block.LSN, blocks []*RepairedBlock) (roller *mvcc.Roller, asOf block.LSN, lost, err error) {
	roller = mvcc.NewRoller(r.size, r.info.Database)
	img, err := OpenBackup(ctx, r.repo, e.ID, ImageOptions{})
	if err != nil {
		if ctx.Err() != nil {
			return nil, 0, nil, context.Cause(ctx)
		}
		for _, b := range blocks {
			r.fail(b, err)
		}
		return roller, 0, err, nil
	}
	asOf = img.Info().LSN
	for _, b := range blocks {
		if err := track(img, roller, b); err != nil {
			r.fail(b, err)
		}
	}
	if err := img.Close(); err != nil || asOf >= from {
		return roller, asOf, nil, err
	}
	err = r.repo.readLog(ctx, r.logs, r.history, LogRange{asOf, from}, e.Manifest.RecordSum, func(rec mvcc.LogRecord) error {
		return errors.Join(context.Cause(ctx), roller.Apply(rec))
	})
	if gone := new(LogLostError); errors.As(err, &gone) {
		return roller, max(asOf, gone.Lost.From), err, nil
	}
	return roller, from, nil, err
}

// track has a block rolled forward from what the backup has of it.
func track(img *Image, roller *mvcc.Roller, b *RepairedBlock) error {
	until := block.LSN(0)
	if b.State == mvcc.RepairNoImage && b.LSN != 0 {
		until = b.To // an older version, exactly
	}
	image := make([]byte, img.Info().BlockSize)
	err := img.ReadBlock(b.Block, image)
	switch {
	case errors.Is(err, mvcc.ErrNotInUse):
		roller.TrackFree(b.Block, until)
		return nil
	case err != nil: // perhaps the log behind it has a whole image
		return errors.Join(err, roller.Track(b.Block, nil, until))
	}
	return roller.Track(b.Block, image, until)
}

// give gives the store an image as of commit asOf. lost is why the archived log went no
// further.
func (r *repairer) give(ctx context.Context, e *Entry, roller *mvcc.Roller, b *RepairedBlock, asOf block.LSN, lost error) error {
	image, _, err := roller.Block(b.Block)
	if err != nil {
		r.fail(b, fmt.Errorf("backup %v and the log behind it: %w", e.ID, err))
		return nil
	}
	asOf = min(asOf, b.To)
	got, err := r.ask(ctx, mvcc.BlockRepair{Block: b.Block, Image: image, AsOf: asOf})
	if err != nil {
		r.fail(b, err)
		_, ofAll := blockError(err)
		return ofAll
	}
	if got.State == mvcc.RepairNoImage {
		if lost == nil {
			lost = fmt.Errorf("%w: one as of a commit from %v to %v is wanted", mvcc.ErrNoImage, got.From, got.To)
		}
		r.fail(b, lost)
		return nil
	}
	b.BlockRepaired, b.Err = got, nil
	if got.State == mvcc.RepairImage {
		b.Backup, b.BackupLSN, b.AsOf = e.ID, e.Manifest.EndLSN, asOf
	}
	b.From, b.To = 0, 0
	return nil
}

// fail notes why a backup was of no use for a block. The newest one's reason stays.
func (r *repairer) fail(b *RepairedBlock, err error) {
	if b.State != mvcc.RepairNoImage {
		return // it was sound before, as far as anyone knows
	}
	if b.Err == nil || errors.Is(b.Err, mvcc.ErrNoImage) {
		b.Err = err
	}
}

// MendFrom is for mvcc.Options.Mend: with it a database can be opened that needs a
// damaged block for that, if the repository has what the block held. mended is told of
// each such block; it may be nil.
func MendFrom(ctx context.Context, repo *Repository, mended func(RepairedBlock)) func(mvcc.BlockNeed) (mvcc.MendImage, error) {
	return func(n mvcc.BlockNeed) (mvcc.MendImage, error) {
		got, b, err := mend(ctx, repo, n)
		if err == nil && mended != nil {
			mended(b)
		}
		return got, err
	}
}

// openingHeads asks a database that is being opened for its history.
type openingHeads func(repo [16]byte, h mvcc.Head) error

// CheckHead asks it.
func (f openingHeads) CheckHead(_ context.Context, repo RepositoryID, h mvcc.Head) error {
	return f(repo, h)
}

// mend gets an image of one block of a database that is not open yet.
func mend(ctx context.Context, repo *Repository, n mvcc.BlockNeed) (got mvcc.MendImage, b RepairedBlock, err error) {
	r := repairer{heads: openingHeads(n.CheckHead), repo: repo, info: LogInfo{n.Database, n.Timeline, n.History, n.To}, history: lineageOf(n.Timeline, n.History)}
	if err := r.owned(ctx); err != nil {
		return got, b, err
	}
	if err := r.list(ctx); err != nil {
		return got, b, err
	}
	b.Block, b.State, b.Err = n.Block, mvcc.RepairNoImage, mvcc.ErrNoImage
	if damage := new(block.CorruptError); errors.As(n.Cause, &damage) {
		b.Offset, b.Found = damage.Offset, damage.Reason
	}
	for i := range r.backups {
		e := &r.backups[i]
		r.size = e.Manifest.BlockSize
		roller, asOf, lost, err := r.roll(ctx, e, n.From, []*RepairedBlock{&b})
		if err != nil {
			return got, b, err
		}
		image, lsn, err := roller.Block(n.Block)
		if err = errors.Join(err, lost); err != nil {
			r.fail(&b, fmt.Errorf("backup %v and the log behind it: %w", e.ID, err))
			continue
		}
		b.State, b.LSN, b.Backup, b.BackupLSN, b.AsOf, b.Err = mvcc.RepairImage, lsn, e.ID, e.Manifest.EndLSN, asOf, nil
		return mvcc.MendImage{Image: image, AsOf: asOf}, b, nil
	}
	return got, b, b.Err
}
