package snapshot

import (
	"sync/atomic"

	"github.com/google/btree"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// Backup is a snapshot that reads every block once. It wants the original of a
// block only until the block is done (L3). Its fields are guarded by Set.mu.
type Backup struct {
	Owner, Label string

	set       *Set
	lsn       block.LSN
	id        uint64
	bit       int
	opened    int64
	done      doneSet
	queue     *btree.BTreeG[*Original] // originals in hand, by block
	cursor    block.ID                 // where the next walk of the queue starts
	made      uint64
	shared    uint64
	held      int64
	heldPeak  int64
	exclusive int64
	broken    atomic.Pointer[BrokenError]
	closed    bool
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
				queue: btree.NewG(32, lessOriginal),
			}
			s.backups[i] = b
			return b, nil
		}
	}
	return nil, ErrTooManyBackups
}

// LSN is the commit that the backup is of.
func (b *Backup) LSN() block.LSN { return b.lsn }

// Err is nil, or the *BrokenError that ended the backup.
func (b *Backup) Err() error {
	if e := b.broken.Load(); e != nil {
		return e
	}
	return nil
}

// wantedByBackups is the bits of the backups that will still read v.
func (s *Set) wantedByBackups(v *blockcache.Version) (wants uint8) {
	for i, b := range s.backups {
		if b != nil && v.LSN <= b.lsn && b.lsn < v.Until && !b.done.has(v.ID) {
			wants |= 1 << i
		}
	}
	return wants
}

// Queued returns up to n blocks whose originals are in hand for the backup, in
// block order, going round.
func (b *Backup) Queued(ids []block.ID) int {
	b.set.mu.Lock()
	defer b.set.mu.Unlock()
	n := 0
	take := func(o *Original) bool {
		if n == len(ids) {
			return false
		}
		ids[n] = o.v.ID
		n++
		return true
	}
	b.queue.AscendGreaterOrEqual(probe(b.cursor, 0), take)
	if n == 0 && b.cursor > 0 {
		b.queue.Ascend(take)
	}
	if n > 0 {
		b.cursor = ids[n-1] + 1
	}
	return n
}

// QueueLen is how many originals are in hand.
func (b *Backup) QueueLen() int {
	b.set.mu.Lock()
	defer b.set.mu.Unlock()
	return b.queue.Len()
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
	var found *Original
	b.queue.AscendGreaterOrEqual(probe(id, 0), func(o *Original) bool {
		if o.v.ID == id {
			found = o
		}
		return false
	})
	drop := found != nil && b.unwant(found)
	s.mu.Unlock()
	if drop {
		found.v.Holder = nil
		s.cache.Kill(found.v)
	}
}

// unwant takes the backup's want off an original; true if it left the index.
func (b *Backup) unwant(o *Original) bool {
	b.queue.Delete(o)
	b.held -= o.bytes
	o.change(func() { o.wants &^= 1 << b.bit })
	return b.set.unindex(o)
}

// Close ends the backup and lets go of what only it wanted. It may be called
// more than once.
func (b *Backup) Close() {
	s := b.set
	s.mu.Lock()
	if !b.closed {
		b.closed = true
		b.done.fill() // no new original is wanted from here on
	}
	s.mu.Unlock()
	for b.closeSome() {
	}
}

func (b *Backup) closeSome() bool {
	s := b.set
	var drop []*Original
	s.mu.Lock()
	for range releaseSlice {
		o, ok := b.queue.Min()
		if !ok {
			break
		}
		if b.unwant(o) {
			drop = append(drop, o)
		}
	}
	more := b.queue.Len() > 0
	if !more && s.backups[b.bit] == b {
		s.backups[b.bit] = nil
	}
	s.mu.Unlock()
	s.drop(drop)
	return more
}
