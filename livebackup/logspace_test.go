package livebackup

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// randomTree is some timelines, each forked from one before it, and log objects
// of all of them.
type randomTree struct {
	timelines []block.TimelineID
	parent    []int
	forks     []block.LSN // where the timeline left its parent
	logs      []LogObject
}

func newTree(rng *rand.Rand) *randomTree {
	t := &randomTree{}
	for i := range 4 {
		parent, fork := -1, block.LSN(0)
		if i > 0 {
			parent = rng.IntN(i)
			fork = t.forks[parent] + block.LSN(rng.IntN(20))
		}
		id := block.TimelineID{byte(i + 1)}
		t.timelines, t.parent, t.forks = append(t.timelines, id), append(t.parent, parent), append(t.forks, fork)
		for at := fork + block.LSN(rng.IntN(3)); at < fork+40; {
			to := at + 1 + block.LSN(rng.IntN(9))
			o := logIdentity{timeline: id, from: at, to: to}.object(1)
			t.logs = append(t.logs, o)
			at = to + block.LSN(max(0, rng.IntN(5)-3))
			if rng.IntN(8) == 0 && at > fork {
				at-- // an overlap
			}
		}
	}
	rng.Shuffle(len(t.logs), func(i, j int) { t.logs[i], t.logs[j] = t.logs[j], t.logs[i] })
	return t
}

// lineage of the i-th timeline.
func (t *randomTree) lineage(i int) lineage {
	var history []block.Fork
	for at := i; t.parent[at] >= 0; at = t.parent[at] {
		history = append(history, block.Fork{Timeline: t.timelines[t.parent[at]], LSN: t.forks[at]})
	}
	return lineageOf(t.timelines[i], history)
}

// has says, commit by commit, whether lsn of the history of timeline i is archived.
func (t *randomTree) has(i int, lsn block.LSN) bool {
	for t.parent[i] >= 0 && lsn <= t.forks[i] {
		i = t.parent[i]
	}
	for _, o := range t.logs {
		if o.timeline == timelineStart(t.timelines[i]) && o.From < lsn && lsn <= o.To {
			return true
		}
	}
	return false
}

// R18, L14: what the archive covers of a history, across timelines, is what a
// search commit by commit finds: a parent's log counts up to the fork and no further.
func TestModel_R18_CoverageAcrossTimelines(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 500 {
		tree := newTree(rng)
		i, from := rng.IntN(4), block.LSN(rng.IntN(50))
		list := coverage(tree.logs, tree.lineage(i), from)
		holes := holesIn(LogRange{from, 150}, list)
		for lsn := from + 1; lsn <= 150; lsn++ {
			within := func(r LogRange) bool { return r.From < lsn && lsn <= r.To }
			covered, missing := slices.ContainsFunc(list, within), slices.ContainsFunc(holes, within)
			if covered != tree.has(i, lsn) || covered == missing {
				t.Fatalf("commit %v of timeline %d: covered %v, missing %v, is there %v\n%v\n%v", lsn, i, covered, missing, tree.has(i, lsn), list, holes)
			}
		}
		for n := 1; n < len(list); n++ {
			if list[n-1].To >= list[n].From {
				t.Fatalf("ranges touch: %v", list)
			}
		}
		at := block.LSN(0)
		for _, p := range tree.lineage(i).parts(tree.logs) {
			if p.From < at || p.From >= p.To {
				t.Fatalf("a commit comes twice: %v behind %v", p, at)
			}
			at = p.To
		}
	}
}

// A log space is from one backup to the next; what is missing in it is said, and
// the last one is open.
func TestLogSpaces(t *testing.T) {
	h := newFakeHistory(30).grow(60)
	repo := boundRepo(t, simfs.New(), "/repo")
	for _, r := range []LogRange{{5, 12}, {12, 30}, {33, 40}, {40, 60}} {
		putLog(t, repo, h, fakeTimeline, r)
	}
	logs := mustLogs(t, repo)
	at := func(lsn block.LSN) time.Time { return h.commits[lsn-1].at }
	starts := []spaceStart{{BackupID{2, 2}, 35, at(35)}, {BackupID{1, 1}, 10, at(10)}, {BackupID{3, 3}, 35, at(35)}}
	list := logSpaces(starts, logs, ourLineage)
	type row struct {
		id        uint64
		from, to  block.LSN
		open      bool
		objects   int
		holesFrom block.LSN
	}
	want := []row{{0, 5, 10, false, 1, 0}, {1, 10, 35, false, 2, 30}, {2, 35, 35, false, 0, 0}, {3, 35, 60, true, 1, 0}}
	for i, s := range list {
		got := row{s.Backup.Sequence, s.From, s.To, s.Open, s.Objects, 0}
		if len(s.Holes) > 0 {
			got.holesFrom = s.Holes[0].From
		}
		if len(list) != len(want) || got != want[i] || (s.Bytes == 0) != (s.Objects == 0) {
			t.Fatalf("space %d of %d: %+v, want %+v", i, len(list), s, want[i])
		}
	}
	if !list[1].Since.Equal(at(10)) || !list[1].Until.Equal(at(35)) || !list[0].Since.IsZero() {
		t.Fatalf("%+v", list)
	}
	all, err := LogSpaces(t.Context(), repo) // there are no backups
	if err != nil || len(all) != 1 || all[0].LogRange != (LogRange{5, 60}) || !all[0].Until.Equal(at(60)) {
		t.Fatalf("%+v, %v", all, err)
	}
	if all, err := LogSpaces(t.Context(), boundRepo(t, simfs.New(), "/other")); err != nil || len(all) != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
}

// pointOf is what the archive, which begins behind commit first, says of commit
// lsn of h.
func pointOf(h *fakeHistory, first, lsn block.LSN) LogPoint {
	if lsn <= first || lsn > h.newest() {
		return LogPoint{}
	}
	c := h.commits[lsn-1]
	p := LogPoint{LSN: lsn, Time: c.at}
	if c.mark != "" {
		p.Marks = []string{c.mark}
	}
	return p
}

func samePoint(a, b LogPoint) bool {
	return a.LSN == b.LSN && a.Time.Equal(b.Time) && slices.Equal(a.Marks, b.Marks)
}

// wantMoment proves that m is commit at and those next to it.
func wantMoment(t *testing.T, h *fakeHistory, first, at block.LSN, m LogMoment, err error) {
	t.Helper()
	if at <= first {
		if !errors.Is(err, ErrNotArchived) || m.Next.LSN != first+1 {
			t.Fatalf("before the archive: %+v, %v", m, err)
		}
		return
	}
	if err != nil || !samePoint(m.At, pointOf(h, first, at)) || !samePoint(m.Before, pointOf(h, first, at-1)) || !samePoint(m.Next, pointOf(h, first, at+1)) {
		t.Fatalf("want commit %v, got %+v, %v", at, m, err)
	}
}

// R19, T46: a time is resolved to the last commit in commit order with a time at or
// before it, and its neighbours, wherever objects and timelines meet.
func TestR19_TimeIsResolvedToACommit(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 8 {
		h := newFakeHistory(rng.Uint64()).grow(40)
		child := h.fork(25, rng.Uint64()).grow(20)
		second := block.TimelineID{3}
		repo := boundRepo(t, simfs.New(), "/repo")
		put := func(h *fakeHistory, tl block.TimelineID, from block.LSN) {
			for from < h.newest() {
				to := min(h.newest(), from+1+block.LSN(rng.IntN(8)))
				putLog(t, repo, h, tl, LogRange{from, to})
				from = to
			}
		}
		first := block.LSN(rng.IntN(5))
		put(h, fakeTimeline, first)
		put(child, second, 25)
		x, err := repo.newLogIndex(mustLogs(t, repo), lineageOf(second, []block.Fork{{Timeline: fakeTimeline, LSN: 25}}))
		if err != nil {
			t.Fatal(err)
		}
		resolveAll(t, rng, x, child, first)
		x.close()
	}
}

// resolveAll asks for every commit of h by time, LSN and name.
func resolveAll(t *testing.T, rng *rand.Rand, x *logIndex, h *fakeHistory, first block.LSN) {
	t.Helper()
	marks := map[string]block.LSN{}
	for n := block.LSN(0); n <= h.newest(); n++ {
		when := h.commits[0].at.Add(-time.Nanosecond)
		if n > 0 {
			when = h.commits[n-1].at.Add(time.Duration(rng.IntN(2)))
		}
		if n > first && h.commits[n-1].mark != "" {
			marks[h.commits[n-1].mark] = n
		}
		last := block.LSN(0)
		for i, c := range h.commits {
			if !c.at.After(when) {
				last = block.LSN(i + 1)
			}
		}
		m, err := x.atTime(t.Context(), when)
		wantMoment(t, h, first, last, m, err)
		if n > first {
			m, err = x.atLSN(t.Context(), n)
			wantMoment(t, h, first, n, m, err)
		}
	}
	for name, lsn := range marks {
		m, err := x.atMark(t.Context(), name)
		wantMoment(t, h, first, lsn, m, err)
	}
	if _, err := x.atMark(t.Context(), "no such"); !errors.Is(err, ErrMarkNotFound) {
		t.Fatal(err)
	}
}

// A damaged object hides what is in it, and nothing else.
func TestDamagedObjectHidesOnlyItself(t *testing.T) {
	h := newFakeHistory(20)
	for range 12 {
		h.clock = h.clock.Add(time.Second)
		h.commit(1, 10, "")
	}
	for broken := range 4 {
		repo := boundRepo(t, simfs.New(), "/repo")
		for i := range 4 {
			o := putLog(t, repo, h, fakeTimeline, LogRange{block.LSN(3 * i), block.LSN(3*i + 3)})
			if i == broken {
				rewrite(t, repo, o.Name(), []byte("gone"))
			}
		}
		x, err := repo.newLogIndex(mustLogs(t, repo), ourLineage)
		if err != nil {
			t.Fatal(err)
		}
		for lsn := block.LSN(1); lsn <= 12; lsn++ {
			m, err := x.atTime(t.Context(), h.commits[lsn-1].at)
			if int(lsn-1)/3 == broken {
				if err == nil && m.At.LSN >= lsn {
					t.Fatalf("commit %v was found", m.At.LSN)
				}
				continue
			}
			if err != nil || m.At.LSN < lsn || !m.At.Time.Equal(h.commits[lsn-1].at) {
				t.Fatalf("object %d is damaged, commit %v: %+v, %v", broken, lsn, m, err)
			}
		}
		x.close()
	}
}
