package mvcc

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/wal"
)

// logOptions are those of the store's log.
func (s *Store) logOptions() wal.Options {
	return wal.Options{
		FS: s.opts.FS, Dir: filepath.Join(s.dir, nameLog), Database: s.database, Timeline: s.timeline,
		SegmentBytes: s.opts.segmentBytes(), LimitBytes: s.opts.LogBytesMax, HoldBytesMax: max(s.opts.LogHoldMax, 0),
		RareSyncs: s.opts.Durability == DurableNever,
		OnDurable: s.onDurable, OnHolderBroken: s.onHolderBroken, Logger: s.opts.Logger,
	}
}

// openLog opens the log with what recovery needs, and as much as there is of
// what someone who followed it still wanted.
func (s *Store) openLog() (*wal.Log, error) {
	a := &s.anchor.now
	log, err := wal.Open(s.logOptions(), wal.Start{Redo: a.redo, Durable: a.durable, Keep: a.keep})
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if a.keep != 0 && log.Oldest() < a.redo {
		s.kept.holder = log.Hold(keptName, max(a.keep, log.Oldest()))
	}
	return log, nil
}

// followedFrom is the first commit below redo that someone who follows the log, and
// will come back for it, still wants, or 0.
func (s *Store) followedFrom(redo block.LSN) block.LSN {
	for _, h := range s.log.Holders() { // the oldest first
		if !h.Brief && h.LSN < redo {
			return max(h.LSN, 1)
		}
	}
	return 0
}

// keptName is what Status calls who followed the log before it was opened, and
// may come back.
const keptName = "kept since the last opening"

// keptGrace is how long what openLog keeps is kept after the first one follows
// again: the others may be on their way.
const keptGrace = time.Minute

// keptLog is the log that someone wanted before the store was opened.
type keptLog struct {
	holder *wal.Holder  // nil: none
	since  atomic.Int64 // Unix ns, when someone followed again; 0: nobody
	done   bool         // the clock's
}

// followed says that someone follows, and holds what is wanted.
func (k *keptLog) followed() { k.since.CompareAndSwap(0, time.Now().UnixNano()) }

// tick lets go when it is time.
func (k *keptLog) tick(now time.Time) {
	since := k.since.Load()
	if k.holder == nil || k.done || since == 0 || now.Sub(time.Unix(0, since)) < keptGrace {
		return
	}
	k.done = true
	k.holder.Drop()
}

// onHolderBroken is told by the log whom it let go (R14).
func (s *Store) onHolderBroken(h wal.HolderStatus) {
	s.emit(Event{Kind: EventLogGone, Why: "it takes more than LogHoldMax (R14)", Holder: h})
}
