//go:build invariants

package snapshot

import (
	"sync"

	"github.com/google/btree"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/shadow"
)

// In programs that are built with the tag invariants the set has a list of who reads
// that is apart from points, sublists, queues and bits of wants, and asks it whenever
// an original is not made or goes.
//
//	entered   a reader when he has his point, a backup when it has its place
//	counts    while it is neither closed nor broken; a backup, of blocks that it carries
//	          and has not in hand, while it has not fallen forward
//	left      before anything that it wanted goes
//
// What ends a snapshot says so (closed, broken, forward, done, also) under mu before
// any of its originals departs; so who finds an original unwanted under mu finds nobody
// here either. A reader that joins a point without mu enters a moment later: until then
// it is not asked, which hides something at worst.

// watch is who reads. mu comes after Set.mu.
type watch struct {
	mu      sync.Mutex
	readers *btree.BTreeG[*readersAt]
	backups map[*Backup]struct{}
}

// readersAt is the readers at a commit.
type readersAt struct {
	lsn  block.LSN
	list map[*Reader]struct{}
}

func (w *watch) at(lsn block.LSN) *readersAt {
	if w.readers == nil {
		w.readers = btree.NewG(8, func(a, b *readersAt) bool { return a.lsn < b.lsn })
	}
	key := &readersAt{lsn: lsn}
	if found, ok := w.readers.Get(key); ok {
		return found
	}
	return key
}

func (w *watch) enter(r *Reader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.at(r.point.lsn)
	if p.list == nil {
		p.list = map[*Reader]struct{}{}
		w.readers.ReplaceOrInsert(p)
	}
	p.list[r] = struct{}{}
}

func (w *watch) leave(r *Reader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.at(r.point.lsn)
	delete(p.list, r)
	if len(p.list) == 0 {
		w.readers.Delete(p)
	}
}

func (w *watch) enterBackup(b *Backup) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.backups == nil {
		w.backups = map[*Backup]struct{}{}
	}
	w.backups[b] = struct{}{}
}

func (w *watch) leaveBackup(b *Backup) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.backups, b)
}

// readerWithin returns a commit in [from, until) at which someone reads.
func (w *watch) readerWithin(from, until block.LSN) (lsn block.LSN, found bool) {
	w.at(from) // that there is a tree
	w.readers.AscendRange(&readersAt{lsn: from}, &readersAt{lsn: until}, func(p *readersAt) bool {
		for r := range p.list {
			if r.Err() == nil {
				lsn, found = p.lsn, true
				return false
			}
		}
		return true
	})
	return lsn, found
}

// backupWithin returns a backup that will still read a version of a block from lsn to
// until. Set.mu is held.
func (w *watch) backupWithin(id block.ID, from, until block.LSN) *Backup {
	for b := range w.backups {
		if from <= b.lsn && b.lsn < until && b.willRead(id, from) {
			return b
		}
	}
	return nil
}

// willRead is Backup.wants, and asks also whether the backup has ended.
func (b *Backup) willRead(id block.ID, lsn block.LSN) bool {
	return !b.ended() && !b.forward.Load() && b.carries(id, lsn) && !b.done.has(id)
}

// checkUnwanted proves that nobody wants a version that goes. Set.mu is held.
func (s *Set) checkUnwanted(id block.ID, lsn, until block.LSN) {
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, found := w.readerWithin(lsn, until); found {
		shadow.Fail("block %v: version %v, replaced at %v, goes, and a reader at %v wants it", id, lsn, until, at)
	}
	if b := w.backupWithin(id, lsn, until); b != nil {
		shadow.Fail("block %v: version %v, replaced at %v, goes, and the backup at %v wants it", id, lsn, until, b.lsn)
	}
	if h := s.horizon.lsn; lsn <= h && h < until {
		shadow.Fail("block %v: version %v, replaced at %v, goes, and the horizon is at %v", id, lsn, until, h)
	}
}

// checkInterval proves that an original has the interval of what was published.
func (s *Set) checkInterval(id block.ID, lsn, until block.LSN, what string) {
	s.cache.Shadow().Interval(id, lsn, until, what)
}

// Shown proves, with the tag invariants, that v, which was read from the place of a block
// that is free and becomes its head, takes nobody's version from him: readers look at heads
// first. Under the latch of the block.
func (s *Set) Shown(id block.ID, v *blockcache.Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at(v.LSN)
	w.readers.AscendGreaterOrEqual(&readersAt{lsn: v.LSN}, func(p *readersAt) bool {
		if lsn, inUse := s.cache.Shadow().At(id, p.lsn); inUse && lsn != v.LSN {
			if _, found := w.readerWithin(p.lsn, p.lsn+1); found {
				shadow.Fail("block %v is free, and version %v, which is in place, becomes its head: a reader at %v wants %v", id, v.LSN, p.lsn, lsn)
			}
		}
		return true
	})
	for b := range w.backups {
		lsn, inUse := s.cache.Shadow().At(id, b.lsn)
		if inUse && v.LSN <= b.lsn && lsn != v.LSN && b.willRead(id, lsn) {
			shadow.Fail("block %v is free, and version %v, which is in place, becomes its head: the backup at %v wants %v", id, v.LSN, b.lsn, lsn)
		}
	}
}

// checkLeft proves that no original is left when nobody reads but at the horizon, and
// nothing is leaving (L2). Set.mu is held.
func (s *Set) checkLeft() {
	if len(s.points) == 1 && s.backups == [BackupsMax]*Backup{} && len(s.leaving.list) == 0 && (s.index.Len() > 0 || s.lists > 0) {
		shadow.Fail("nobody reads, and %d originals in %d lists are left", s.index.Len(), s.lists)
	}
}

// watchHorizon says below which commit nobody reads. Set.mu is held.
func (s *Set) watchHorizon() {
	low := s.points[0].lsn
	w := &s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at(low)
	if p, ok := w.readers.Min(); ok {
		low = min(low, p.lsn)
	}
	for b := range w.backups {
		low = min(low, b.lsn)
	}
	s.cache.Shadow().Floor(low)
	s.checkLeft()
}
