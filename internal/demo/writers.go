package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/internal/latency"
	"github.com/spillwaydb/spillway/kv"
)

// writers change the database until they are stopped.
type writers struct {
	db   *kv.DB
	stop context.CancelFunc
	done sync.WaitGroup

	// hold is held for reading by every transaction: who locks it finds no
	// commit in flight.
	hold sync.RWMutex

	perTx    atomic.Int64 // files that one transaction changes
	commits  atomic.Uint64
	bytes    atomic.Int64
	latency  latency.Histogram
	fileSize int64 // mean, of the hot files
}

// startWriters starts n writers; the first only moves amounts between counters.
// The files of hot are shared out among the others. failed is told the first
// error.
func startWriters(ctx context.Context, db *kv.DB, n int, hot []file, failed func(error)) *writers {
	ctx, cancel := context.WithCancel(ctx)
	w := &writers{db: db, stop: cancel}
	w.perTx.Store(1)
	for _, f := range hot {
		w.fileSize += f.size
	}
	w.fileSize /= int64(max(1, len(hot)))
	for i := range n {
		one := &writer{writers: w, number: i, rng: rand.New(rand.NewPCG(uint64(i), 2))}
		for j := i - 1; i > 0 && j < len(hot); j += n - 1 {
			one.paths = append(one.paths, hot[j].path)
		}
		w.done.Go(func() {
			if err := one.run(ctx); err != nil && ctx.Err() == nil {
				failed(fmt.Errorf("writer %d: %w", i, err))
			}
		})
	}
	return w
}

// end stops the writers and waits for them.
func (w *writers) end() {
	w.stop()
	w.done.Wait()
}

// measured starts a measurement, which the function returned ends.
func (w *writers) measured() func() Throughput {
	w.latency.Take()
	began, commits, written := time.Now(), w.commits.Load(), w.bytes.Load()
	return func() Throughput {
		s := w.latency.Take().Summary()
		return Throughput{
			Took: time.Since(began), Commits: w.commits.Load() - commits, Bytes: w.bytes.Load() - written,
			P50: s.P50, P99: s.P99, Max: s.Max,
		}
	}
}

// writer is one goroutine that writes, and the files that are its own.
type writer struct {
	*writers
	number  int
	rng     *rand.Rand
	paths   []string
	created int
}

func (w *writer) run(ctx context.Context) error {
	for ctx.Err() == nil {
		w.hold.RLock()
		began := time.Now()
		written, err := w.transaction()
		took := time.Since(began)
		w.hold.RUnlock()
		if err != nil {
			return err
		}
		w.latency.Add(took)
		w.commits.Add(1)
		w.bytes.Add(int64(written))
	}
	return nil
}

// createOneIn is how many changed files there are to one that is deleted while
// another is created.
const createOneIn = 8

func (w *writer) transaction() (written int, err error) {
	err = w.db.Update(func(tx *kv.Tx) error {
		written = 0
		if len(w.paths) > 0 {
			if written, err = w.changeFiles(tx); err != nil {
				return err
			}
		}
		return w.transfer(tx)
	})
	return written, err
}

func (w *writer) changeFiles(tx *kv.Tx) (written int, err error) {
	b, err := tx.Bucket([]byte(filesBucket))
	if err != nil {
		return 0, err
	}
	for range w.perTx.Load() {
		n, err := w.changeOne(b, w.rng.IntN(len(w.paths)))
		if err != nil {
			return 0, err
		}
		written += n
	}
	return written, nil
}

// changeOne rewrites a file, or deletes it and creates another one.
func (w *writer) changeOne(b *kv.Bucket, i int) (written int, err error) {
	path := w.paths[i]
	content, err := b.Get([]byte(path))
	if err != nil {
		return 0, err
	}
	if content == nil {
		return 0, fmt.Errorf("%w: file %s is lost", ErrDifferent, path)
	}
	if w.rng.IntN(createOneIn) == 0 {
		if err := b.Delete([]byte(path)); err != nil {
			return 0, err
		}
		w.created++
		path = fmt.Sprintf("created/by-writer-%d/%06d.go", w.number, w.created)
		w.paths[i] = path // the run ends if the commit fails
	}
	content = w.revise(content)
	return len(content), b.Put([]byte(path), content)
}

var revision = []byte("// revision ")

// revise is content with a new first line.
func (w *writer) revise(content []byte) []byte {
	if bytes.HasPrefix(content, revision) {
		content = content[bytes.IndexByte(content, '\n')+1:]
	}
	out := make([]byte, 0, len(content)+64)
	out = fmt.Appendf(out, "%s%016x by writer %d\n", revision, w.rng.Uint64(), w.number)
	return append(out, content...)
}

// transfer moves an amount from one counter to another: their sum stays.
func (w *writer) transfer(tx *kv.Tx) error {
	b, err := tx.Bucket([]byte(countersBucket))
	if err != nil {
		return err
	}
	from := w.rng.IntN(counters)
	to := (from + 1 + w.rng.IntN(counters-1)) % counters
	amount := int64(1 + w.rng.IntN(10))
	return errors.Join(addTo(b, from, -amount), addTo(b, to, amount))
}

func addTo(b *kv.Bucket, i int, amount int64) error {
	v, err := b.Get(counterKey(i))
	if err != nil {
		return err
	}
	if len(v) != 8 {
		return fmt.Errorf("%w: counter %d has %d bytes", ErrDifferent, i, len(v))
	}
	return b.Put(counterKey(i), counterValue(int64(binary.BigEndian.Uint64(v))+amount))
}

// hotFiles chooses, in a random but fixed order, files of about that many bytes
// for the writers to change: none so large that one change is a burst.
func hotFiles(t *tree, bytes int64) []file {
	const fileBytesMax = 128 << 10
	var hot []file
	for _, i := range rand.New(rand.NewPCG(3, 3)).Perm(len(t.files)) {
		if f := t.files[i]; f.size <= fileBytesMax && bytes > 0 {
			hot = append(hot, f)
			bytes -= f.size
		}
	}
	return hot
}
