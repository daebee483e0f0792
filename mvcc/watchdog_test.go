package mvcc

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/blockcache"
)

// watchdog ends a test that makes no progress, and says what the store looks
// like: nobody may wait for ever (R7).
type watchdog struct {
	store atomic.Pointer[Store]
	alive atomic.Int64
}

func newWatchdog(t testing.TB) *watchdog {
	w := &watchdog{}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		last, since := int64(-1), 0
		for {
			select {
			case <-quit:
				return
			case <-time.After(500 * time.Millisecond):
			}
			if now := w.alive.Load(); now != last {
				last, since = now, 0
			} else if since++; since == 120 {
				panic(fmt.Sprintf("%s: no progress for 60 s: %s", t.Name(), describe(w.store.Load())))
			}
		}
	}()
	t.Cleanup(func() { close(quit); <-done })
	return w
}

func (w *watchdog) watch(s *Store) *Store {
	w.store.Store(s)
	return s
}

func (w *watchdog) pat() { w.alive.Add(1) }

func describe(s *Store) string {
	if s == nil {
		return "no store is open"
	}
	text := fmt.Sprintf("limit %d", s.cache.FramesMax())
	for c := blockcache.ClassClean; c <= blockcache.ClassIndex; c++ {
		text += fmt.Sprintf(", %v %d", c, s.cache.Frames(c))
	}
	return text + fmt.Sprintf("; %+v; %+v; newest %v durable %v; failure %v; snapshots %+v", s.cache.Stats(), s.snapshots.Counters(),
		s.newestLSN(), s.log.Durable(), s.state.failure(), s.snapshots.List(20))
}
