package spill

import (
	"errors"
	"time"
)

const (
	// trimDelay lets frees gather, so that neighbours go in one call.
	trimDelay = 250 * time.Millisecond
	// trimExtents is how many extents are looked at in one turn of a lock.
	trimExtents = 1024
)

// trimLoop gives free space back to the file systems until Close.
func (s *Store) trimLoop() {
	delay := time.NewTimer(0)
	defer delay.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.wake:
		}
		delay.Reset(trimDelay)
		select {
		case <-s.stop:
			return
		case <-delay.C:
		}
		s.trim()
	}
}

// trim gives back what is free now. Once it has returned, so has all that was
// free when it was called.
func (s *Store) trim() {
	s.trimming.Lock()
	defer s.trimming.Unlock()
	for _, d := range s.dirs {
		for s.open() && d.trimTail() {
		}
		for s.open() && d.punchHoles() {
		}
	}
}

// open reports whether Close has not begun to stop the trimmer.
func (s *Store) open() bool {
	select {
	case <-s.stop:
		return false
	default:
		return true
	}
}

// keptExtents is how many idle extents stay reserved for the next writes.
func (d *dir) keptExtents() int {
	if d.space.inUse == 0 {
		return 0
	}
	return d.growExtents()
}

// hasSurplus reports whether trimming is worth its while: it begins at twice
// what it leaves, so that a store in a steady state does not trim and grow in turn.
func (d *dir) hasSurplus() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.space.inUse == 0 {
		return d.space.extents() > 0
	}
	return d.space.sets[idle].count > 2*d.keptExtents()
}

// trimTail cuts off free extents at the end of the file and reports whether
// there may be more. It holds growing, or the cut could hit space that the
// writer has just reserved.
func (d *dir) trimTail() (more bool) {
	d.growing.Lock()
	defer d.growing.Unlock()
	first, before := d.detachTail()
	if len(before) == 0 {
		return false
	}
	err := d.file.Truncate(d.offset(first))
	d.mu.Lock()
	if err == nil {
		d.space.resize(first)
		d.spaceReturned()
	} else {
		for i, c := range before {
			d.space.setClass(first+i, c)
		}
	}
	d.mu.Unlock()
	if err != nil && !isNoSpace(err) {
		d.fail("truncate", err)
	}
	return err == nil
}

// detachTail takes free extents at the end out of use, and returns the first
// and the classes they had, in order.
func (d *dir) detachTail() (first int, before []class) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.space.inUse == 0 {
		d.space.closeRun()
	}
	kept, sp := d.keptExtents(), &d.space
	first = sp.extents()
	for first > 0 && sp.extents()-first < trimExtents {
		c := sp.class[first-1]
		if c != hole && (c != idle || sp.sets[idle].count <= kept) {
			break
		}
		first--
		sp.setClass(first, leaving)
		before = append(before, c)
	}
	for i, j := 0, len(before)-1; i < j; i, j = i+1, j-1 {
		before[i], before[j] = before[j], before[i]
	}
	return first, before
}

// punchHoles gives back idle extents inside the file, highest first, and
// reports whether there may be more.
func (d *dir) punchHoles() (more bool) {
	extents := d.detachIdle()
	for len(extents) > 0 {
		n := 1
		for n < len(extents) && extents[n] == extents[0]-n {
			n++
		}
		first := extents[n-1]
		off := d.offset(first)
		err := d.file.PunchHole(off, d.offset(first+n)-off)
		if err != nil {
			d.punchFailed(extents, err)
			return false
		}
		d.setClasses(extents[:n], hole)
		extents = extents[n:]
		more = true
	}
	return more
}

// detachIdle takes the highest idle extents out of use.
func (d *dir) detachIdle() (extents []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noPunch {
		return nil
	}
	kept := d.keptExtents()
	for len(extents) < trimExtents && d.space.sets[idle].count > kept {
		e, _ := d.space.sets[idle].last()
		d.space.setClass(e, leaving)
		extents = append(extents, e)
	}
	return extents
}

func (d *dir) setClasses(extents []int, c class) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range extents {
		d.space.setClass(e, c)
	}
	if c == hole {
		d.spaceReturned()
	}
}

// spaceReturned lets a full file system be tried again. Needs mu.
func (d *dir) spaceReturned() { d.growAfter, d.writeAfter = time.Time{}, time.Time{} }

// punchFailed puts extents back. A system that cannot punch holes gets space
// back only from the end; one that needs space to give some back may later.
func (d *dir) punchFailed(extents []int, err error) {
	d.setClasses(extents, idle)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		d.mu.Lock()
		d.noPunch = true
		d.mu.Unlock()
		d.log.Info("temporary directory cannot punch holes: space comes back only from the end of the file")
	case !isNoSpace(err):
		d.fail("punch", err)
	}
}
