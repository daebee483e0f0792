package snapshot

// Fall forward (R12), as far as this package goes. A backup that can fall forward
// need not be broken for want of room, nor for an original that was lost: it gives
// up its originals, all at once, and lives on without any.
//
//	live --fallForward--> fell forward --Close--> closed
//	  '--break--> broken <--Break--'
//
// Under mu a flag says that it wants nothing from here on, so that no commit makes
// an original for it any more. Then, without locks, its owner is told, who fixes F;
// then the originals go, in slices, as those of a backup that ends (R11); whoever needs
// room while they do lends a hand, instead of ending a snapshot. What the backup has in
// hand, its done set, stays known: it is what need not be queued.

// CanFallForward says that the backup falls forward where it would be broken. fell
// is called once, when it wants no originals any more, without locks, by whoever
// needed what they take; frees is that, in bytes. It must be quick.
func (b *Backup) CanFallForward(fell func(frees int64, why Reason, cause error)) {
	b.set.mu.Lock()
	defer b.set.mu.Unlock()
	b.onForward = fell
}

// FellForward reports whether the backup gave up its originals. What it then reads
// as of its LSN may be gone.
func (b *Backup) FellForward() bool { return b.forward.Load() }

// Break ends the backup for a reason of its owner's. It does nothing to one that
// is broken or closed.
func (b *Backup) Break(why Reason, cause error) {
	s := b.set
	s.mu.Lock()
	if b.ended() {
		s.mu.Unlock()
		return
	}
	x := breaking{set: s}
	x.backup(b, why, cause)
	s.mu.Unlock()
	x.finish()
}

// canForward reports whether the backup can still fall forward. mu is held.
func (b *Backup) canForward() bool {
	return b.onForward != nil && !b.ended() && !b.forward.Load()
}

// fallForward ends the backup's wants. mu is held; what it returns does the rest, without.
func (b *Backup) fallForward(why Reason, cause error) forwarding {
	b.forward.Store(true)
	return forwarding{b, b.exclusive, why, cause}
}

// forwarding is a backup that has just fallen forward.
type forwarding struct {
	backup *Backup
	frees  int64
	why    Reason
	cause  error
}

// finish tells the backup's owner and lets go of its originals. The caller holds no
// latch.
func (f forwarding) finish() {
	f.backup.onForward(f.frees, f.why, f.cause)
	f.backup.dropAll()
}

// dropAll lets go of all originals of a backup that wants none.
func (b *Backup) dropAll() {
	for b.dropSome(false) {
	}
}

// falling is a backup that wants nothing, because it fell forward or ended, and has
// originals left, which somebody is about to let go: who needs room meanwhile helps him,
// and ends nobody. mu is held.
func (s *Set) falling() *Backup {
	for _, b := range s.backups {
		if b != nil && b.queue.Len() > 0 && (b.forward.Load() || b.ended()) {
			return b
		}
	}
	return nil
}

// ended reports whether the backup is closed, or is about to be because it was broken.
// mu is held.
func (b *Backup) ended() bool { return b.closed || b.broken.Load() != nil }
