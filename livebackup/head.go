package livebackup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// heads are the newest states that a repository has of each timeline.
//
// Two copies of one database push on one timeline without knowing of each other:
//
//	copy 1               copy 2
//	reads heads: 100
//	                     reads heads: 100
//	publishes 150
//	                     publishes 140: it is not on the way to 150
//
// So a run looks twice: at the heads before its snapshot is opened, and, when its
// manifest is there, at what was published since. Of two runs that do so, at least
// one finds the other. It takes back what it published; until then what it
// published was whole, and on nobody's way but its own.
//
// What a standby pushes has no checksum, and so says nothing of whose it is: it must not
// hide the newest state that has one.
type heads struct {
	newest map[block.TimelineID]mvcc.Head
	named  map[block.TimelineID]mvcc.Head // the newest with a checksum
	seen   map[BackupID]bool
}

func newHeads() heads {
	return heads{newest: map[block.TimelineID]mvcc.Head{}, named: map[block.TimelineID]mvcc.Head{}, seen: map[BackupID]bool{}}
}

func (h *heads) add(t block.TimelineID, lsn block.LSN, sum uint32) {
	if lsn > h.newest[t].LSN {
		h.newest[t] = mvcc.Head{LSN: lsn, Sum: sum}
	}
	if sum != 0 && lsn > h.named[t].LSN {
		h.named[t] = mvcc.Head{LSN: lsn, Sum: sum}
	}
}

// heads reads them. A run does so before its snapshot is opened, so that one that
// runs beside it and is younger does not count.
func (r *Repository) heads(ctx context.Context) (heads, error) {
	v, err := r.inventory(ctx)
	if err != nil {
		return heads{}, err
	}
	return r.headsOf(ctx, v)
}

// headsOf is heads of who has looked at the repository anyway.
func (r *Repository) headsOf(ctx context.Context, v *inventory) (heads, error) {
	h := newHeads()
	for i := range v.entries {
		e := &v.entries[i]
		if e.Unreadable != nil {
			return h, fmt.Errorf("whether the repository is ahead cannot be told: %v: %w", e.ID, e.Unreadable)
		}
		h.add(e.Manifest.Timeline, e.Manifest.EndLSN, e.Manifest.RecordSum)
		h.seen[e.ID] = true
	}
	for i := range v.records.records {
		t := &v.records.records[i]
		h.add(t.timeline(), t.HeadLSN, t.HeadSum)
	}
	return h, r.logHeads(ctx, v.logs, &h)
}

// logHeads adds the newest archived log of each timeline. What is damaged is passed over:
// that log, or what comes before it, is in the history as well.
func (r *Repository) logHeads(ctx context.Context, logs []LogObject, h *heads) error {
	for i, o := range logs { // by timeline
		if i > 0 && logs[i-1].timeline == o.timeline {
			continue
		}
		s, err := r.newestLog(ctx, logs, o.timeline, nil, func(LogObject, error) error { return nil })
		if err != nil {
			return fmt.Errorf("whether the repository is ahead cannot be told: %w", err)
		}
		if s != nil {
			h.add(s.Timeline, s.To, s.ToSum)
		}
	}
	return nil
}

// newestLog is what the newest archived log of a timeline, of which names have only a part
// of the id, says of itself; nil if there is none that can be read. Log that is not of
// the database, or not of timeline t if that is given, is as bad as damaged log: passed is
// told, and says whether the next older object will do.
func (r *Repository) newestLog(ctx context.Context, logs []LogObject, timeline uint32, t *block.TimelineID, passed func(LogObject, error) error) (*LogSummary, error) {
	newest := func(logs []LogObject) []LogObject {
		own := slices.DeleteFunc(slices.Clone(logs), func(o LogObject) bool { return o.timeline != timeline })
		slices.SortFunc(own, func(a, b LogObject) int { return cmp.Compare(b.To, a.To) })
		return own
	}
	tries := 0
	for own := newest(logs); len(own) > 0; {
		in, err := r.openOwn(ctx, own[0], t)
		switch {
		case err == nil:
			s := in.summary()
			in.close()
			return &s, nil
		case errors.Is(err, fs.ErrNotExist) && tries < findTries: // merged or pruned since
			tries++
			if logs, err = r.logs(ctx); err != nil {
				return nil, err
			}
			own = newest(logs)
		case logDamage(err):
			if err := passed(own[0], err); err != nil {
				return nil, err
			}
			own = own[1:]
		default:
			return nil, err
		}
	}
	return nil, nil
}

// enter lets a database push, or refuses: it must have what the repository has of
// its timeline in its history (R6, R18), and that timeline must be the present one,
// or become it.
func (r *Repository) enter(ctx context.Context, src Source, h heads, i mvcc.BackupInfo) error {
	head := h.newest[i.Timeline]
	if head.LSN > i.LSN {
		return fmt.Errorf("%w: it has LSN %v of timeline %v, the database is at %v: "+
			"it was rolled back or is a copy; `livebackup fork` puts it on a timeline of its own",
			ErrRepositoryAhead, head.LSN, i.Timeline, i.LSN)
	}
	if err := r.checkHead(ctx, src, i.Timeline, h.named[i.Timeline]); err != nil {
		return err
	}
	if i.RecordSum == 0 { // a standby: CheckHead believes what it is asked
		err := r.checkWitness(ctx, lineageOf(i.Timeline, i.History), witnessOf(ctx, src, i.LSN, i.Time))
		if errors.Is(err, mvcc.ErrHistory) { // log that cannot be read does not tell
			return err
		}
	}
	return r.attach(ctx, i)
}

// headChecker is who knows the history of a database: a Source, for one.
type headChecker interface {
	CheckHead(ctx context.Context, repo RepositoryID, h mvcc.Head) error
}

// checkHead asks the source whether a state of its timeline that the repository has is
// one of its own.
func (r *Repository) checkHead(ctx context.Context, src headChecker, t block.TimelineID, head mvcc.Head) error {
	if head.LSN == 0 || head.Sum == 0 { // there is none, or it is not known whose it is
		return nil
	}
	err := src.CheckHead(ctx, r.id, head)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil // a serving process of an older program
	case errors.Is(err, mvcc.ErrHistory):
		return fmt.Errorf("the repository has LSN %v of timeline %v from another copy of this database; "+
			"`livebackup fork` puts this one on a timeline of its own: %w", head.LSN, t, err)
	case err != nil:
		return fmt.Errorf("look for the repository's head in the history: %w", err)
	}
	return nil
}

// announce makes the source remember that it is about to push own, at head of
// timeline t; right after it was shown what is there now, so that it knows which
// of the states that it remembers the repository has.
func (r *Repository) announce(ctx context.Context, src Source, h heads, own BackupID, t block.TimelineID, head mvcc.Head) error {
	newest, err := r.checkRivals(ctx, src, h, own, t)
	if err != nil {
		return err
	}
	if err := r.checkHead(ctx, src, t, newest); err != nil {
		return err
	}
	if newest.LSN >= head.LSN && newest.Sum != 0 {
		head = newest // log that was archived meanwhile is the newest, and stays it
	}
	return r.rememberHead(ctx, src, head)
}

// rememberHead makes the source remember what it is about to push.
func (r *Repository) rememberHead(ctx context.Context, src Source, head mvcc.Head) error {
	err := src.RememberHead(ctx, r.id, head)
	// What is read only writes nothing, and so has nothing to remember: its newest
	// commit is the head.
	if err == nil || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, mvcc.ErrReadOnly) {
		return nil
	}
	return fmt.Errorf("remember what is pushed: %w", err)
}

// checkRivals looks at what was pushed on timeline t since heads were read: see heads.
// It returns the newest state that the repository has of t, but for own.
func (r *Repository) checkRivals(ctx context.Context, src Source, h heads, own BackupID, t block.TimelineID) (newest mvcc.Head, err error) {
	c, err := r.catalog(ctx)
	if err != nil {
		return newest, err
	}
	since := newHeads()
	if err := r.logHeads(ctx, c.logs, &since); err != nil {
		return newest, err
	}
	rivals := []mvcc.Head{since.newest[t]}
	for _, id := range c.published {
		if h.seen[id] || id == own {
			continue
		}
		m, _, err := r.manifest(ctx, id)
		switch {
		case errors.Is(err, ErrBackupNotFound) || errors.Is(err, block.ErrCorrupt):
			// taken back, or of no use to anyone
		case err != nil:
			return newest, fmt.Errorf("look at %v, which is new: %w", id, err)
		case m.Timeline == t:
			rivals = append(rivals, mvcc.Head{LSN: m.EndLSN, Sum: m.RecordSum})
		}
	}
	newest = h.newest[t]
	for _, rival := range rivals {
		if rival.LSN > newest.LSN {
			newest = rival
		}
		if err := r.checkHead(ctx, src, t, rival); err != nil {
			return newest, err
		}
	}
	return newest, nil
}
