package mvcc

import (
	"path"
	"runtime"
	"sync"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// gates hold operations of a file system back, so that a test can choose the
// interleaving.
type gates struct {
	mu   sync.Mutex
	held []*gate
}

// gate holds back what matches, until it is opened.
type gate struct {
	match   func(simfs.Event) bool
	all     bool // each operation that matches, not only the first
	reached chan struct{}
	pass    chan struct{}
}

func newGates(fsys *simfs.FS) *gates {
	g := &gates{}
	fsys.Before(func(ev simfs.Event) {
		if h := g.take(ev); h != nil {
			<-h.pass
		}
	})
	return g
}

func (g *gates) take(ev simfs.Event) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, h := range g.held {
		if !h.match(ev) {
			continue
		}
		if !h.all {
			g.held = append(g.held[:i:i], g.held[i+1:]...)
		}
		select {
		case <-h.reached:
		default:
			close(h.reached)
		}
		return h
	}
	return nil
}

// next holds back the next operation of a kind on a file.
func (g *gates) next(op simfs.Op, file string, more ...func(simfs.Event) bool) *gate {
	h := &gate{reached: make(chan struct{}), pass: make(chan struct{})}
	h.match = func(ev simfs.Event) bool {
		ok, _ := path.Match(file, ev.File)
		for _, f := range more {
			ok = ok && f(ev)
		}
		return ok && ev.Op&op != 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = append(g.held, h)
	return h
}

// every holds back every operation of a kind on a file: the log is also synced
// in the background.
func (g *gates) every(op simfs.Op, file string) *gate {
	h := g.next(op, file)
	g.mu.Lock()
	defer g.mu.Unlock()
	h.all = true
	return h
}

func (h *gate) open() { close(h.pass) }

// async runs f and returns a channel that is closed when it is done.
func async(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// mustWait fails if done is closed although nothing should let it go on.
func mustWait(t testing.TB, done <-chan struct{}, what string) {
	t.Helper()
	for range 2000 {
		runtime.Gosched()
		select {
		case <-done:
			t.Fatalf("%s does not wait", what)
		default:
		}
	}
}
