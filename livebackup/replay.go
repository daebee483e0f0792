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
)

// blockWriter takes what a replay decodes. Safe for concurrent use on
// different blocks.
type blockWriter interface {
	Write(first block.ID, images []byte) error
}

// replay is the one way to read a backup: Restore gives what comes out to a
// builder, Verify to a prover. One goroutine reads the objects from first
// to last, a few decode, prove and write. Only when run returns nil is what
// was written known to be the backup.
type replay struct {
	repo     *Repository
	manifest *Manifest
	out      blockWriter
	report   func(Progress) // may be nil

	started time.Time
	seed    block.Seed
	index   indexReader
	blocks  *seriesReader

	mu       sync.Mutex
	seen     *blockSet // guarded by mu
	progress Progress  // guarded by mu
}

func newReplay(repo *Repository, m *Manifest, out blockWriter, report func(Progress)) *replay {
	return &replay{
		repo: repo, manifest: m, out: out, report: report,
		started: time.Now(), seed: block.SeedOf(m.Database), seen: newBlockSet(),
		index:    indexReader{in: newSeriesReader(repo.objects, m, kindIndex, magicIndex), blockSize: m.BlockSize},
		blocks:   newSeriesReader(repo.objects, m, kindBlocks, magicBlocks),
		progress: Progress{BlocksTotal: m.Blocks},
	}
}

// job is one group on its way through a replay. Its buffers are used again.
type job struct {
	entry  groupEntry
	name   string     // of the object, for errors
	runs   []runEntry // of this group, by slot
	stored []byte
	raw    []byte
}

// run replays the whole backup.
func (r *replay) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer r.index.in.close()
	defer r.blocks.close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(errStopped)

	workers := min(2, runtime.GOMAXPROCS(0))
	free, filled := make(chan *job, workers+1), make(chan *job, workers+1)
	for range workers + 1 {
		free <- new(job)
	}
	for range workers {
		d, err := newDecoder()
		if err != nil {
			close(filled)
			return err
		}
		wg.Go(func() {
			defer d.close()
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
	var j *job
	select {
	case j = <-free:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := r.blocks.more(ctx); errors.Is(err, io.EOF) {
		return damaged(objectName(r.manifest.ID, kindIndex, 1), -1, fmt.Sprintf("group %d is in no object", number), nil)
	} else if err != nil {
		return err
	}
	in := r.blocks
	if g.object != in.now.Number || g.offset != uint64(in.off) {
		return damaged(in.name, in.off, fmt.Sprintf("the index has group %d elsewhere", number), nil)
	}
	var header [groupHeaderSize]byte
	if err := in.fill(header[:]); err != nil {
		return err
	}
	if want := encodeGroupHeader(number, g); !bytes.Equal(header[:], want[:]) {
		return damaged(in.name, int64(g.offset), fmt.Sprintf("group header is not that of group %d", number), nil)
	}
	j.entry, j.name, j.runs = g, in.name, append(j.runs[:0], runs...)
	j.stored = slices.Grow(j.stored[:0], int(g.stored))[:g.stored] // capped by the index's decoder
	if err := in.fill(j.stored); err != nil {
		return err
	}
	filled <- j
	return nil
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
	for _, run := range j.runs {
		part := images[int(run.slot)*size : int(run.slot+run.blocks)*size]
		if err := r.proveRun(j, run, part); err != nil {
			return err
		}
		if err := r.out.Write(run.first, part); err != nil {
			return fmt.Errorf("write blocks from %v on: %w", run.first, err)
		}
	}
	r.done(j)
	return nil
}

func (r *replay) proveRun(j *job, run runEntry, images []byte) error {
	size := r.manifest.BlockSize
	for i := range int(run.blocks) {
		id := run.first + block.ID(i)
		reason := wrongBlock(images[i*size:(i+1)*size], id, r.seed, r.manifest.EndLSN, r.manifest.HighWater)
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

func (r *replay) done(j *job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Blocks += uint64(j.entry.blocks)
	r.progress.RawBytes += int64(len(j.raw))
	r.progress.StoredBytes += int64(groupHeaderSize + len(j.stored))
	r.progress.Elapsed = time.Since(r.started)
	if r.report != nil {
		r.report(r.progress)
	}
}

// complete proves that the backup is as large as it says.
func (r *replay) complete() error {
	m := r.manifest
	name := objectName(m.ID, kindManifest, 0)
	if r.index.next != m.Groups {
		return damaged(name, -1, fmt.Sprintf("it says %d groups, there are %d", m.Groups, r.index.next), nil)
	}
	if r.seen.count != m.Blocks {
		return damaged(name, -1, fmt.Sprintf("it says %d blocks, there are %d", m.Blocks, r.seen.count), nil)
	}
	return nil
}
