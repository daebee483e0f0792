package snapshot

import (
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// Backup is a snapshot that reads every block once. It wants the original of a
// block only until the block is done, or where an incremental carries it (L3). Its
// fields are guarded by Set.mu.
type Backup struct {
	Owner, Label string

	set       *Set
	lsn       block.LSN
	base      block.LSN           // of an incremental
	also      func(block.ID) bool // of an incremental: whom it wants at or below base, too; nil: it wants all
	id        uint64
	bit       int
	opened    int64
	done      doneSet
	queue     *tree    // originals in hand, by block
	cursor    block.ID // where the next walk of the queue starts
	made      uint64
	shared    uint64
	tally     tally
	held      int64
	heldPeak  int64
	exclusive int64
	broken    atomic.Pointer[BrokenError]
	closed    bool
	leaving   *departure // what it holds is leaving; or nil

	onForward func(frees int64, why Reason, cause error) // nil: it cannot fall forward
	forward   atomic.Bool                                // it fell forward: it wants nothing
}

// OpenBackup opens a backup at the horizon; ErrTooManyBackups.
func (s *Set) OpenBackup(owner, label string) (*Backup, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.backups {
		if s.backups[i] == nil {
			s.lastID++
			b := &Backup{
				Owner: owner, Label: label, set: s, bit: i, id: s.lastID,
				lsn: s.horizon.lsn, opened: s.clock.Load(),
				queue: s.newTree(),
			}
			s.backups[i] = b
			s.watch.enterBackup(b)
			return b, nil
		}
	}
	return nil, ErrTooManyBackups
}

// ID is the backup's number among the set's snapshots.
func (b *Backup) ID() uint64 { return b.id }

// LSN is the commit that the backup is of.
func (b *Backup) LSN() block.LSN { return b.lsn }

// Err is nil, or the *BrokenError that ended the backup.
func (b *Backup) Err() error {
	if e := b.broken.Load(); e != nil {
		return e
	}
	return nil
}

// wants reports whether the backup will still read a version that it sees.
func (b *Backup) wants(v *blockcache.Version) bool {
	return !b.forward.Load() && b.carries(v.ID, v.LSN) && !b.done.has(v.ID)
}

// carries reports whether the backup hands out, or must read, a version that it sees.
func (b *Backup) carries(id block.ID, lsn block.LSN) bool {
	return b.also == nil || lsn > b.base || b.also(id)
}

// Narrow makes the backup an incremental: of the versions at or below base it wants
// those of the blocks that also names, and no others. Until then it wanted all, so
// none of these was lost. also is called with locks held, and always says the same.
func (b *Backup) Narrow(base block.LSN, also func(block.ID) bool) {
	s := b.set
	s.mu.Lock()
	b.base, b.also = base, also
	s.mu.Unlock()
	for from, more := block.ID(0), true; more; {
		from, more = b.narrowSome(from)
	}
}

// narrowSome lets go of originals that are not carried, of blocks from one on; more
// says that there are some from next on that it has not come to. A backup wants one
// version of a block.
func (b *Backup) narrowSome(from block.ID) (next block.ID, more bool) {
	s := b.set
	var list [releaseSlice]blockcache.Handle
	not, drop := list[:0], []blockcache.Handle(nil)
	s.mu.Lock()
	n := 0
	b.queue.AscendGreaterOrEqual(s.probe(from, 0), func(h blockcache.Handle) bool {
		o := s.at(h)
		if n++; n > releaseSlice {
			next, more = o.ID, true
			return false
		}
		if !b.carries(o.ID, o.LSN) {
			not = append(not, h)
		}
		return true
	})
	for _, h := range not {
		if b.unwant(h) {
			drop = append(drop, h)
		}
	}
	s.account()
	d := &departure{under: 1}
	s.leaving.begin(d)
	s.mu.Unlock()
	s.drop(drop)
	s.mu.Lock()
	s.leaving.ended(d)
	s.mu.Unlock()
	return next, more
}

// Queued returns up to n blocks whose originals are in hand for the backup, in
// block order, going round.
func (b *Backup) Queued(ids []block.ID) int {
	b.set.mu.Lock()
	defer b.set.mu.Unlock()
	n := 0
	take := func(h blockcache.Handle) bool {
		if n == len(ids) {
			return false
		}
		ids[n] = b.set.at(h).ID
		n++
		return true
	}
	b.queue.AscendGreaterOrEqual(b.set.probe(b.cursor, 0), take)
	if n == 0 && b.cursor > 0 {
		b.queue.Ascend(take)
	}
	if n > 0 {
		b.cursor = ids[n-1] + 1
	}
	return n
}

// IsDone reports whether the backup has the block's image.
func (b *Backup) IsDone(id block.ID) bool {
	b.set.mu.Lock()
	defer b.set.mu.Unlock()
	return b.done.has(id)
}

// Done says that a buffer of the backup holds the verified image of block id
// as of its LSN (R10). Under the latch of the block, which commits hold when
// they ask for wants. It lets go of the block's original.
func (b *Backup) Done(id block.ID) {
	s := b.set
	s.mu.Lock()
	b.done.add(id)
	var found blockcache.Handle
	b.queue.AscendGreaterOrEqual(s.probe(id, 0), func(h blockcache.Handle) bool {
		if s.at(h).ID == id {
			found = h
		}
		return false
	})
	drop := found != 0 && b.unwant(found)
	s.account()
	s.mu.Unlock()
	if drop {
		s.end(found)
	}
}

// unwant takes the backup's want off an original; true if it left the index.
func (b *Backup) unwant(h blockcache.Handle) bool {
	s := b.set
	o := s.at(h)
	b.queue.Delete(h)
	b.tally.drop(o)
	b.held -= s.bytes(o)
	s.change(o, func() { o.Wants &^= 1 << b.bit })
	return s.unindex(h)
}

// Close ends the backup and lets go of what only it wanted: when it returns that is gone.
// It may be called more than once.
func (b *Backup) Close() {
	s := b.set
	s.mu.Lock()
	if !b.closed {
		b.closed = true
		s.watch.leaveBackup(b)
		b.done.fill() // no new original is wanted from here on
		s.account()
	}
	b.depart()
	d := b.leaving
	s.mu.Unlock()
	s.letGo(d)
}
