package mvcc

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/blindfuzz"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// handClock is a clock that a test moves.
type handClock struct{ unixNano atomic.Int64 }

func newHandClock() *handClock {
	c := &handClock{}
	c.unixNano.Store(time.Unix(946_684_800, 0).UnixNano()) // Saturday, midnight
	return c
}

func (c *handClock) now() time.Time { return time.Unix(0, c.unixNano.Load()) }

// pass lets time pass, as a store sees it.
func (c *handClock) pass(s *Store, d time.Duration) {
	for end := c.now().Add(d); c.now().Before(end); {
		c.unixNano.Add(int64(min(end.Sub(c.now()), tickEvery)))
		s.tickChanges(c.now())
	}
}

// versionsNow is which version every versioned block that is in use has.
func versionsNow(t *testing.T, s *Store) map[block.ID]block.LSN {
	t.Helper()
	r, err := s.BeginRead()
	ok(t, err)
	defer r.Close()
	list := map[block.ID]block.LSN{}
	see := func(id block.ID) {
		b, err := r.Block(id)
		ok(t, err)
		list[id] = b.v.LSN
		b.Release()
	}
	see(metaBlock)
	for group := range s.geo.groups(r.meta.highWater) {
		see(s.geo.bitmapOf(group))
		b, err := r.Block(s.geo.bitmapOf(group))
		ok(t, err)
		var ids []block.ID
		s.geo.eachInUse(group, b.Payload(), func(id block.ID) { ids = append(ids, id) })
		b.Release()
		for _, id := range ids {
			see(id)
		}
	}
	return list
}

// changedSince is how many blocks of a state another one does not have as they were.
func changedSince(was, now map[block.ID]block.LSN) (n float64) {
	for id, lsn := range was {
		if now[id] != lsn {
			n++
		}
	}
	return n
}

// TestChanges_Lately: what was done within the last 10 to 20 s, whatever was before.
func TestChanges_Lately(t *testing.T) {
	clock, o := newHandClock(), smallOptions(simfs.New())
	o.changesClock = clock.now
	s, id := oneBlock(t, o)
	defer s.Close()
	clock.pass(s, 30*time.Second) // until what made it is over
	if l := s.Changes().Lately; l.Overwrites != 0 || l.RedoBytes != 0 {
		t.Errorf("nothing was changed: %+v", l)
	}
	for second := range 100 {
		n := 1
		if second >= 60 {
			n = 4
		}
		for range n {
			set(t, s, id, byte(second))
		}
		clock.pass(s, time.Second)
		l := s.Changes().Lately
		if l.Seconds < 10 || l.Seconds > 20.2 {
			t.Fatalf("after %d s: of %v s", second+1, l.Seconds)
		}
		if second >= 20 && second < 60 && l.Overwrites != 1 || second >= 80 && l.Overwrites != 4 || l.RedoBytes < l.Overwrites {
			t.Fatalf("after %d s: %+v", second+1, l)
		}
	}
}

// TestChanges_EachBlockOnce: what a window counts is what changed between its ends,
// each block once, whatever is allocated, changed and freed meanwhile.
func TestChanges_EachBlockOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(chance.Seed(t), 1))
	clock, o := newHandClock(), smallOptions(simfs.New())
	o.changesClock = clock.now
	s := mustOpen(t, o)
	m := newModel()
	var at [changeWindows]map[block.ID]block.LSN
	for i := range at {
		at[i] = versionsNow(t, s)
	}
	tenths := 0
	for range 400 { // a good hour
		w, err := begin(t, s, m, rng)
		ok(t, err)
		ok(t, w.some(1+rng.IntN(8), 60))
		_, err = w.commit(m)
		ok(t, err)
		c, now := s.Changes(), versionsNow(t, s)
		for i, r := range c.Running {
			if want := changedSince(at[i], now); r.Distinct != want {
				t.Fatalf("after %d0 s the window of %v has %v blocks, want %v", tenths, windowLengths[i], r.Distinct, want)
			}
		}
		clock.pass(s, 10*time.Second)
		tenths++
		for i := range at {
			if tenths%int(windowLengths[i]/(10*time.Second)) == 0 {
				at[i] = now
			}
		}
	}
	ok(t, s.Close())
}

// load commits so many changes of blocks that are there every 10 s.
func load(t *testing.T, s *Store, clock *handClock, ids []block.ID, n int, seconds int) {
	t.Helper()
	for range seconds / 10 {
		tx, err := s.BeginWrite()
		ok(t, err)
		for i := range n {
			b, err := tx.Edit(ids[i])
			ok(t, err)
			b.Payload()[0]++
			b.Release()
		}
		_, err = tx.Commit()
		ok(t, err)
		clock.pass(s, 10*time.Second)
	}
}

func blocksToChange(t *testing.T, s *Store, n int) (ids []block.ID) {
	t.Helper()
	tx, err := s.BeginWrite()
	ok(t, err)
	for range n {
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		ids = append(ids, b.ID())
		b.Release()
	}
	_, err = tx.Commit()
	ok(t, err)
	return ids
}

// TestChanges_ByTheHour: averages of an hour, the week's hour after it, and what is
// kept of them when the store is closed, crashes, or is opened to be read.
func TestChanges_ByTheHour(t *testing.T) {
	fsys, clock := simfs.New(), newHandClock()
	o := smallOptions(fsys)
	o.changesClock = clock.now
	s := mustOpen(t, o)
	ids := blocksToChange(t, s, 40)
	clock.pass(s, time.Hour)
	load(t, s, clock, ids, 12, 3600)
	hour := HourOfWeek(clock.now()) - 1
	check := func(c Changes, what string) {
		t.Helper()
		h := c.Week[hour]
		if h.Weeks != 1 || math.Abs(h.Overwrites-12*360)/4320 > 0.02 || math.Abs(h.Commits-360)/360 > 0.02 || h.RedoBytes < 1000 {
			t.Fatalf("%s: %+v", what, h)
		}
		for i, d := range h.Distinct {
			if i >= weekFrom && math.Abs(d-12) > 0.1 {
				t.Fatalf("%s: %v blocks within %v", what, d, windowLengths[i])
			}
		}
		if !slices.ContainsFunc(c.Recent, func(h ChangeHour) bool { return h.Seconds > 3590 && math.Abs(h.Distinct[0]-12) < 0.1 }) {
			t.Fatalf("%s: %+v", what, c.Recent)
		}
	}
	check(s.Changes(), "open")
	running := s.Changes().Running[4]
	ok(t, s.Close())

	o.ReadOnly = true
	before, err := fsys.Bytes(testDir + "/data")
	ok(t, err)
	s = mustOpen(t, o)
	check(s.Changes(), "read-only")
	clock.pass(s, 90*time.Minute)
	ok(t, s.Close())
	if after, err := fsys.Bytes(testDir + "/data"); err != nil || !reflect.DeepEqual(before, after) {
		t.Fatal("a read-only store wrote", err)
	}

	o.ReadOnly = false
	s = mustOpen(t, o)
	check(s.Changes(), "reopened")
	if got := s.Changes().Running[5]; got.Distinct < running.Distinct || got.Within < 3*time.Hour+30*time.Minute {
		t.Fatalf("the window of four hours began anew: %+v", got)
	}
	clock.pass(s, 2*time.Hour) // the hour that nobody changed anything in is remembered without a commit
	if c := s.Changes(); c.Week[HourOfWeek(clock.now())-1].Weeks != 1 {
		t.Fatalf("an idle hour was not seen: %+v", c.Recent)
	}
	ok(t, s.cleaner.awaitRound(s.cleaner.rounds()))
	disk := fsys.Crash(nil, simfs.DropAll)
	s.opts.CloseWait = -1
	ok(t, s.Close())
	o.FS = disk
	s = mustOpen(t, o)
	check(s.Changes(), "after a crash")
	if c := s.Changes(); c.Week[HourOfWeek(clock.now())-1].Weeks != 1 {
		t.Fatal("an idle hour was not saved")
	}
	ok(t, s.Close())
}

// TestChanges_OnlyWholeWindows: a window in which the clock was set, the process slept
// or the store was opened says nothing.
func TestChanges_OnlyWholeWindows(t *testing.T) {
	midnight := time.Unix(40*7*86400, 0)
	var h changeHistory
	begin := func(at time.Time) {
		h = changeHistory{hour: runningHour{hour: hourOf(at)}, at: at}
		h.reset()
		for i := range h.windows {
			h.windows[i].begun = at
		}
	}
	var c changeCounter
	c.distinct[1], c.overwrites = 7, 8
	for _, x := range []struct {
		begun, ended time.Duration
		seen         bool
	}{
		{0, time.Minute, true},
		{5 * time.Second, 64 * time.Second, true},
		{10 * time.Second, time.Minute, false},
		{0, 70 * time.Second, false},
		{0, 3 * time.Hour, false},
		{0, -time.Hour, false},
	} {
		begin(midnight.Add(x.begun))
		h.end(1, midnight.Add(x.ended), &c)
		if got := h.hour.distinct[1].value(); (math.Abs(got-7) < 0.01) != x.seen {
			t.Errorf("a minute seen from %v to %v counts as %v", x.begun, x.ended, got)
		}
	}
	begin(midnight)
	h.count(midnight.Add(3*time.Hour), changeTotals{overwrites: 10})
	if h.hour.seen != seenMax {
		t.Errorf("three hours of sleep count as %v", h.hour.seen)
	}
}

// TestChanges_IdleWindowsDoNotCount: what is said of changes is not less because
// there were times without any.
func TestChanges_IdleWindowsDoNotCount(t *testing.T) {
	busy := ChangeWindow{Overwrites: 3000}
	busy.Distinct = busy.hits(1000)
	var m windowMean
	for i := range 10 {
		w := ChangeWindow{}
		if i == 5 {
			w = busy
		}
		m.add(w)
	}
	even := ChangeWindow{Overwrites: 300}
	if got, want := m.value(), even.hits(1000); math.Abs(got-want) > 0.01 {
		t.Fatalf("300 changes of 1000 blocks hit %v, want %v", got, want)
	}
	if p := (ChangeWindow{Overwrites: 300, Distinct: 300}).Population(5000); p != 5000 {
		t.Fatalf("changes that hit no block twice are of %v blocks", p)
	}
	if p := (ChangeWindow{}).Population(5000); p != 5000 {
		t.Fatalf("no changes are of %v blocks", p)
	}
}

func TestHourOfWeek(t *testing.T) {
	for text, want := range map[string]int{
		"1970-01-01T00:00:00Z": 4 * 24, "2024-03-03T00:30:00Z": 0, "2024-03-02T23:59:59Z": 167,
		"2024-03-03T01:30:00+02:00": 6*24 + 23, "1969-12-28T00:00:00Z": 0,
	} {
		at, err := time.Parse(time.RFC3339, text)
		ok(t, err)
		if got := HourOfWeek(at); got != want {
			t.Errorf("%s is hour %d of the week, want %d", text, got, want)
		}
	}
}

func goldenChanges() *savedChanges {
	c := &savedChanges{sequence: 0x0304, at: time.Unix(0, 0x0506), hour: 0x0708}
	for i := range c.windows {
		n := uint64(i)
		c.windows[i] = savedWindow{block.LSN(0x10 + n), time.Unix(int64(0x20+n), 0), 0x30 + n, 0x40 + n}
	}
	for i := range 2 {
		c.recent = append(c.recent, ChangeHour{Seconds: float64(100 + i), Distinct: nothingSeen, Overwrites: 1, RedoBytes: 0, Commits: 1 << 20})
	}
	c.recent[1].Distinct = [hourWindows]float64{1, 2, 4, 8, 16}
	for i := range c.week {
		c.week[i] = ChangeHour{Distinct: nothingSeen}
	}
	c.week[167] = ChangeHour{Weeks: 3, Distinct: [hourWindows]float64{unseen, 2, 4, 8, 16}, Overwrites: 32, RedoBytes: 64, Commits: 128}
	for i := range c.four {
		c.four[i] = ChangeWindow{4 * time.Hour, unseen, 0}
	}
	c.four[1] = ChangeWindow{4 * time.Hour, 256, 512}
	for i := range c.days {
		c.days[i] = ChangeWindow{24 * time.Hour, unseen, 0}
	}
	c.days[6] = ChangeWindow{24 * time.Hour, 1024, 2048}
	return c
}

// TestGolden_Changes: the bytes, the way back, and that no bit may be wrong.
func TestGolden_Changes(t *testing.T) {
	c := goldenChanges()
	b := c.encode(numbered(0x10))
	golden(t, "changes.hex", b)
	if back := decodeChanges(b, numbered(0x10)); !reflect.DeepEqual(back, c) {
		t.Fatalf("%+v\nwant %+v", back, c)
	}
	if decodeChanges(b, numbered(0x11)) != nil {
		t.Fatal("another database's history is taken for ours")
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if decodeChanges(b, numbered(0x10)) != nil {
			t.Fatalf("bit %d is not missed", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

// FuzzChanges: whatever is behind a superblock, the store opens, and what it then
// says of changes are numbers that make sense.
func FuzzChanges(f *testing.F) {
	f.Add(goldenChanges().encode(numbered(0x10)))
	f.Add([]byte{})
	running := goldenChanges() // windows that are not over
	for i := range running.windows {
		running.windows[i].begun = time.Unix(1_700_000_000, 0)
	}
	f.Add(running.encode(numbered(0x10)))
	start := goldenChanges().encode(numbered(0x10))[:12]
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, b []byte) {
		if len(b) >= changesSize {
			copy(b, start)
			c := block.Checksum(block.SeedOf(numbered(0x10)), b[:changesSize-4])
			b[changesSize-4], b[changesSize-3], b[changesSize-2], b[changesSize-1] = byte(c), byte(c>>8), byte(c>>16), byte(c>>24)
		}
		c := decodeChanges(b, numbered(0x10))
		if c == nil {
			return
		}
		var h changeHistory
		h.reset()
		var counter changeCounter
		now := time.Unix(1_700_000_000, 0)
		h.hour.hour = hourOf(now)
		for i := range h.windows {
			h.windows[i].begun = now
			counter.begin(i, 1000)
		}
		c.restore(&h, &counter, now, 1000)
		for i := range counter.starts {
			if counter.starts[i] > 1000 || i > 0 && counter.starts[i] > counter.starts[i-1] {
				t.Fatalf("windows begin at %v", counter.starts)
			}
		}
		if len(h.recent) >= changeHours {
			t.Fatalf("%d hours", len(h.recent))
		}
		for _, a := range append(h.recent, h.week[:]...) {
			if !(a.Overwrites >= 0 && a.RedoBytes >= 0 && a.Commits >= 0) || math.IsInf(a.Overwrites+a.RedoBytes+a.Commits, 0) {
				t.Fatalf("%+v", a)
			}
		}
	}))
}

func TestShortNumbers(t *testing.T) {
	rng := rand.New(rand.NewPCG(chance.Seed(t), 2))
	for range 10000 {
		v := math.Exp2(-7.99 + 63.98*rng.Float64())
		if got := fromShort(shortOf(v)); math.Abs(got-v) > v/1000 {
			t.Fatalf("%v becomes %v", v, got)
		}
	}
	for v, want := range map[float64]float64{0: 0, -3: unseen, math.NaN(): unseen, 1: 1, math.Inf(1): fromShort(shortUnseen - 1), 1e-9: fromShort(1)} {
		if got := fromShort(shortOf(v)); got != want {
			t.Errorf("%v becomes %v", v, got)
		}
	}
}

// TestChanges_FitIntoAFrame: the longest that a store can say fits into a reply of
// the admin socket, which may have 64 KiB.
func TestChanges_FitIntoAFrame(t *testing.T) {
	long := 123456789012.34567
	hour := ChangeHour{Weeks: 255, Seconds: 3599.123456789, Overwrites: long, RedoBytes: long * 1e3, Commits: long}
	for i := range hour.Distinct {
		hour.Distinct[i] = long
	}
	c := Changes{At: time.Unix(1_700_000_000, 123456789)}
	for range changeHours {
		c.Recent = append(c.Recent, hour)
	}
	for i := range c.Week {
		c.Week[i] = hour
	}
	for i := range c.FourHours {
		c.FourHours[i] = ChangeWindow{4 * time.Hour, long, long}
	}
	c.round()
	b, err := json.Marshal(c)
	ok(t, err)
	if len(b) > 60<<10 {
		t.Fatalf("%d bytes", len(b))
	}
}
