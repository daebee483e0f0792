package livebackup

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// What a standby has it has without checksums that anybody else knows (R18, R20). But its
// commits have the times that they have in its primary's log, which the archive has, too,
// to the nanosecond; and in one history each is later than the one before (R19). So where
// both know the time of a commit it is the same, or the two are of different histories: of
// copies of a database that went on by themselves, or before and after a machine was
// rolled back. Of a backup only a time is known that is no earlier than its commit's: one
// of the archive that is later still, of that commit or one before, tells them apart.

// witnessed is a commit of somebody who has no checksum for it.
type witnessed struct {
	lsn   block.LSN
	time  time.Time // no earlier than that of the commit
	exact bool      // it is that of the commit
}

// witnessOf is commit lsn as the log of src has it. Where that does not reach back to it, or
// cannot be read, what is known is that it is no later than time.
func witnessOf(ctx context.Context, src Source, lsn block.LSN, time time.Time) witnessed {
	w := witnessed{lsn: lsn, time: time}
	if lsn == 0 {
		return w
	}
	log, err := src.OpenLog(ctx, LogOptions{Name: mvcc.RepairTail, After: lsn - 1})
	if err != nil {
		return w
	}
	defer log.Close()
	_, _ = log.Read(ctx, 1, func(r mvcc.LogRecord) error { // what it hands out is sound
		if info, err := mvcc.ScanRecord(r.Body); err == nil && r.LSN == lsn {
			w.time, w.exact = info.Time, true
		}
		return errEnough
	})
	return w
}

// checkWitness refuses, with mvcc.ErrHistory, a commit that is another one in the archived
// log of the history that it is said to be of. Where that does not tell, it is let pass.
func (r *Repository) checkWitness(ctx context.Context, history lineage, w witnessed) error {
	var p LogPoint
	for range findTries {
		logs, err := r.logs(ctx)
		if err != nil {
			return err
		}
		x, err := r.newLogIndex(logs, history)
		if err != nil {
			return err
		}
		p, err = x.newestUpTo(ctx, w.lsn)
		x.close()
		if err == nil {
			break
		}
		if !x.gone { // else it was merged since
			return err
		}
	}
	later := p.Time.After(w.time)
	if p.LSN == 0 || w.time.IsZero() || !later && (p.LSN < w.lsn || !w.exact || p.Time.Equal(w.time)) {
		return nil
	}
	return fmt.Errorf("%w: commit %v was made at %s, and by the archived log %v was at %s: that is of another copy of the database",
		mvcc.ErrHistory, w.lsn, exactTime(w.time), p.LSN, exactTime(p.Time))
}

func exactTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// newestUpTo is the newest commit up to lsn in the archive; zero if there is none, or if
// objects that are damaged keep it.
func (x *logIndex) newestUpTo(ctx context.Context, lsn block.LSN) (p LogPoint, err error) {
	i := sort.Search(len(x.parts), func(i int) bool { return x.parts[i].From >= lsn }) - 1
	if i < 0 {
		return p, nil
	}
	to := min(x.parts[i].To, lsn)
	s, err := x.summary(ctx, i)
	if err != nil || s == nil {
		return p, err
	}
	if s.To == to {
		return LogPoint{LSN: to, Time: s.Last}, nil
	}
	err = x.points(ctx, i, func(at LogPoint) error {
		if at.LSN > to {
			return errEnough
		}
		p = at
		return nil
	})
	if tellsNothing(err) {
		return LogPoint{}, nil
	}
	return p, err
}
