package livebackup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// logPart is what an object contributes to a history: it may reach beyond a
// fork, or overlap with the one before it.
type logPart struct {
	LogRange
	object   LogObject
	timeline block.TimelineID
}

// stretch is what the i-th timeline of a history contributes.
func (l lineage) stretch(i int) (s LogRange) {
	if s.To, _ = l.reach(l[i].Timeline); i+1 < len(l) {
		s.From, _ = l.reach(l[i+1].Timeline)
	}
	return s
}

// parts are the archived log of a history, by LSN, each commit once.
func (l lineage) parts(logs []LogObject) (list []logPart) {
	for i, f := range l {
		s := l.stretch(i)
		for _, o := range logs {
			r := LogRange{max(o.From, s.From), min(o.To, s.To)}
			if o.timeline == timelineStart(f.Timeline) && r.From < r.To {
				list = append(list, logPart{r, o, f.Timeline})
			}
		}
	}
	slices.SortFunc(list, func(a, b logPart) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(b.To, a.To)) // the longest first
	})
	once, at := list[:0], block.LSN(0)
	for _, p := range list {
		if p.From = max(p.From, at); p.From < p.To {
			once, at = append(once, p), p.To
		}
	}
	return once
}

// coverage is the commits of a history that are in the archive, from commit from
// on, as ranges with holes between them. A state can be rolled forward within the range that
// it lies in, and no further.
func coverage(logs []LogObject, history lineage, from block.LSN) (list []LogRange) {
	for _, p := range history.parts(logs) {
		r := LogRange{max(p.From, from), p.To}
		if n := len(list); n > 0 && list[n-1].To == r.From {
			list[n-1].To = r.To
		} else if r.From < r.To {
			list = append(list, r)
		}
	}
	return list
}

// holesIn are what list leaves out of r.
func holesIn(r LogRange, list []LogRange) (holes []LogRange) {
	at := r.From
	for _, c := range list {
		if c.To <= at || c.From >= r.To {
			continue
		}
		if c.From > at {
			holes = append(holes, LogRange{at, c.From})
		}
		at = c.To
	}
	if at < r.To {
		holes = append(holes, LogRange{at, r.To})
	}
	return holes
}

// LogSpace is the log from one backup to the next. A new one starts with every backup
// of the present timeline, of whatever kind.
type LogSpace struct {
	Backup BackupID `json:"backup"` // that it starts with; zero: log from before the first backup
	LogRange
	Open  bool      `json:"open"`  // the newest: its end is that of the archive, for now
	Since time.Time `json:"since"` // commit time of From; zero if it is not known
	Until time.Time `json:"until"` // commit time of To; zero if it is not known

	Objects int        `json:"objects"` // that begin in it
	Bytes   int64      `json:"bytes"`   // of these
	Holes   []LogRange `json:"holes"`   // commits that are not in the archive: no state there can be had, but for the backups'
}

// spaceStart is where a log space starts.
type spaceStart struct {
	id  BackupID
	lsn block.LSN
	at  time.Time
}

// logSpaces cuts the archived log of a history at the backups that start spaces.
// The end of the last one is not known to be the archive's newest commit's time.
func logSpaces(starts []spaceStart, logs []LogObject, history lineage) (list []LogSpace) {
	parts := history.parts(logs)
	newest := block.LSN(0)
	if n := len(parts); n > 0 {
		newest = parts[n-1].To
	}
	starts = slices.Clone(starts)
	slices.SortFunc(starts, func(a, b spaceStart) int {
		return cmp.Or(cmp.Compare(a.lsn, b.lsn), cmp.Compare(a.id.Sequence, b.id.Sequence))
	})
	if len(parts) > 0 && (len(starts) == 0 || parts[0].From < starts[0].lsn) {
		starts = slices.Insert(starts, 0, spaceStart{lsn: parts[0].From})
	}
	for i, s := range starts {
		space := LogSpace{Backup: s.id, LogRange: LogRange{s.lsn, max(s.lsn, newest)}, Open: i == len(starts)-1, Since: s.at, Holes: []LogRange{}}
		if !space.Open {
			space.To, space.Until = starts[i+1].lsn, starts[i+1].at
		}
		space.enter(parts)
		list = append(list, space)
	}
	return list
}

// enter counts what the archive has of the space.
func (s *LogSpace) enter(parts []logPart) {
	var covered []LogRange
	for _, p := range parts {
		if p.To > s.From && p.From < s.To {
			covered = append(covered, p.LogRange)
		}
		if p.From >= s.From && p.From < s.To {
			s.Objects++
			s.Bytes += p.object.Size
		}
	}
	s.Holes = append(s.Holes, holesIn(s.LogRange, covered)...)
}

// LogSpaces lists the log spaces of the present timeline, the oldest first.
func LogSpaces(ctx context.Context, repo *Repository) ([]LogSpace, error) {
	list, err := repo.logSpaces(ctx)
	if err != nil {
		return nil, fmt.Errorf("log spaces: %w", err)
	}
	return list, nil
}

func (r *Repository) logSpaces(ctx context.Context) ([]LogSpace, error) {
	v, err := r.inventory(ctx)
	if err != nil {
		return nil, err
	}
	history, err := r.presentHistory(ctx, v)
	if err != nil {
		return nil, err
	}
	var starts []spaceStart
	for i := range v.entries {
		if m := &v.entries[i].Manifest; !m.ID.IsZero() && history.usable(m) {
			starts = append(starts, spaceStart{m.ID, m.EndLSN, m.Committed})
		}
	}
	list := logSpaces(starts, v.logs, history)
	if n := len(list); n > 0 && list[n-1].Objects > 0 {
		list[n-1].Until = r.lastTime(ctx, v.logs, history)
	}
	return list, nil
}

// lastTime is that of the newest archived commit, zero if its object does not say.
func (r *Repository) lastTime(ctx context.Context, logs []LogObject, history lineage) (t time.Time) {
	x, err := r.newLogIndex(logs, history)
	if err != nil {
		return t
	}
	defer x.close()
	last := len(x.parts) - 1
	if s, err := x.summary(ctx, last); err == nil && s != nil && s.To == x.parts[last].To {
		t = s.Last
	}
	return t
}

// presentHistory is that of the present timeline; where there is none, because
// nothing was registered and no backup is listed, that of the newest log.
func (r *Repository) presentHistory(ctx context.Context, v *inventory) (lineage, error) {
	if now, _ := v.records.present(); len(now) > 0 || len(v.logs) == 0 {
		return now, v.records.unread
	}
	newest := slices.MaxFunc(v.logs, func(a, b LogObject) int { return cmp.Compare(a.To, b.To) })
	in, err := openLog(ctx, r.objects, newest)
	if err != nil {
		return nil, err
	}
	defer in.close()
	return lineageOf(in.id.timeline, nil), nil
}
