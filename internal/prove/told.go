package prove

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// # Errors told once
//
// Of what it could not write the system tells one sync, and takes it for clean then. Who is
// told is who syncs next, and that need not be who wrote. In the data file there are two who
// sync: the cleaner, and who remembers a repository's head. So behind each write to the data
// file that is lost, before its writer goes on there, somebody remembers a head: if he can
// get at the file at all, he is who is told, and the writer's own sync succeeds.

// otherWaits is for how long a writer is held up for somebody else: he may be waiting for
// the writer himself.
const otherWaits = 20 * time.Millisecond

// others has somebody else ask for a sync behind a write to the data file that is lost by
// the first of some faults. Wait for him before the store's disk is given away.
func (w *faultWorld) others(armed []*simfs.Armed) *sync.WaitGroup {
	group := new(sync.WaitGroup)
	if len(armed) == 0 || !w.loses {
		return group
	}
	var asked atomic.Bool
	w.fs.Before(func(ev simfs.Event) {
		s := w.opened.Load() // nil while it is made
		if s == nil || ev.File != dbDir+"/data" || ev.Op&(simfs.OpWrite|simfs.OpSync) == 0 || armed[0].Fired() == 0 || asked.Swap(true) {
			return
		}
		done := make(chan struct{})
		group.Go(func() {
			defer close(done)
			w.remember(s)
		})
		select {
		case <-done:
		case <-time.After(otherWaits):
		}
	})
	return group
}

// remember makes a head durable, as a push to a repository does.
func (w *faultWorld) remember(s *mvcc.Store) {
	err := s.RememberHead([16]byte{1}, mvcc.Head{LSN: s.Status().DurableLSN})
	if errors.Is(err, mvcc.ErrClosed) {
		return // it was too late
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = err
}
