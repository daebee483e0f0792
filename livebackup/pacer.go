package livebackup

import (
	"context"
	"time"
)

// paceStep is the share of a second in which a paced writer writes once: short
// enough to be smooth, long enough to sleep properly.
const paceStep = 20 * time.Millisecond

// pacer spreads writes evenly at a rate. It holds no lock and nobody else up:
// who waits here is the backup's own writer. Not safe for concurrent use.
type pacer struct {
	rate int64     // bytes per second; 0: as fast as it goes
	due  time.Time // when the next byte may go

	asked   func() int64 // what was asked for while it runs, see mvcc.Backup.Pace; nil: nobody can
	heard   int64        // of asked, last
	changes int
}

// pacedSession is a session that knows what rate somebody else asked for since it
// began; any goroutine may ask it.
type pacedSession interface {
	Pace() (bytesPerSecond int64)
}

// follow makes the pacer keep to what is asked for by way of the session, from the
// next few bytes on.
func (p *pacer) follow(s Session) {
	if paced, ok := s.(pacedSession); ok {
		p.asked = paced.Pace
	}
}

// listen takes over a rate that was asked for.
func (p *pacer) listen() {
	if p.asked == nil {
		return
	}
	if now := p.asked(); now != 0 && now != p.heard {
		p.heard, p.rate, p.due = now, max(now, 0), time.Time{}
		p.changes++
	}
}

// wait returns how many of n bytes may be written now, at least one.
func (p *pacer) wait(ctx context.Context, n int) (int, error) {
	p.listen()
	if p.rate <= 0 {
		return n, context.Cause(ctx)
	}
	n = int(min(int64(n), max(1, p.rate/int64(time.Second/paceStep))))
	if err := sleepUntil(ctx, p.due); err != nil {
		return 0, err
	}
	// What was not used while the writer was idle is lost: no bursts.
	if now := time.Now(); p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return n, nil
}

func sleepUntil(ctx context.Context, t time.Time) error {
	wait := time.Until(t)
	if wait <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
