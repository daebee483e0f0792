package snapshot

// Fall forward (R12), as far as this package goes. A backup that can fall forward
// need not be broken for want of room, nor for an original that was lost: it gives
// up its originals, all at once, and lives on without any.
//
//	live --fallForward--> fell forward --Close--> closed
//	  '--break--> broken <--Break--'
//
// Under mu a flag says that it wants nothing from here on, so that no commit makes
// an original for it any more, and what it holds begins to leave, as that of a backup
// that ends (leaving.go). Then, without locks, its owner is told, who fixes F. What the
// backup has in hand, its done set, stays known: it is what need not be queued.

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
	x.finishBehind()
}

// canForward reports whether the backup can still fall forward. mu is held.
func (b *Backup) canForward() bool {
	return b.onForward != nil && !b.ended() && !b.forward.Load()
}

// fallForward ends a backup's wants. mu is held; finish does the rest, without.
func (x *breaking) fallForward(b *Backup, why Reason, cause error) {
	b.forward.Store(true)
	x.forward = append(x.forward, forwarding{b, b.exclusive, why, cause})
	x.leave(b.depart())
}

// forwarding is a backup that has just fallen forward.
type forwarding struct {
	backup *Backup
	frees  int64
	why    Reason
	cause  error
}

// tell tells the backup's owner. The caller holds no latch.
func (f forwarding) tell() { f.backup.onForward(f.frees, f.why, f.cause) }

// ended reports whether the backup is closed, or is about to be because it was broken.
// mu is held.
func (b *Backup) ended() bool { return b.closed || b.broken.Load() != nil }
