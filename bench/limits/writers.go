package main

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/bench"
)

// writers are goroutines that commit one transaction after the other.
type writers struct {
	start   time.Time
	quit    chan struct{}
	done    sync.WaitGroup
	commits [][]bench.Commit
	errs    []error
}

// startWriters starts n of them. Each calls commit with a source of its own.
func startWriters(n int, commit func(*rand.Rand) error) *writers {
	w := &writers{start: time.Now(), quit: make(chan struct{}), commits: make([][]bench.Commit, n), errs: make([]error, n)}
	for i := range n {
		w.done.Go(func() { w.errs[i] = w.run(i, commit) })
	}
	return w
}

func (w *writers) run(i int, commit func(*rand.Rand) error) error {
	rng := rand.New(rand.NewPCG(uint64(i), 1))
	for {
		select {
		case <-w.quit:
			return nil
		default:
		}
		began := time.Since(w.start)
		if err := commit(rng); err != nil {
			return err
		}
		w.commits[i] = append(w.commits[i], bench.Commit{Began: began, Ended: time.Since(w.start)})
	}
}

// since is the time since the start, as the trace counts it.
func (w *writers) since() time.Duration { return time.Since(w.start) }

// stop ends the writers and returns what they did.
func (w *writers) stop() (*bench.Trace, error) {
	close(w.quit)
	w.done.Wait()
	t := &bench.Trace{Start: w.start, UpdatesPerTx: 1}
	for _, list := range w.commits {
		t.Commits = append(t.Commits, list...)
	}
	return t, errors.Join(w.errs...)
}

// random fills b with what does not compress.
func random(rng *rand.Rand, b []byte) {
	for ; len(b) >= 8; b = b[8:] {
		binary.LittleEndian.PutUint64(b, rng.Uint64())
	}
}
