package snapshot

import (
	"time"

	"github.com/spillwaydb/spillway/block"
)

// Status is one live snapshot as operators see it.
type Status struct {
	ID           uint64
	Kind         string // "reader" or "backup"
	Owner, Label string
	Readers      int // how many readers the entry stands for: those without a name share one
	LSN          block.LSN
	Opened       time.Time
	HeldBytes    int64         // of originals it wants: for readers, those that nobody newer wants
	FreesBytes   int64         // what would come free if it ended now: the rest it shares
	Lease        time.Duration // of a reader that has one of its own: for how long it may be open
}

// Counters count since the set was made.
type Counters struct {
	OriginalsMade   uint64 // versions kept for a snapshot
	OriginalsShared uint64 // of these, wanted by more than one holder from the start
	SnapshotsBroken uint64
	Originals       int // kept now
}

// Counters returns the counts.
func (s *Set) Counters() Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Counters{s.made, s.shared, s.broken, s.index.Len()}
}

// List returns the live snapshots, backups first, at most limit readers.
func (s *Set) List(limit int) []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Status
	for _, b := range s.backups {
		if b != nil {
			list = append(list, Status{b.id, "backup", b.Owner, b.Label, 1, b.lsn, time.Unix(0, b.opened), b.held, b.exclusive, 0})
		}
	}
	for _, p := range s.points {
		held := int64(0)
		for _, sub := range p.dead {
			held += sub.held
		}
		frees := p.exclusive()
		if n := p.unnamed.Load(); n > 0 && limit > 0 {
			limit--
			if p.id == 0 {
				s.lastID++
				p.id = s.lastID
			}
			list = append(list, Status{p.id, "reader", "", "", int(n), p.lsn, time.Unix(0, p.opened), held, frees, 0})
		}
		for r := p.readers.first; r != nil && limit > 0; r = r.next {
			limit--
			list = append(list, Status{r.id, "reader", r.Owner, r.Label, 1, p.lsn, time.Unix(0, r.opened), held, frees, r.lease})
		}
	}
	return list
}

// Readers is how many reader snapshots are open.
func (s *Set) Readers() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.points {
		n += p.readerCount()
	}
	return n
}

// BackupStats are a backup's counts.
type BackupStats struct {
	OriginalsMade, OriginalsShared uint64
	HeldBytes, HeldPeakBytes       int64

	Replaced   uint64 // versions it sees that were replaced: what keeping all of them to the end would keep
	Peak       uint64 // most originals at one moment
	StoredPeak uint64 // most that took RAM or temporary storage at one moment
}

// Stats returns the backup's counts so far.
func (b *Backup) Stats() BackupStats {
	b.set.mu.Lock()
	defer b.set.mu.Unlock()
	t := &b.tally
	return BackupStats{b.made, b.shared, b.held, b.heldPeak, t.replaced, t.peak, t.storedPeak}
}

// OldestAge is for how long the oldest live snapshot has been open; 0 if there is none.
// Readers without a name count from when the first commit was made that they do not
// see: until then they keep nothing.
func (s *Set) OldestAge(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := now.UnixNano()
	for _, b := range s.backups {
		if b != nil {
			oldest = min(oldest, b.opened)
		}
	}
	for _, p := range s.points {
		if p.unnamed.Load() > 0 && !p.horizon {
			oldest = min(oldest, p.passed)
		}
		if r := p.readers.first; r != nil { // in the order in which they came
			oldest = min(oldest, r.opened)
		}
	}
	return time.Duration(max(0, now.UnixNano()-oldest))
}
