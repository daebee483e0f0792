package livebackup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// blockWriter takes what a replay decodes. Safe for concurrent use on
// different blocks.
type blockWriter interface {
	Write(first block.ID, images []byte) error
}

// blockKeeper is a blockWriter that an earlier one left blocks to.
type blockKeeper interface {
	blockWriter
	// Kept reports whether n blocks from first on are there and sound; then they
	// count as written.
	Kept(first block.ID, n int) (bool, error)
}

// replayChain is the one way to read a backup: Restore gives what comes out to a
// builder, Verify to a prover. The newest backup of the chain comes first, and a
// block that it has, or that is free by now, is not wanted of an older one: so
// each is written once. All objects are read and proven to the last byte, but what
// holds nothing that is wanted is not expanded. Only when replayChain returns nil
// is what was written known to be the backup. done may be nil.
func replayChain(ctx context.Context, repo *Repository, members []Entry, out blockWriter, done *journal, p *meter) error {
	windows, err := surveyRedo(ctx, repo.objects, members)
	if err != nil {
		return err
	}
	parts := partsOf(members)
	w, err := wantedOf(ctx, repo, members, windows)
	if err != nil {
		return err
	}
	redoer, err := followRedo(out, windows)
	if err != nil {
		return err
	}
	p.now.BlocksTotal = members[0].Manifest.inUse()
	crew, err := newCrew()
	if err != nil {
		return err
	}
	defer crew.dismiss()
	for i := range parts {
		r := newReplay(repo, &parts[i], out, p)
		r.wanted, r.crew = w, crew
		r.follow(done, uint32(i))
		if err := r.run(ctx); err != nil {
			return err
		}
		if w != nil {
			w.taken.merge(r.seen)
		}
	}
	for _, window := range windows {
		err := window.read(ctx, repo.objects, func(_ *redoChunk, _ int, rec mvcc.LogRecord) error {
			p.redone(rec)
			return redoer.Redo(window.redo, rec, w.inUse)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// blockRedoer is a blockWriter that knows what redo does to its blocks.
type blockRedoer interface {
	blockWriter
	Follow(*mvcc.Redo)
	Redo(r *mvcc.Redo, rec mvcc.LogRecord, inUse func(block.ID) bool) error
}

// followRedo announces redo to out, if there is any.
func followRedo(out blockWriter, windows []redoWindow) (blockRedoer, error) {
	if len(windows) == 0 {
		return nil, nil
	}
	redoer, ok := out.(blockRedoer)
	if !ok {
		return nil, fmt.Errorf("replay of a backup that fell forward: %w", errors.ErrUnsupported)
	}
	for _, w := range windows {
		redoer.Follow(w.redo)
	}
	return redoer, nil
}

// redone counts a record of redo.
func (p *meter) redone(rec mvcc.LogRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.LogBytes += int64(len(rec.Body))
	if rec.Last {
		p.tell()
	}
}

// meter shows how far a replay is. Safe for concurrent use.
type meter struct {
	started time.Time
	report  func(Progress) // may be nil

	mu  sync.Mutex
	now Progress // guarded by mu
}

func newMeter(report func(Progress)) *meter { return &meter{started: time.Now(), report: report} }

func (p *meter) add(blocks uint64, raw, stored int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now.Blocks += blocks
	p.now.RawBytes += int64(raw)
	p.now.StoredBytes += int64(stored)
	p.tell()
}

// tell reports; mu is held.
func (p *meter) tell() {
	p.now.Elapsed = time.Since(p.started)
	if p.report != nil {
		p.report(p.now)
	}
}

// replay reads one part of a backup of a chain. One goroutine reads the objects from
// first to last, a few decode, prove and write.
type replay struct {
	repo     *Repository
	manifest *Manifest
	part     *part
	out      blockWriter
	meter    *meter
	bounds   bounds
	wanted   *wanted // nil: everything
	crew     *crew

	index   indexReader
	blocks  *seriesReader
	count   uint64 // of the blocks that the index names
	need    []runEntry
	skipped []byte // where what is not expanded is read to

	mu   sync.Mutex
	seen *blockSet // blocks written; guarded by mu
}

func newReplay(repo *Repository, part *part, out blockWriter, p *meter) *replay {
	m := part.manifest
	return &replay{
		repo: repo, manifest: m, part: part, out: out, meter: p, bounds: part.bounds(), seen: newBlockSet(),
		index:  indexReader{in: newSeriesReader(repo.objects, m, part.index, kindIndex, magicIndex), blockSize: m.BlockSize, next: part.first},
		blocks: newSeriesReader(repo.objects, m, part.blocks, kindBlocks, magicBlocks),
	}
}

// follow makes the replay tell a journal which objects it has proven, and believe
// it of those that an earlier replay has: of these only the groups are read of
// which out has not kept what is wanted.
func (r *replay) follow(done *journal, part uint32) {
	if done == nil {
		return
	}
	r.blocks.trust = func(object uint32) bool { return done.has(part, object) }
	r.blocks.proven = func(object uint32) error { return done.add(part, object) }
}

// job is one group on its way through a replay. Its buffers are used again.
type job struct {
	entry  groupEntry
	name   string     // of the object, for errors
	runs   []runEntry // of this group, by slot: what is wanted
	stored []byte
	raw    []byte
}

// crew is who decodes, and the buffers that go round: one for all backups of a chain.
type crew struct {
	decoders []*decoder
	jobs     []*job
}

func newCrew() (*crew, error) {
	c := &crew{jobs: []*job{{}}}
	for range min(2, runtime.GOMAXPROCS(0)) {
		d, err := newDecoder()
		if err != nil {
			c.dismiss()
			return nil, err
		}
		c.decoders, c.jobs = append(c.decoders, d), append(c.jobs, &job{})
	}
	return c, nil
}

func (c *crew) dismiss() {
	for _, d := range c.decoders {
		d.close()
	}
}

// run replays the backup.
func (r *replay) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer r.index.in.close()
	defer r.blocks.close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(errStopped)

	free, filled := make(chan *job, len(r.crew.jobs)), make(chan *job, len(r.crew.jobs))
	for _, j := range r.crew.jobs {
		free <- j
	}
	for _, d := range r.crew.decoders {
		wg.Go(func() {
			for j := range filled {
				if err := r.apply(ctx, d, j); err != nil {
					cancel(err)
				}
				free <- j
			}
		})
	}
	err := r.read(ctx, free, filled)
	close(filled)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause // what a worker found came first
	}
	if err != nil {
		return err
	}
	return r.complete()
}

// read hands out every group, then proves that the objects hold nothing else.
func (r *replay) read(ctx context.Context, free <-chan *job, filled chan<- *job) error {
	for {
		s, err := r.index.read(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		runs := s.runs
		for i, g := range s.groups {
			n := runsOf(runs, s.first+uint32(i))
			if err := r.readGroup(ctx, s.first+uint32(i), g, runs[:n], free, filled); err != nil {
				return err
			}
			runs = runs[n:]
		}
	}
	if err := r.blocks.more(ctx); err == nil {
		return damaged(r.blocks.name, r.blocks.off, "more groups than the index has", nil)
	} else if err != io.EOF {
		return err
	}
	return nil
}

// runsOf counts the runs at the start of list that belong to group.
func runsOf(list []runEntry, group uint32) int {
	n := slices.IndexFunc(list, func(e runEntry) bool { return e.group != group })
	if n < 0 {
		return len(list)
	}
	return n
}

func (r *replay) readGroup(ctx context.Context, number uint32, g groupEntry, runs []runEntry, free <-chan *job, filled chan<- *job) error {
	if err := r.expect(ctx, number, g); err != nil {
		return err
	}
	r.count += uint64(g.blocks)
	need, err := r.needed(runs)
	if err != nil {
		return err
	}
	in := r.blocks
	if len(need) == 0 && in.trusted {
		return in.skip(groupHeaderSize + int64(g.stored))
	}
	var header [groupHeaderSize]byte
	if err := in.fill(header[:]); err != nil {
		return err
	}
	if want := encodeGroupHeader(number, g); !bytes.Equal(header[:], want[:]) {
		return damaged(in.name, int64(g.offset), fmt.Sprintf("group header is not that of group %d", number), nil)
	}
	if len(need) == 0 {
		r.skipped = slices.Grow(r.skipped[:0], int(g.stored))[:g.stored] // capped by the index's decoder
		return in.fill(r.skipped)
	}
	var j *job
	select {
	case j = <-free:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	j.entry, j.name, j.runs = g, in.name, append(j.runs[:0], need...)
	j.stored = slices.Grow(j.stored[:0], int(g.stored))[:g.stored] // as above
	if err := in.fill(j.stored); err != nil {
		return err
	}
	filled <- j
	return nil
}

// expect opens the object that group number is in, and proves that it comes next.
func (r *replay) expect(ctx context.Context, number uint32, g groupEntry) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := r.blocks.more(ctx); errors.Is(err, io.EOF) {
		return damaged(objectName(r.manifest.ID, kindIndex, 1), -1, fmt.Sprintf("group %d is in no object", number), nil)
	} else if err != nil {
		return err
	}
	if in := r.blocks; g.object != in.now.Number || g.offset != uint64(in.off) {
		return damaged(in.name, in.off, fmt.Sprintf("the index has group %d elsewhere", number), nil)
	}
	return nil
}

// needed returns what of a group's runs is wanted and not kept.
func (r *replay) needed(runs []runEntry) ([]runEntry, error) {
	r.need = r.wanted.parts(r.need[:0], runs)
	if !r.blocks.trusted {
		return r.need, nil
	}
	keeper, ok := r.out.(blockKeeper)
	if !ok {
		return r.need, nil
	}
	left := r.need[:0]
	for _, run := range r.need {
		kept, err := keeper.Kept(run.first, int(run.blocks))
		if err != nil {
			return nil, err
		}
		if !kept {
			left = append(left, run)
			continue
		}
		for i := range run.blocks {
			if id := run.first + block.ID(i); !r.enter(id) {
				return nil, damaged(r.blocks.name, r.blocks.off, fmt.Sprintf("block %v comes twice", id), nil)
			}
		}
		r.meter.add(uint64(run.blocks), int(run.blocks)*r.manifest.BlockSize, 0)
	}
	return left, nil
}

// apply decodes a group, proves its blocks and writes them.
func (r *replay) apply(ctx context.Context, d *decoder, j *job) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	off := int64(j.entry.offset)
	if checksum(j.stored) != j.entry.crc {
		return damaged(j.name, off, "group's checksum does not agree", nil)
	}
	size := r.manifest.BlockSize
	n := int(j.entry.blocks) * size // at most groupBytesMax
	j.raw = slices.Grow(j.raw[:0], n)[:n]
	images, err := d.decode(j.entry.codec, j.stored, j.raw)
	if err != nil {
		return damaged(j.name, off, "group does not decode", err)
	}
	blocks := uint64(0)
	for _, run := range j.runs {
		part := images[int(run.slot)*size : int(run.slot+run.blocks)*size]
		if err := r.proveRun(j, run, part); err != nil {
			return err
		}
		if err := r.out.Write(run.first, part); err != nil {
			return fmt.Errorf("write blocks from %v on: %w", run.first, err)
		}
		blocks += uint64(run.blocks)
	}
	r.meter.add(blocks, int(blocks)*size, groupHeaderSize+len(j.stored))
	return nil
}

func (r *replay) proveRun(j *job, run runEntry, images []byte) error {
	size := r.manifest.BlockSize
	for i := range int(run.blocks) {
		id := run.first + block.ID(i)
		_, reason := r.bounds.wrong(images[i*size:(i+1)*size], id)
		if reason == "" && !r.enter(id) {
			reason = "it comes twice"
		}
		if reason != "" {
			return &block.CorruptError{Path: j.name, Offset: int64(j.entry.offset), Block: id, Reason: reason}
		}
	}
	return nil
}

func (r *replay) enter(id block.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.add(id)
}

// complete proves that the backup is as large as it says.
func (r *replay) complete() error {
	p := r.part
	name := objectName(r.manifest.ID, kindManifest, 0)
	if r.index.next != p.first+p.Groups {
		return damaged(name, -1, fmt.Sprintf("it says %d groups, there are %d", p.Groups, r.index.next-p.first), nil)
	}
	if r.count != p.Blocks {
		return damaged(name, -1, fmt.Sprintf("it says %d blocks, there are %d", p.Blocks, r.count), nil)
	}
	return nil
}
