package livebackup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// run is one backup being made: a goroutine pulls and proves blocks, a few
// compress, and the one that called make writes. A group goes round between
// them; there are few, so nobody runs ahead of the sink by more than that.
type run struct {
	repo    *Repository
	src     Source
	heads   heads // of before the snapshot was opened
	o       BackupOptions
	info    mvcc.BackupInfo
	base    []Entry // chain of the base; nil: a full backup
	id      BackupID
	claim   io.Closer
	started time.Time
	bounds  bounds

	guards runGuards
	pace   pacer
	blocks *objectSeries
	index  indexWriter

	whyFull     string
	sink        time.Duration // that was spent writing
	bufferBytes int64         // of the groups
	setBytes    int64         // of the set of blocks seen, at its peak
	progress    Progress      // of the writer
	groups      uint32
	written     uint64      // blocks that are in groups that were written
	newest      block.LSN   // of the images in groups that were written since the last part
	above       block.ID    // above their numbers
	behind      bool        // what is written now was handed out behind F
	parts       []Part      // that were cut off
	held        []block.LSN // of each part: see partial
	resumed     *resumed    // nil: nothing was taken over
	records     uint32      // number of the newest record
	recorded    int         // objects of blocks that it names
	inRecord    uint64      // blocks that are in these
	left        uint64      // blocks that stay for the next run, of one that failed
	lastRecord  time.Time
	forward     *runForward // nil: the session did not fall forward
	kept        uint64      // blocks that are in the groups
	audited     int         // blocks that are not, and are held against the base
	auditor     *auditor    // nil: a full backup

	costMu sync.Mutex
	cost   mvcc.Cost // as of the last pull; guarded by costMu
	total  uint64    // blocks that there will be, as far as known; guarded by costMu
}

// group is a buffer on its round: free, filled, packed, written, free.
type group struct {
	raw    []byte // room for the images
	ids    []block.ID
	out    []byte // room for the compressor
	stored []byte // what to write: in out or in raw
	codec  codec
	crc    uint32    // of stored
	newest block.LSN // of the images
	redo   bool      // it is a chunk of redo: raw is records
}

// make pulls, writes and publishes, or leaves the repository as it was.
//
// What is published may be taken back: because the second look at the repository finds a
// rival, or did not come to its end. Until that is decided the run keeps its claim, and as
// long as it does nobody adds to the backup, and no prune counts it: others would go for
// its sake, or stand on what goes (L13).
func (r *run) make(ctx context.Context, s Session) (Manifest, error) {
	ctx, stop := r.guards.watch(ctx)
	defer stop()
	m, err := r.write(ctx, s)
	// Durable in the database before it is here (R18). One that has failed can remember
	// nothing any more; when it is opened again its log has this state all the same.
	if err == nil && !r.o.Rescue {
		err = r.repo.announce(ctx, r.src, r.heads, r.id, m.Timeline, mvcc.Head{LSN: m.EndLSN, Sum: m.RecordSum})
	}
	if err == nil {
		err = r.publish(ctx, &m)
	}
	if err == nil {
		_, err = r.repo.checkRivals(ctx, r.src, r.heads, r.id, m.Timeline)
	}
	keep := err != nil && r.resumable(ctx, err)
	// Cleaning up is not to be cancelled by what made it necessary.
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		err = errors.Join(err, r.undo(ctx, keep))
	}
	if keep {
		r.left = r.inRecord
	}
	r.claim.Close()
	if err != nil {
		return Manifest{}, err
	}
	// The backup stands; a claim that stays is swept by the next run.
	r.repo.objects.Delete(ctx, objectName(r.id, kindPartial, r.records), objectName(r.id, kindRun, 0))
	return m, nil
}

// undo removes what was written. The manifest goes first and durably: were it
// to come back after a power cut without its objects, a list would lie (L12). With keep
// objects stay for the next run.
func (r *run) undo(ctx context.Context, keep bool) error {
	r.blocks.abort()
	r.index.out.abort()
	if r.forward != nil {
		r.forward.log.abort()
	}
	err := r.repo.objects.Delete(ctx, objectName(r.id, kindManifest, 0))
	if err == nil && !keep {
		var c *catalog
		if c, err = r.repo.catalog(ctx); err == nil {
			err = r.repo.remove(ctx, append(withoutClaim(c.objects[r.id], r.id), objectName(r.id, kindRun, 0)))
		}
	}
	if err != nil {
		return fmt.Errorf("remove what was written (the next backup will): %w", err)
	}
	return nil
}

// write brings every block into durable objects.
func (r *run) write(ctx context.Context, s Session) (Manifest, error) {
	r.auditor = r.startAudit(ctx) // it reads what was there before, while this reads and writes
	if err := r.copy(ctx, s); err != nil {
		r.auditor.give()
		return Manifest{}, err
	}
	// Every block is in hand and proven: from here on the database need not
	// pay, and whatever becomes of the session takes nothing away.
	s.Close()
	err := r.finish(ctx)
	if err := cmp.Or(r.auditor.end(), err); err != nil {
		return Manifest{}, err
	}
	m := r.manifest(s.Cost())
	if r.forward != nil {
		err = r.checkForward(ctx, &m)
	}
	return m, err
}

// finish makes what is written durable.
func (r *run) finish(ctx context.Context) error {
	if f := r.forward; f != nil {
		if err := f.log.finish(); err != nil {
			return err
		}
	}
	return r.cutPart(ctx)
}

// manifest is what the backup is once all its objects are durable.
func (r *run) manifest(cost mvcc.Cost) Manifest {
	m := manifestOf(r.info, r.base)
	m.ID, m.Groups, m.StoredBytes = r.id, r.groups, r.blocks.bytes+r.index.out.bytes
	if r.base != nil {
		m.Blocks, m.RawBytes = r.written, int64(r.written)*int64(m.BlockSize)
		m.Audit = Audit{Asked: auditBlocks(&r.base[0].Manifest), Compared: r.audited}
	}
	m.Objects = append(append(m.Objects, r.blocks.done...), r.index.out.done...)
	if r.forward != nil || r.resumed != nil {
		m.Blocks, m.RawBytes, m.BlocksInUse, m.Parts = r.written, int64(r.written)*int64(m.BlockSize), r.info.Blocks, r.parts
	}
	if r.forward != nil {
		r.forward.enter(&m)
	}
	m.Rescue = r.o.Rescue
	m.Owner, m.Label, m.Compression, m.CreatedBy = r.o.Owner, r.o.Label, r.o.Compression, createdBy
	m.Started, m.Duration, m.Cost, m.Run = r.started.UTC(), time.Since(r.started), costOf(cost), r.record(cost)
	return m
}

// record is what the manifest says of the run.
func (r *run) record(cost mvcc.Cost) Run {
	out := Run{
		WhyFull: r.whyFull, BytesPerSecond: r.pace.rate, LimitChanges: r.pace.changes, Sink: r.sink,
		BufferBytes: r.memory(),
	}
	out.met(&cost)
	out.Margins = append(out.Margins, r.guards.margins()...)
	return out
}

// memory is what the backup's own buffers took, at most.
func (r *run) memory() int64 { return r.bufferBytes + r.setBytes + r.index.bytes() }

// publish makes the backup a backup, and reads back that it is one.
func (r *run) publish(ctx context.Context, m *Manifest) error {
	data, err := m.encode(r.repo.id)
	if err != nil {
		return err
	}
	name := objectName(r.id, kindManifest, 0)
	if len(data) > manifestBytesMax {
		return fmt.Errorf("manifest has %d bytes, it may have %d: use larger objects", len(data), manifestBytesMax)
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := r.repo.put(ctx, name, data); err != nil {
		return err
	}
	back, err := readSmall(ctx, r.repo.objects, name, manifestBytesMax)
	if err == nil && !bytes.Equal(back, data) {
		err = damaged(name, -1, "it reads back other than it was written", nil)
	}
	if err == nil {
		*m, err = decodeManifest(back, r.id, r.repo.id)
	}
	return err
}

// copy runs the pipeline to its end: twice, if the session falls forward.
func (r *run) copy(ctx context.Context, s Session) error {
	encoders, err := r.newEncoders()
	if err != nil {
		return err
	}
	free := make(chan *group, r.o.Workers+2)
	for range cap(free) {
		free <- r.newGroup(encoders[0])
	}
	if err = r.pipe(ctx, s, encoders, free); err != nil || r.forward == nil {
		return err
	}
	if err := r.cutPart(ctx); err != nil {
		return err
	}
	r.behind = true
	defer r.forward.enc.close()
	return r.pipe(ctx, s, encoders, free)
}

// pipe runs the pipeline until the session ends or falls forward. All groups are free
// again when it returns nil.
func (r *run) pipe(ctx context.Context, s Session, encoders []*encoder, free chan *group) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(errStopped)

	filled, packed := make(chan *group, cap(free)), make(chan *group, cap(free)+redoBuffers)
	wg.Go(func() {
		defer close(filled)
		if err := r.pull(ctx, s, free, filled, packed); err != nil {
			cancel(err)
			s.Close() // now: who writes may be stuck in the repository
		}
	})
	var packers sync.WaitGroup
	for _, e := range encoders {
		packers.Go(func() { pack(e, filled, packed) })
	}
	wg.Go(func() { packers.Wait(); close(packed) })

	for g := range packed { // room for all: nobody blocks on a channel when this stops
		if err := context.Cause(ctx); err != nil {
			return err
		}
		began := time.Now()
		err := r.writeOne(ctx, g)
		r.sink += time.Since(began)
		if err != nil {
			return err
		}
		if g.redo {
			r.forward.free <- g
		} else {
			free <- g
		}
	}
	return context.Cause(ctx)
}

// errStopped ends the goroutines of a pipeline that is over.
var errStopped = errors.New("stopped")

func (r *run) newEncoders() (list []*encoder, err error) {
	for range r.o.Workers {
		e, err := newEncoder(r.o.Compression, r.groupBlocks()*r.info.BlockSize)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// groupBlocks is how many blocks go into a group.
func (r *run) groupBlocks() int { return max(1, r.o.GroupBytes/r.info.BlockSize) }

func (r *run) newGroup(e *encoder) *group {
	n := r.groupBlocks()
	raw := n * r.info.BlockSize
	g := &group{raw: make([]byte, raw), ids: make([]block.ID, n), out: make([]byte, 0, e.outputMax(raw))}
	r.bufferBytes += int64(cap(g.raw) + 8*cap(g.ids) + cap(g.out))
	return g
}

// pull fills groups from the session until it ends, or falls forward.
func (r *run) pull(ctx context.Context, s Session, free <-chan *group, filled, packed chan<- *group) error {
	seen, f := newBlockSet(), r.forward
	if f != nil {
		seen = f.again
	}
	for {
		var g *group
		select {
		case g = <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := r.fill(ctx, s, g, seen)
		var fell *mvcc.FellForwardError
		if err != nil && err != io.EOF && !errors.As(err, &fell) {
			return err
		}
		total := s.Total()
		if err == io.EOF {
			total = r.kept
		}
		r.setCost(s.Cost(), total)
		filled <- g
		switch {
		case fell != nil:
			return r.fellForward(fell.LSN, seen)
		case err == io.EOF && f != nil:
			return r.endForward(ctx, s, packed)
		case err == io.EOF:
			return r.complete(seen)
		case f != nil:
			if err := r.pullRedo(ctx, s, packed); err != nil {
				return err
			}
		}
	}
}

// complete proves that the source handed out what it promised: of an incremental it
// promised no number, only that there are no more than are in use.
func (r *run) complete(seen *blockSet) error {
	r.setBytes = seen.bytesPeak
	if r.base == nil && seen.count != r.info.Blocks || seen.count > r.info.Blocks {
		return fmt.Errorf("source handed out %d blocks where %d were due", seen.count, r.info.Blocks)
	}
	return nil
}

// fill pulls until the group is full or the session ends, and proves what came.
// From then on the block is in hand: the engine has dropped its original, so a
// loss behind this point ends the backup (R10).
func (r *run) fill(ctx context.Context, s Session, g *group, seen *blockSet) error {
	size := r.info.BlockSize
	g.ids, g.newest = g.ids[:cap(g.ids)], 0
	n, err := 0, error(nil)
	for n < len(g.ids) && err == nil {
		var got int
		if got, err = s.Next(ctx, g.raw[n*size:], g.ids[n:]); err != nil {
			break
		}
		if got < 1 || got > len(g.ids)-n {
			err = fmt.Errorf("source handed out %d blocks where at most %d fit", got, len(g.ids)-n)
			break
		}
		got, err = r.take(g, g.raw[n*size:], g.ids[n:n+got], seen)
		n += got
	}
	g.ids = g.ids[:n]
	if errors.Is(err, mvcc.ErrMapBehind) { // the database has found it by itself
		err = fmt.Errorf("%w: %w", ErrAuditMismatch, err)
	}
	if err != nil && err != io.EOF {
		return fmt.Errorf("pull blocks: %w", err)
	}
	return err
}

// take proves the blocks that arrived, moves those together that belong into the
// backup, and returns how many. The others, which an incremental is to be held
// against its base with, it puts aside; what was taken over already it leaves out.
func (r *run) take(g *group, images []byte, ids []block.ID, seen *blockSet) (n int, err error) {
	size := r.info.BlockSize
	for i, id := range ids {
		image := images[i*size:][:size]
		lsn, err := r.prove(image, id, seen)
		if err != nil {
			return n, err
		}
		if r.base != nil && lsn <= r.info.Base {
			if err := r.putAside(auditBlock{id, lsn, image}); err != nil {
				return n, err
			}
			continue
		}
		if n < i {
			copy(images[n*size:], image)
		}
		if r.resumed.has(id, lsn) {
			continue
		}
		if r.forward != nil {
			r.forward.newest = max(r.forward.newest, lsn)
		}
		g.newest = max(g.newest, lsn)
		ids[n] = id
		n++
	}
	r.kept += uint64(n)
	return n, nil
}

func (r *run) putAside(a auditBlock) error {
	if most := auditBlocks(&r.base[0].Manifest); r.audited == most {
		return fmt.Errorf("source handed out more than the %d blocks to be audited that it was asked for", most)
	}
	if r.audited == 0 {
		r.bufferBytes += imageCacheMin
	}
	a.image = bytes.Clone(a.image)
	r.audited++
	r.bufferBytes += int64(len(a.image))
	r.auditor.blocks <- a
	return nil
}

// prove checks a block as it arrives, and returns its LSN.
func (r *run) prove(image []byte, id block.ID, seen *blockSet) (block.LSN, error) {
	t, reason := r.bounds.wrong(image, id)
	if reason == "" && !seen.add(id) {
		reason = "it came before"
	}
	if reason == "" {
		return t.LSN, nil
	}
	return 0, &block.CorruptError{Path: "database " + r.info.Database.String(), Offset: -1, Block: id, Reason: reason}
}

// bounds are what holds for each block of a backup.
type bounds struct {
	seed        block.Seed
	above, upTo block.LSN // above 0: no lower bound
	highWater   block.ID
}

// wrong says why image cannot be block id, or "".
func (b bounds) wrong(image []byte, id block.ID) (t block.Trailer, reason string) {
	t, reason = block.Verify(image, id, b.seed)
	switch {
	case reason != "":
	case t.LSN > b.upTo:
		reason = fmt.Sprintf("its LSN %v is above the snapshot's %v", t.LSN, b.upTo)
	case b.above > 0 && t.LSN <= b.above:
		reason = fmt.Sprintf("its LSN %v is not above the base's %v", t.LSN, b.above)
	case id >= b.highWater:
		reason = fmt.Sprintf("it lies behind the high-water mark %v", b.highWater)
	}
	return t, reason
}

// pack compresses until there is nothing left.
func pack(e *encoder, filled <-chan *group, packed chan<- *group) {
	defer e.close()
	for g := range filled {
		size := len(g.raw) / cap(g.ids)
		g.stored, g.codec = e.encode(g.raw[:len(g.ids)*size], g.out)
		g.crc = checksum(g.stored)
		packed <- g
	}
}

// writeOne writes what was packed.
func (r *run) writeOne(ctx context.Context, g *group) error {
	if g.redo {
		return r.writeRedo(ctx, g)
	}
	return r.writeGroup(ctx, g)
}

// writeGroup appends a group, which may be empty, and enters it in the index.
func (r *run) writeGroup(ctx context.Context, g *group) error {
	if len(g.ids) == 0 {
		return nil
	}
	e := groupEntry{blocks: uint32(len(g.ids)), stored: uint32(len(g.stored)), codec: g.codec, crc: g.crc}
	header := encodeGroupHeader(r.groups, e)
	object, off, err := r.blocks.append(ctx, header[:], g.stored)
	if err != nil {
		return err
	}
	e.object, e.offset = object, uint64(off)
	if err := r.index.add(ctx, e, g.ids); err != nil {
		return err
	}
	r.groups++
	r.written += uint64(len(g.ids))
	r.newest = max(r.newest, g.newest)
	for _, id := range g.ids {
		r.above = max(r.above, id+1)
	}
	r.report(len(g.ids))
	return r.checkpoint(ctx)
}

func (r *run) setCost(c mvcc.Cost, total uint64) {
	r.costMu.Lock()
	defer r.costMu.Unlock()
	r.cost, r.total = c, total
}

func (r *run) report(blocks int) {
	if r.o.Progress == nil {
		return
	}
	r.costMu.Lock()
	cost, total := r.cost, r.total
	r.costMu.Unlock()
	r.progress.Blocks += uint64(blocks)
	if r.progress.BlocksTotal = r.info.Blocks; r.base != nil {
		r.progress.BlocksTotal = max(total, r.progress.Blocks)
	}
	r.progress.RawBytes += int64(blocks * r.info.BlockSize)
	r.progress.StoredBytes = r.blocks.bytes + r.index.out.bytes
	r.progress.Elapsed, r.progress.Cost = time.Since(r.started), costOf(cost)
	r.o.Progress(r.progress)
}
