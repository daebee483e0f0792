package blockcache

// Peaks are the highest levels, in bytes, that were seen since someone began to
// follow them. Guarded by gauges.mu.
type Peaks struct{ RAM, Temporary, Overflow int64 }

// FollowPeaks begins to follow the levels; end it with UnfollowPeaks.
func (c *Cache) FollowPeaks() *Peaks {
	c.gauges.mu.Lock()
	defer c.gauges.mu.Unlock()
	p := &Peaks{}
	if c.gauges.followed == nil {
		c.gauges.followed = map[*Peaks]struct{}{}
	}
	c.gauges.followed[p] = struct{}{}
	c.follow()
	return p
}

// UnfollowPeaks ends what FollowPeaks began.
func (c *Cache) UnfollowPeaks(p *Peaks) {
	c.gauges.mu.Lock()
	defer c.gauges.mu.Unlock()
	delete(c.gauges.followed, p)
}

// PeaksSince returns what was seen so far, now included.
func (c *Cache) PeaksSince(p *Peaks) Peaks {
	c.gauges.mu.Lock()
	defer c.gauges.mu.Unlock()
	c.follow()
	return *p
}

// follow takes a reading for those who follow. The watermarks' ticker calls it, so no
// peak of more than a tick is missed.
func (c *Cache) follow() {
	if len(c.gauges.followed) == 0 {
		return
	}
	now := c.occupied()
	for p := range c.gauges.followed {
		p.RAM = max(p.RAM, now.RAM)
		p.Temporary = max(p.Temporary, now.Temporary)
		p.Overflow = max(p.Overflow, now.Overflow)
	}
}

// occupied is the size of each level now. What counts as used RAM is what
// cannot leave without I/O or loss: everything but clean heads.
func (c *Cache) occupied() Peaks {
	f := &c.frames
	f.mu.Lock()
	inUse, limit := f.inUse+f.lent.Load(), f.limit
	f.mu.Unlock()
	size := int64(c.opts.BlockSize)
	return Peaks{
		RAM:       max(0, min(inUse-c.Frames(ClassClean), limit)) * size,
		Temporary: c.opts.Spill.Stats().UsedBytes,
		Overflow:  max(0, inUse-limit-standingReserve) * size,
	}
}
