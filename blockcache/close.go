package blockcache

// CloseWhen is Close for a cache whose frames may still be lent: they stay
// mapped until idle is closed. To unmap a frame under its reader would end the
// process.
func (c *Cache) CloseWhen(idle <-chan struct{}) error {
	select {
	case <-idle:
		return c.Close()
	default:
	}
	c.spiller.stop()
	c.reload.close()
	go func() {
		<-idle
		_ = c.frames.close() // nobody is left who could be told
	}()
	return c.opts.Spill.Close()
}
