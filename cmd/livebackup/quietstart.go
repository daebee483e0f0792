package main

import (
	"context"
	"errors"
	"time"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
)

// What --at takes.
const (
	startNow   = "now"
	startQuiet = "quiet"
)

// quietWithin is how far away a quiet window may be if nothing else is said.
const quietWithin = 24 * time.Hour

// checkStart refuses what would be ignored.
func (f *backupFlags) checkStart(withinGiven bool) error {
	switch {
	case withinGiven && f.at.word != startQuiet:
		return &usageError{errors.New("--within needs --at quiet")}
	case f.within <= 0:
		return &usageError{errors.New("--within must be more than nothing")}
	}
	return nil
}

// awaitQuiet returns when the best time to start has come. Where the history does
// not name one the backup starts at once: who asked for a backup wants one.
func (a *app) awaitQuiet(ctx context.Context, db *database, repo *livebackup.Repository, f *backupFlags, o livebackup.BackupOptions) error {
	if !db.served {
		a.note("quiet window: nobody writes to the database now, starting at once")
		return nil
	}
	p, err := livebackup.PlanBackup(ctx, db, repo, o)
	if err != nil {
		return err
	}
	best, known := p.Within(time.Duration(f.within))
	switch {
	case !known:
		a.note("quiet window: not known, %d of 168 hours of the week were seen; starting at once", p.HoursSeen)
		return nil
	case !best.Start.After(p.Now.Start):
		a.note("quiet window: now; no hour within %s is clearly better", human.Elapsed(time.Duration(f.within)))
		return nil
	}
	a.note("quiet window: waiting until %s, for a peak of originals of %s instead of %s;\n  Ctrl-C ends it", best.Start.Local().Format("Mon 15:04"),
		human.Bytes(best.PeakOriginals), human.Bytes(p.Now.PeakOriginals))
	return waitUntil(ctx, best.Start)
}

// waitStep is how often a wait looks at the clock: it may be set meanwhile.
const waitStep = time.Minute

// waitUntil waits for a time of day, also if the clock is set or the machine sleeps.
func waitUntil(ctx context.Context, until time.Time) error {
	until = until.Round(0) // not the monotonic clock
	for {
		left := until.Sub(time.Now().Round(0))
		if left <= 0 {
			return nil
		}
		t := time.NewTimer(min(left, waitStep))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}
