package watch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// Source is what is looked at: any livebackup.Source, for one.
type Source interface {
	Status(ctx context.Context) (mvcc.Status, error)
}

// eventSource is a source that also tells what happened.
type eventSource interface {
	Events(ctx context.Context, after uint64) ([]mvcc.Event, error)
}

// span is over how long rates and latencies are taken, about.
const span = 10 * time.Second

// shortest is the shortest time that a rate of its own is taken of.
const shortest = 50 * time.Millisecond

// How many moments, rates and events a sampler remembers.
const (
	momentsMax = 64
	recentMax  = 240
	eventsMax  = 100
)

// Sampler makes views. Not safe for concurrent use.
type Sampler struct {
	src   Source
	repo  *RepositoryLook
	now   func() time.Time
	past  []moment // of the last span, the oldest first
	last  View
	rates []float64
	known []Event
	fresh int    // of known: since the last look
	heard uint64 // number of the last of the store's events

	heardAt, again time.Time // when that happened; what happened by then comes for the second time

	ahead   map[uint64]forecast.Outlook // of live backups, by number
	aheadAt time.Time
}

// moment is what rates are made of.
type moment struct {
	at         time.Time
	lsn        uint64
	commits    mvcc.CommitLatency
	log, dirty int64
}

// NewSampler looks at src, and at the backups in repo, unless that is nil.
func NewSampler(src Source, repo *livebackup.Repository) *Sampler {
	s := &Sampler{src: src, now: time.Now}
	if repo != nil {
		s.repo = LookAt(repo)
	}
	return s
}

// Sample looks now. It does not fail: a database that cannot be asked is something
// to be seen.
func (s *Sampler) Sample(ctx context.Context) View {
	now := s.now()
	st, err := s.src.Status(ctx)
	if err != nil {
		v := s.last
		v.Time, v.Error, v.fresh = now, err.Error(), 0
		s.past = nil
		s.last = v
		return v
	}
	v := View{
		Time: now, Since: now, Dir: st.Dir, Database: st.Database, Mode: st.Mode, Quiet: st.Quiet, Failed: st.Failed,
		FileBytes: st.FileBytes, NewestLSN: st.NewestLSN, DurableLSN: st.DurableLSN, LastCommit: st.LastCommit,
		Levels: levels(&st), Backups: backups(&st, now), Snapshots: snapshots(&st, now), Holders: holders(&st),
	}
	first := s.last.Time.IsZero()
	s.fresh = 0
	v.Writer = s.writer(&st, now)
	if v.Writer.Span == 0 {
		s.heard, s.again = 0, s.heardAt // the first look, or perhaps a store that was opened again: it counts from 1
	}
	s.listen(ctx)
	s.lookAhead(ctx, &st, &v)
	s.notice(&v)
	if s.repo != nil {
		v.Repository = s.repo.Look(ctx, now, st.Database)
	}
	v.Events, v.recent = append([]Event{}, s.known...), slices.Clone(s.rates)
	if !first { // what was before is no news
		v.fresh = min(s.fresh, len(v.Events))
	}
	s.last = v
	return v
}

// writer takes the rates since the oldest moment of the span.
func (s *Sampler) writer(st *mvcc.Status, now time.Time) Writer {
	m := moment{now, uint64(st.NewestLSN), st.Commits, st.LogWaits, st.DirtyWaits}
	if n := len(s.past); n > 0 && m.lsn < s.past[n-1].lsn {
		s.past = nil // another store: a restored one, perhaps
	}
	var w Writer
	if n := len(s.past); n > 0 {
		last := s.past[n-1]
		if now.Sub(last.at) < shortest && n > 1 { // too short to tell a rate by
			last = s.past[n-2]
		}
		if took := now.Sub(last.at).Seconds(); took > 0 {
			w.CommitsPerSecond = float64(m.lsn-last.lsn) / took
			s.rates = keepLast(append(s.rates, w.CommitsPerSecond), recentMax)
		}
		first := s.past[0]
		w.Span = now.Sub(first.at)
		between := m.commits.Since(first.commits)
		w.LatencyP50, w.LatencyP99, w.LatencyMax = between.Quantile(0.5), between.Quantile(0.99), between.Quantile(1)
		if secs := w.Span.Seconds(); secs > 0 {
			w.LogWaits, w.DirtyWaits = float64(m.log-first.log)/secs, float64(m.dirty-first.dirty)/secs
		}
	}
	s.past = keepLast(append(s.past, m), momentsMax)
	for len(s.past) > 2 && now.Sub(s.past[1].at) >= span {
		s.past = s.past[1:]
	}
	return w
}

func keepLast[T any](list []T, n int) []T { return list[max(len(list)-n, 0):] }

func levels(st *mvcc.Status) []Level {
	list := []Level{}
	for _, l := range st.Levels {
		if l.Unit == mvcc.UnitAge && l.Limit <= 0 { // an age that nobody limits
			continue
		}
		v := Level{
			Name: l.Name, Unit: l.Unit, Used: l.Used, Limit: l.Limit, Peak: max(l.Peak, l.Used),
			State: l.State, TimeState: l.TimeState, TimeToFull: l.TimeToFull, Marks: l.Marks,
		}
		if l.Limit > 0 {
			v.Share = float64(l.Used) / float64(l.Limit)
		} else if l.State == mvcc.StateCritical { // of the room that there should be none is left
			v.Share = 1
		}
		list = append(list, v)
	}
	return list
}

func backups(st *mvcc.Status, now time.Time) []Backup {
	list := []Backup{}
	size := int64(st.BlockSize)
	for _, b := range st.Backups {
		v := Backup{
			ID: b.ID, Owner: b.Owner, Label: b.Label, Incremental: b.Base > 0, LSN: b.LSN, Age: max(now.Sub(b.Opened), 0),
			Bytes: b.Bytes, TotalBytes: int64(b.BlocksTotal) * size, Share: b.Share, BytesPerSecond: b.BytesPerSecond,
			HeldBytes: b.HeldBytes, Rung: string(b.Rung), LimitBytesPerSec: max(b.PaceBytesPerSecond, 0),
		}
		switch {
		case v.Share >= 1:
		case v.TotalBytes > 0 && v.BytesPerSecond > 0:
			v.TimeLeft = seconds(float64(v.TotalBytes-v.Bytes) / float64(v.BytesPerSecond))
		case v.TotalBytes == 0 && v.Share > 0:
			v.TimeLeft = seconds(v.Age.Seconds() * (1 - v.Share) / v.Share)
		}
		list = append(list, v)
	}
	return list
}

// seconds is a length of time, a year at most.
func seconds(s float64) time.Duration {
	const year = 365 * 24 * 3600
	return time.Duration(min(s, year) * float64(time.Second))
}

func snapshots(st *mvcc.Status, now time.Time) Snapshots {
	s := Snapshots{Readers: st.Readers, HeldBytes: int64(st.Originals.Originals) * int64(st.BlockSize)}
	for _, p := range st.Snapshots {
		s.OldestAge = max(s.OldestAge, now.Sub(p.Opened))
	}
	return s
}

func holders(st *mvcc.Status) []Holder {
	list := []Holder{}
	for _, h := range st.Holders {
		v := Holder{Name: h.Name, HeldBytes: h.Bytes}
		if h.LSN <= st.NewestLSN {
			v.Commits = uint64(st.NewestLSN-h.LSN) + 1
		}
		list = append(list, v)
	}
	return list
}

// aheadEvery is how often a sampler looks ahead for live backups: what changed in the
// last hour is asked for then.
const aheadEvery = 5 * time.Second

// lookAhead enters how each live backup is expected to end, where that can be told.
func (s *Sampler) lookAhead(ctx context.Context, st *mvcc.Status, v *View) {
	src, ok := s.src.(livebackup.Source)
	if !ok || len(v.Backups) == 0 {
		s.aheadAt = time.Time{}
		return
	}
	if v.Time.Sub(s.aheadAt) >= aheadEvery {
		list, err := livebackup.Outlooks(ctx, src, st)
		if err != nil {
			return // the next look asks again
		}
		s.aheadAt, s.ahead = v.Time, map[uint64]forecast.Outlook{}
		for _, o := range list {
			s.ahead[o.ID] = o
		}
	}
	for i := range v.Backups {
		if o, found := s.ahead[v.Backups[i].ID]; found {
			v.Backups[i].Forecast = words(&o)
		}
	}
}

// words are an outlook for people; "" if there is nothing to say.
func words(o *forecast.Outlook) string {
	switch o.Verdict {
	case forecast.Fits:
		return "forecast: it fits"
	case forecast.FallsForward:
		return "forecast: no room for originals in " + whole(o.TimeToFull) + ", it falls forward then"
	case forecast.Breaks:
		return "forecast: no room for originals in " + whole(o.TimeToFull) + ", it breaks then"
	}
	return ""
}

// eventsPages is how many times one look asks for more events.
const eventsPages = 8

// listen takes over what the store tells since the last look.
func (s *Sampler) listen(ctx context.Context) {
	src, ok := s.src.(eventSource)
	if !ok {
		return
	}
	for range eventsPages {
		list, err := src.Events(ctx, s.heard)
		if err != nil || len(list) == 0 {
			return // the next look asks again
		}
		for _, e := range list {
			s.heard = e.Seq
			if s.again.IsZero() || e.Time.After(s.again) {
				s.heardAt = e.Time
				s.event(EventOf(&e))
			}
		}
	}
}

// notice makes events of what is another than at the last look, and no event of the
// store's.
func (s *Sampler) notice(v *View) {
	was := &s.last
	if was.Error != "" {
		s.event(Event{v.Time, "reached", mvcc.StateNormal, "the database answers again"})
	}
	for _, b := range v.Backups {
		if !slices.ContainsFunc(was.Backups, func(w Backup) bool { return w.ID == b.ID }) {
			s.event(Event{v.Time, "backup", mvcc.StateNormal, fmt.Sprintf("backup %d has begun, at LSN %v", b.ID, b.LSN)})
		}
	}
	for _, b := range was.Backups {
		if !slices.ContainsFunc(v.Backups, func(w Backup) bool { return w.ID == b.ID }) {
			s.event(Event{v.Time, "backup", mvcc.StateNormal, fmt.Sprintf("backup %d let go of its snapshot, %s after it began", b.ID, human.Elapsed(b.Age))})
		}
	}
}

func (s *Sampler) event(e Event) {
	s.known = keepLast(append(s.known, e), eventsMax)
	s.fresh++
}
