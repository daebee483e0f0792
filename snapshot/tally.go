package snapshot

import "github.com/spillwaydb/spillway/blockcache"

// tally counts, for one backup, what is kept against what keeping everything to the
// end would keep. Guarded by Set.mu.
type tally struct {
	replaced   uint64 // versions that the backup sees and that were replaced, wanted or not
	kept       uint64 // originals in its queue
	stored     uint64 // of these, with a frame or a slot; the others are in place only
	peak       uint64
	storedPeak uint64
}

// sees reports whether the backup's LSN lies in the life of a version that was
// replaced. Of each block there is one such version at most, so who counts them
// counts blocks.
func (b *Backup) sees(v *blockcache.Version) bool { return v.LSN <= b.lsn && b.lsn < v.Until }

// countReplaced counts v for the backups that see it. It returns the bits of those that
// will still read it.
func (s *Set) countReplaced(v *blockcache.Version) (wants uint8) {
	for i, b := range s.backups {
		if b == nil || !b.sees(v) {
			continue
		}
		b.tally.replaced++
		if b.wants(v) {
			wants |= 1 << i
		}
	}
	return wants
}

// keep counts an original that came into the queue.
func (t *tally) keep(o *original) {
	t.kept++
	t.peak = max(t.peak, t.kept)
	t.store(0, o.Images)
}

// drop counts one that left it.
func (t *tally) drop(o *original) {
	t.kept--
	t.store(o.Images, 0)
}

// store counts that an original had images, and has others now.
func (t *tally) store(had, has uint8) {
	switch {
	case had == 0 && has > 0:
		t.stored++
		t.storedPeak = max(t.storedPeak, t.stored)
	case had > 0 && has == 0:
		t.stored--
	}
}
