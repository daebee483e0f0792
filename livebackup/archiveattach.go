package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// archiveClaim is the name of the claim of who archives a timeline.
func archiveClaim(t block.TimelineID) string { return fmt.Sprintf("archive-%08x", timelineStart(t)) }

// attach proves that the repository and the database belong together, and finds
// where the archive goes on.
func (a *archiver) attach(ctx context.Context) error {
	a.abort()
	if _, err := Sweep(ctx, a.repo); err != nil {
		return trouble(err)
	}
	// What one before us published may not be durable yet: its log goes when we say
	// that we have it.
	if err := a.repo.settle(ctx); err != nil {
		return trouble(err)
	}
	heads, err := a.repo.heads(ctx) // before the log is opened: see heads
	if err != nil {
		return trouble(err)
	}
	now, err := a.openNow(ctx)
	if err != nil {
		return err
	}
	defer now.Close()
	if err := a.enter(ctx, now, heads); err != nil {
		return err
	}
	return a.begin(ctx, now)
}

// settle makes durable what a list of the repository shows.
func (r *Repository) settle(ctx context.Context) error {
	if err := r.objects.Delete(ctx); err != nil {
		return writeError("make names durable", err)
	}
	return nil
}

// openNow opens the log at its end: to know whose it is, and as the last resort.
func (a *archiver) openNow(ctx context.Context) (LogSession, error) {
	st, err := a.src.Status(ctx)
	if err != nil {
		return nil, err
	}
	return a.src.OpenLog(ctx, LogOptions{Name: "archive", After: st.DurableLSN})
}

// enter binds, claims and checks whose history this is.
func (a *archiver) enter(ctx context.Context, now LogSession, h heads) error {
	info := now.Info()
	if err := a.repo.bind(ctx, info.Database); err != nil {
		if errors.Is(err, ErrRepositoryWrite) {
			return trouble(err)
		}
		return err
	}
	if err := a.claimTimeline(ctx, info.Timeline); err != nil {
		return err
	}
	sum, err := now.Sum(ctx, info.Durable)
	if err != nil {
		return err
	}
	st, err := a.src.Status(ctx)
	if err != nil {
		return err
	}
	a.history = lineageOf(info.Timeline, info.History)
	if err := a.addHead(ctx, info.Timeline, &h); err != nil {
		return err
	}
	err = a.repo.enter(ctx, a.src, h, mvcc.BackupInfo{
		Database: info.Database, Timeline: info.Timeline, History: info.History, LSN: info.Durable, RecordSum: sum,
		Time: st.LastCommit,
	})
	if errors.Is(err, ErrRepositoryWrite) {
		return trouble(err)
	}
	return err
}

// claimTimeline makes sure that nobody else archives the timeline.
func (a *archiver) claimTimeline(ctx context.Context, t block.TimelineID) error {
	if a.claim != nil {
		return nil
	}
	host, _ := os.Hostname() // "" will do: the note is for people
	note := fmt.Sprintf("pid %d on %q since %s\n", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))
	name := archiveClaim(t)
	claim, err := a.repo.objects.Claim(ctx, name, []byte(note))
	if errors.Is(err, ErrClaimed) {
		return fmt.Errorf("%w: %w", ErrArchiving, err)
	}
	if err != nil {
		return trouble(writeError("claim the archive", err))
	}
	a.claim, a.claimName = claim, name
	return nil
}

// addHead adds the newest archived log of the timeline to the heads, as it is now that
// nobody else adds any.
func (a *archiver) addHead(ctx context.Context, t block.TimelineID, h *heads) error {
	logs, err := a.repo.logs(ctx)
	if err != nil {
		return trouble(err)
	}
	s, err := a.repo.newestLog(ctx, logs, timelineStart(t), &t, func(o LogObject, err error) error {
		if errors.Is(err, ErrLogForeign) {
			return err
		}
		a.o.Warn(&LogLostError{Lost: o.LogRange, Object: o.Name(), Cause: err})
		return nil
	})
	switch {
	case errors.Is(err, ErrLogForeign):
		return err
	case err != nil:
		return trouble(err)
	case s != nil:
		h.add(t, s.To, s.ToSum)
	}
	return nil
}

// begin opens the log where the archive goes on.
func (a *archiver) begin(ctx context.Context, now LogSession) error {
	logs, err := a.repo.logs(ctx)
	if err != nil {
		return trouble(err)
	}
	a.looked = time.Now()
	backups, err := a.backups(ctx)
	if err != nil {
		return err
	}
	parts, end := a.history.parts(logs), block.LSN(0)
	if n := len(parts); n > 0 {
		end = parts[n-1].To
	}
	live, err := a.live(ctx)
	if err != nil {
		return err
	}
	log, start, err := a.openAt(ctx, starts(end, slices.Sorted(slices.Values(append(live, backups...)))), now.Info().Durable)
	if err != nil {
		return err
	}
	if a.log != nil {
		a.log.Close() // only now: it held what the new one holds
	}
	a.log = log
	if a.prev = (LogObject{}); end == start && len(parts) > 0 && parts[len(parts)-1].object.To == end {
		a.prev = parts[len(parts)-1].object
	}
	if a.fromSum, err = log.Sum(ctx, start); err != nil {
		return err
	}
	a.tellHoles(logs, backups, end, start)
	return a.restart(start)
}

// restart begins to build behind commit start.
func (a *archiver) restart(start block.LSN) error {
	info := a.log.Info()
	b, err := newLogBuilder(logIdentity{database: info.Database, timeline: info.Timeline}, start, a.o.Compression)
	if err != nil {
		return err
	}
	if a.b != nil {
		a.b.close()
	} else {
		a.status.StartLSN = start
	}
	a.b, a.caughtUp, a.behind, a.onTheWay = b, time.Now(), true, false
	a.status.ArchivedLSN, a.status.DurableLSN, a.status.Failure = start, max(start, info.Durable), nil
	a.report()
	return nil
}

// backups are the LSNs of the backups of our history, in order.
func (a *archiver) backups(ctx context.Context) (list []block.LSN, err error) {
	entries, err := List(ctx, a.repo)
	if err != nil {
		return nil, trouble(err)
	}
	for i := range entries {
		if m := &entries[i].Manifest; !m.ID.IsZero() && a.history.usable(m) {
			list = append(list, m.EndLSN)
		}
	}
	slices.Sort(list)
	return list, nil
}

// live are the LSNs of the backups that are being made: they will be in the repository
// when it is too late for the log behind them.
func (a *archiver) live(ctx context.Context) (list []block.LSN, err error) {
	st, err := a.src.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range st.Backups {
		list = append(list, b.LSN)
	}
	return list, nil
}

// starts are the commits behind which the archive may go on, the best first: the
// end of what there is, then the backups behind that, the oldest first, so that the
// hole is the smallest.
func starts(end block.LSN, backups []block.LSN) (list []block.LSN) {
	if end > 0 {
		list = append(list, end)
	}
	for _, lsn := range backups {
		if lsn > end {
			list = append(list, lsn)
		}
	}
	return list
}

// openAt opens the log behind the first of starts that it reaches back to, or else
// behind commit now.
func (a *archiver) openAt(ctx context.Context, starts []block.LSN, now block.LSN) (LogSession, block.LSN, error) {
	for _, lsn := range append(starts, now) {
		if lsn > now {
			continue // a backup that was made since
		}
		log, err := a.src.OpenLog(ctx, LogOptions{Name: "archive", After: lsn})
		if !errors.Is(err, mvcc.ErrLogGone) {
			return log, lsn, err
		}
	}
	return nil, 0, fmt.Errorf("follow the log from its end on: %w", mvcc.ErrLogGone)
}

// tellHoles finds what the archive will never have: in what there is, and between
// its end and where it goes on.
func (a *archiver) tellHoles(logs []LogObject, backups []block.LSN, end, start block.LSN) {
	if a.status.Holes = nil; len(backups) > 0 && backups[0] < start {
		covered := append(coverage(logs, a.history, backups[0]), LogRange{start, start})
		a.status.Holes = holesIn(LogRange{backups[0], start}, covered)
	}
	before := end
	for _, lsn := range backups {
		if end == 0 && lsn <= start {
			before = lsn
		}
	}
	if before > 0 && before < start {
		a.o.Warn(&LogLostError{Lost: LogRange{before, start}})
	}
}

// explainGap tells what it means that the object before the next one is not
// there. It may have been merged with those before it, see merge.go; one that a backup
// stands behind may have been pruned.
func (a *archiver) explainGap(ctx context.Context, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	logs, err := a.repo.logs(ctx)
	if err != nil {
		return err
	}
	for _, o := range logs {
		if o.timeline == a.prev.timeline && o.From <= a.prev.From && o.To == a.prev.To {
			a.prev = o
			return nil
		}
	}
	backups, err := a.backups(ctx)
	if err != nil {
		return err
	}
	if n := len(backups); n == 0 || backups[n-1] < a.prev.To {
		a.status.Holes = append(a.status.Holes, a.prev.LogRange)
		a.o.Warn(&LogLostError{Lost: a.prev.LogRange})
	}
	a.prev = LogObject{} // told once
	return nil
}
