package mvcc

import (
	"context"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// restShare is how long a scan rests for the time that it kept the disk busy:
// three quarters of the time belong to the others. Measured with writers who read
// what they change from the same disk: at half of it a single one fell to half
// of its speed.
const restShare = 3

// A scan rests when it owes restMin, so that it sleeps properly, and never owes
// more than restMax, for which closing the backup may have to wait.
const (
	restMin = time.Millisecond
	restMax = 100 * time.Millisecond
)

// activeFor is how long after a commit its writer counts as being at work: longer
// than most transactions take to their next commit.
const activeFor = 100 * time.Millisecond

// scanPace keeps a backup's scan from crowding out those who write meanwhile.
// On a database in which nothing is committed, the scan does not rest. Originals
// in hand are not paced: they cost no reading, and RAM until they are gone.
type scanPace struct {
	newest block.LSN // when the scan last read
	active time.Time // when it was last seen that this had moved
	owed   time.Duration
}

// read tells that the scan has kept the disk busy; newest is the store's newest
// commit.
func (p *scanPace) read(took time.Duration, newest block.LSN) {
	now := time.Now()
	if newest != p.newest {
		p.newest, p.active = newest, now
	}
	if now.Sub(p.active) < activeFor {
		p.owed = min(p.owed+restShare*took, restMax)
	}
}

// busy reports whether somebody was seen to commit a moment ago.
func (p *scanPace) busy() bool { return time.Since(p.active) < activeFor }

// rest waits for what is owed, unless ctx ends.
func (p *scanPace) rest(ctx context.Context) {
	if p.owed < restMin {
		return
	}
	began := time.Now()
	t := time.NewTimer(p.owed)
	defer t.Stop()
	select {
	case <-t.C:
		p.owed = max(p.owed-time.Since(began), -restMin) // sleeping a little long is made up for
	case <-ctx.Done():
	}
}
