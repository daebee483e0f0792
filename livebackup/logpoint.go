package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// LogPoint is a commit in the archived log.
type LogPoint struct {
	LSN   block.LSN `json:"lsn"`
	Time  time.Time `json:"time"` // monotonic (R19)
	Marks []string  `json:"marks,omitempty"`
}

// LogMoment is a commit and those next to it in the archive; the zero LogPoint
// stands for none.
type LogMoment struct {
	Before LogPoint `json:"before"`
	At     LogPoint `json:"at"`
	Next   LogPoint `json:"next"`
}

// logIndex finds commits in the archived log of a history. It reads the footers
// of objects, and the records of the one that is asked for. What it finds in the
// records is not proven against the object's SHA-256: a reader of the log does
// that before it uses them. Not safe for concurrent use.
type logIndex struct {
	repo      *Repository
	parts     []logPart
	summaries map[int]*LogSummary // of the objects of parts; nil: damaged
	gone      bool                // an object was not there any more: what was found counts for nothing
	d         *decoder
	scan      func(body []byte) (mvcc.RecordInfo, error)
}

// newLogIndex is over the log objects in logs. Close it.
func (r *Repository) newLogIndex(logs []LogObject, history lineage) (*logIndex, error) {
	d, err := newDecoder()
	if err != nil {
		return nil, err
	}
	return &logIndex{repo: r, parts: history.parts(logs), summaries: map[int]*LogSummary{}, d: d, scan: mvcc.ScanRecord}, nil
}

func (x *logIndex) close() { x.d.close() }

// atTime is the last commit with a time at or before t (R19). ErrNotArchived if
// the archive begins later.
func (x *logIndex) atTime(ctx context.Context, t time.Time) (LogMoment, error) {
	var failed error
	after := sort.Search(len(x.parts), func(i int) bool {
		// A damaged object says what the one before it says.
		for ; i >= 0 && failed == nil; i-- {
			s, err := x.summary(ctx, i)
			if failed = err; s != nil {
				return s.First.After(t)
			}
		}
		return false
	})
	if failed != nil {
		return LogMoment{}, failed
	}
	m := &momentFinder{reached: func(p LogPoint) bool { return p.Time.After(t) }}
	if err := x.find(ctx, after-1, m); err != nil {
		return LogMoment{}, err
	}
	if m.moment.At.LSN == 0 {
		return m.moment, fmt.Errorf("a commit at or before %v: %w", t.UTC().Format(time.RFC3339Nano), ErrNotArchived)
	}
	return m.moment, nil
}

// atLSN is commit lsn. ErrNotArchived if it is not in the archive.
func (x *logIndex) atLSN(ctx context.Context, lsn block.LSN) (LogMoment, error) {
	i := sort.Search(len(x.parts), func(i int) bool { return x.parts[i].To >= lsn })
	m := &momentFinder{reached: func(p LogPoint) bool { return p.LSN > lsn }}
	if err := x.find(ctx, i, m); err != nil {
		return LogMoment{}, err
	}
	if m.moment.At.LSN != lsn {
		return m.moment, fmt.Errorf("commit %v: %w", lsn, ErrNotArchived)
	}
	return m.moment, nil
}

// atMark is the newest commit with that name.
func (x *logIndex) atMark(ctx context.Context, name string) (LogMoment, error) {
	list, err := x.marks(ctx)
	if err != nil {
		return LogMoment{}, err
	}
	for _, m := range slices.Backward(list) {
		if m.Name == name {
			return x.atLSN(ctx, m.LSN)
		}
	}
	return LogMoment{}, fmt.Errorf("%q: %w: %s", name, ErrMarkNotFound, markNames(list))
}

// markNamesMax is how many names of marks an error tells.
const markNamesMax = 10

// markNames tells the newest marks, for who has forgotten how one was written.
func markNames(list []LogMark) string {
	if len(list) == 0 {
		return "the archived log has none"
	}
	text := "the newest are"
	for i, m := range slices.Backward(list) {
		if len(list)-i > markNamesMax {
			return text + ", ..."
		}
		text += fmt.Sprintf(" %q", m.Name)
		if i > 0 && len(list)-i < markNamesMax {
			text += ","
		}
	}
	return text
}

// marks are the commits that have a name, by LSN. Damaged objects tell none.
func (x *logIndex) marks(ctx context.Context) (list []LogMark, err error) {
	for i, p := range x.parts {
		s, err := x.summary(ctx, i)
		if err != nil {
			return nil, err
		}
		if s == nil {
			continue
		}
		for _, m := range s.Marks {
			if m.LSN > p.From && m.LSN <= p.To {
				list = append(list, m)
			}
		}
	}
	return list, nil
}

// tellsNothing reports whether err means that an object's own words cannot be had: it
// is damaged, or for other keys. Whoever needs what is in it finds out why.
func tellsNothing(err error) bool { return logDamage(err) || errors.Is(err, ErrWrongKey) }

// summary of the object of part i; nil if it tells nothing.
func (x *logIndex) summary(ctx context.Context, i int) (*LogSummary, error) {
	if s, known := x.summaries[i]; known {
		return s, nil
	}
	in, err := x.repo.openPart(ctx, x.parts[i])
	x.gone = x.gone || errors.Is(err, fs.ErrNotExist)
	if tellsNothing(err) {
		x.summaries[i] = nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer in.close()
	s := in.summary()
	x.summaries[i] = &s
	return &s, nil
}

// find goes through part i, and as far through those next to it as is needed to
// know who stands on each side.
func (x *logIndex) find(ctx context.Context, i int, m *momentFinder) error {
	for at := max(0, i-1); at < len(x.parts) && m.moment.Next.LSN == 0; at++ {
		err := x.points(ctx, at, m.see)
		if err != nil && !tellsNothing(err) {
			return err
		}
	}
	return nil
}

// momentFinder sees points by LSN and keeps the last one before reached holds,
// and those next to it.
type momentFinder struct {
	reached func(LogPoint) bool
	moment  LogMoment
}

func (m *momentFinder) see(p LogPoint) error {
	if m.reached(p) {
		m.moment.Next = p
		return errEnough
	}
	m.moment.Before, m.moment.At = m.moment.At, p
	return nil
}

// points calls fn for the commits of part i.
func (x *logIndex) points(ctx context.Context, i int, fn func(LogPoint) error) error {
	p := x.parts[i]
	in, err := x.repo.openPart(ctx, p)
	x.gone = x.gone || errors.Is(err, fs.ErrNotExist)
	if err != nil {
		return err
	}
	defer in.close()
	now := block.LSN(0) // commit whose first record was seen
	err = in.records(ctx, x.d, func(r mvcc.LogRecord) error {
		if r.LSN <= max(p.From, now) {
			return nil
		}
		if r.LSN > p.To {
			return errEnough
		}
		now = r.LSN
		info, err := x.scan(r.Body)
		if err != nil {
			return damaged(in.name, -1, fmt.Sprintf("commit %v does not decode", r.LSN), err)
		}
		return fn(LogPoint{r.LSN, info.Time.UTC(), info.Marks})
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}
