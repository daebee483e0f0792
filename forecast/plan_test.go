package forecast

import (
	"cmp"
	"math"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// week is a history in which the hours named are busy, and the others nearly idle.
func week(busy func(hour int) bool, perHour float64) mvcc.Changes {
	c := steady(noon, perHour, perHour*200, uniform(testBlocks))
	idle := steady(noon, perHour/1000, perHour/5, uniform(testBlocks))
	for h := range c.Week {
		if !busy(h) {
			c.Week[h] = idle.Week[h]
		}
	}
	if !busy(mvcc.HourOfWeek(noon)) {
		c.Recent = idle.Recent
	}
	return c
}

// TestPlan_QuietWindow: the best time to start is the first hour of a quiet time that
// is long enough for the backup; now, if nothing is clearly better.
func TestPlan_QuietWindow(t *testing.T) {
	night := func(h int) bool { return h%24 >= 2 && h%24 < 5 } // UTC, every day
	sunday := func(h int) bool { return h < 24 }
	for _, x := range []struct {
		name   string
		busy   func(int) bool
		within time.Duration
		want   string // day and time of the start
	}{
		{"all hours alike", func(int) bool { return true }, 168 * time.Hour, "Wed 12:20"},
		{"now is quiet", func(h int) bool { return night(h) }, 168 * time.Hour, "Wed 12:20"},
		{"the night is quiet", func(h int) bool { return !night(h) }, 168 * time.Hour, "Thu 02:00"},
		{"the night is too far away", func(h int) bool { return !night(h) }, 10 * time.Hour, "Wed 12:20"},
		{"Sunday is quiet", func(h int) bool { return !sunday(h) }, 168 * time.Hour, "Sun 00:00"},
		{"Sunday is too far away", func(h int) bool { return !sunday(h) }, 24 * time.Hour, "Wed 12:20"},
	} {
		in := input(5, uniform(testBlocks))
		in.Changes = week(x.busy, 2.5*testBlocks)
		best, known := Make(in).Within(x.within)
		if got := best.Start.Format("Mon 15:04"); !known || got != x.want {
			t.Errorf("%s: %s (%v), want %s", x.name, got, known, x.want)
		}
	}
	in := input(5, uniform(testBlocks))
	in.Changes.Week = mvcc.Changes{}.Week
	if _, known := Make(in).Within(168 * time.Hour); known || Make(in).Best != nil {
		t.Error("a best hour is named, and none was seen")
	}
}

// TestPlan_Rungs: what a peak means with so much room.
func TestPlan_Rungs(t *testing.T) {
	const db = testBlocks * testSize
	for _, x := range []struct {
		name  string
		room  Room
		redo  float64 // share of the sink's rate
		abort bool
		want  mvcc.Rung
		end   Verdict
	}{
		{"RAM is enough", Room{Cache: db * 6 / 10}, 0.1, false, mvcc.RungCache, Fits},
		{"it spills", Room{Cache: db / 10, Temporary: db / 2}, 0.1, false, mvcc.RungSpill, Fits},
		{"it overflows", Room{Cache: db / 10, Temporary: db / 10, Overflow: db / 2}, 0.1, false, mvcc.RungOverflow, Fits},
		{"temporary storage without a limit", Room{Cache: db / 10, Temporary: math.MaxInt64}, 0.1, false, mvcc.RungSpill, Fits},
		{"RAM below nothing", Room{Cache: -5, Temporary: db}, 0.1, false, mvcc.RungSpill, Fits},
		{"no room", Room{Cache: db / 10, Temporary: db / 10}, 0.1, false, mvcc.RungFallForward, FallsForward},
		{"no room, and it may not fall forward", Room{Cache: db / 10}, 0.1, true, mvcc.RungBreak, Breaks},
		{"no room, redo as fast as the sink", Room{Cache: db / 10}, 0.95, false, mvcc.RungBreak, Breaks},
	} {
		in := input(5, uniform(testBlocks))
		in.Room, in.Abort = x.room, x.abort
		in.Changes = steady(noon, 2.5*testBlocks, x.redo*in.Sink.StoredPerSecond*3600, uniform(testBlocks))
		f := Make(in).Now
		if f.Rung != x.want || f.Verdict != x.end || f.Fits != (x.end == Fits) || (f.FullAfter == 0) != f.Fits {
			t.Errorf("%s: %+v", x.name, f)
		}
		if x.end == FallsForward && f.Duration < 2*time.Hour {
			t.Errorf("%s: %v, sooner than without falling forward", x.name, f.Duration)
		}
		if f.TempNeeded > f.TempMax || f.TempNeeded != max(f.PeakOriginals-max(x.room.Cache, 0), 0) {
			t.Errorf("%s: %+v", x.name, f)
		}
	}
}

// TestPlan_Incremental: it hands out what changed since its base, and holds no more.
func TestPlan_Incremental(t *testing.T) {
	full := Make(input(5, uniform(testBlocks))).Now
	in := input(5, uniform(testBlocks))
	in.Since = 12 * time.Minute // half a change for each block
	f := Make(in).Now
	want := int64(uniform(testBlocks)(testBlocks/2) * testSize)
	if f.Bytes < want*97/100 || f.Bytes > want*103/100 || f.PeakMax != full.PeakMax || f.Duration >= full.Duration/2 || f.PeakOriginals >= full.PeakOriginals {
		t.Errorf("%+v, want %d bytes", f, want)
	}
}

// TestPlan_IncrementalThatWaits: one that begins later hands out what changes until then, too;
// it was forecast as if its base were taken later as well.
func TestPlan_IncrementalThatWaits(t *testing.T) {
	in := input(5, uniform(testBlocks))
	in.Since = 12 * time.Minute // half a change for each block
	p := Make(in)
	const until = 40 * time.Minute // 12:20 is now
	want := int64(uniform(testBlocks)(2.5*testBlocks*(in.Since+until).Hours()) * testSize)
	if f := in.at(p.h, in.Now.Add(until)); f.Bytes < want*97/100 || f.Bytes > want*103/100 || f.Bytes <= p.Now.Bytes || f.Duration <= p.Now.Duration {
		t.Errorf("%+v, want %d bytes, now %d", f, want, p.Now.Bytes)
	}
	full := Make(input(5, uniform(testBlocks))).Now
	if f := in.at(p.h, in.Now.Add(6*24*time.Hour)); f.Bytes > full.Bytes || f.Bytes < full.Bytes*99/100 {
		t.Errorf("%d bytes in six days, of %d", f.Bytes, full.Bytes)
	}
	in.Since = math.MaxInt64
	if f := in.at(p.h, in.Now.Add(until)); f.Bytes > full.Bytes || f.Bytes < full.Bytes*99/100 {
		t.Errorf("%d bytes since ever, of %d", f.Bytes, full.Bytes)
	}
}

// TestOutlook: of a backup that runs, with the same load, the same is said as of one
// that was planned; and less as it gets on.
func TestOutlook(t *testing.T) {
	in := input(5, uniform(testBlocks))
	st := mvcc.Status{BlockSize: testSize, AllocatedBlocks: testBlocks, Backups: []mvcc.BackupStatus{{
		ID: 7, Opened: noon, BlocksTotal: testBlocks, BytesPerSecond: int64(in.Sink.BlocksPerSecond),
	}}}
	room := Room{Cache: testBlocks * testSize / 4}
	in.Room = room
	planned := Make(in).Now
	o := Outlooks(&st, &in.Changes, room)[0]
	if o.ID != 7 || o.Verdict != planned.Verdict || (o.TimeToFull-planned.FullAfter).Abs() > time.Minute || (o.TimeLeft-2*time.Hour).Abs() > time.Minute {
		t.Errorf("%+v, planned %+v", o, planned)
	}
	for _, x := range []struct {
		status mvcc.BackupStatus
		want   Verdict
	}{
		{mvcc.BackupStatus{Next: mvcc.RungFallForward}, FallsForward},
		{mvcc.BackupStatus{Next: mvcc.RungBreak}, Breaks}, // it may not fall forward
		{mvcc.BackupStatus{FellForward: true}, Fits},      // it keeps no originals any more
		{mvcc.BackupStatus{BytesPerSecond: 1000}, Breaks}, // redo is written faster than it is taken
		{mvcc.BackupStatus{BytesPerSecond: 1000, FellForward: true}, NothingToSay},
	} {
		b := x.status
		b.Opened, b.BlocksTotal, b.BytesPerSecond = noon, testBlocks, cmp.Or(b.BytesPerSecond, st.Backups[0].BytesPerSecond)
		is := mvcc.Status{BlockSize: testSize, AllocatedBlocks: testBlocks, Backups: []mvcc.BackupStatus{b}}
		if o := Outlooks(&is, &in.Changes, room)[0]; o.Verdict != x.want || (o.TimeToFull != 0) != (x.want == FallsForward || x.want == Breaks) {
			t.Errorf("%+v: %+v, want %s", x.status, o, x.want)
		}
	}
	late := in.Changes
	late.At = noon.Add(100 * time.Minute)
	st.Backups[0].Blocks, st.Backups[0].HeldBytes = testBlocks*5/6, testBlocks*testSize/20
	if o := Outlooks(&st, &late, room)[0]; o.Verdict != Fits || o.TimeToFull != 0 || (o.TimeLeft-20*time.Minute).Abs() > time.Minute {
		t.Errorf("%+v", o)
	}
	st.Backups[0].BytesPerSecond = 0
	if o := Outlooks(&st, &late, room)[0]; o.Verdict != NothingToSay || o.TimeLeft != 0 {
		t.Errorf("%+v", o)
	}
}

// TestOutlook_Incremental: what changes while an incremental runs is mostly none of its
// blocks. It was forecast as if it were nothing else, and that there would be no room.
func TestOutlook_Incremental(t *testing.T) {
	in := input(5, uniform(testBlocks))
	in.Since = 12 * time.Minute // half a change for each block
	planned := Make(in).Now
	for share, want := range map[int64]Verdict{2: FallsForward, 1: Fits} { // of the peak that is planned, and a tenth more
		in.Room = Room{Cache: planned.PeakOriginals * 11 / 10 / share}
		p := Make(in).Now
		st := mvcc.Status{BlockSize: testSize, AllocatedBlocks: testBlocks, Backups: []mvcc.BackupStatus{{
			ID: 7, Base: 3, Opened: noon, BlocksTotal: uint64(planned.Bytes / testSize), BytesPerSecond: int64(in.Sink.BlocksPerSecond),
		}}}
		o := Outlooks(&st, &in.Changes, in.Room)[0]
		if p.Verdict != want || o.Verdict != want || (o.TimeToFull-p.FullAfter).Abs() > time.Minute || want == Fits && (o.TimeLeft-p.Duration).Abs() > time.Minute {
			t.Errorf("room of %d: %+v, planned %+v", in.Room.Cache, o, p)
		}
	}
}

// brief is a history of so many seconds of a load, in a database whose blocks were made
// within the hour: what its windows saw hit hardly any block, as those that are born in a
// window are not counted in it.
func brief(seconds, perHour, redo float64) mvcc.Changes {
	hour := mvcc.ChangeHour{Seconds: seconds, Overwrites: perHour, RedoBytes: redo, Commits: perHour, Distinct: [5]float64{10, -1, -1, -1, -1}}
	c := mvcc.Changes{At: noon, Recent: []mvcc.ChangeHour{hour}, Lately: mvcc.ChangeRate{Seconds: min(seconds, 15), Overwrites: perHour / 3600, RedoBytes: redo / 3600}}
	for i := range c.Running {
		c.Running[i] = mvcc.ChangeWindow{Within: time.Hour, Distinct: 5, Overwrites: perHour * seconds / 3600}
	}
	for i := range c.FourHours {
		c.FourHours[i].Distinct = -1
	}
	for i := range c.Days {
		c.Days[i].Distinct = -1
	}
	return c
}

// TestPlan_ShortHistoryPromisesNothing: after seconds nobody knows which blocks change. What
// is being written right now decides, as if it hit all blocks alike; after long enough
// the history does.
func TestPlan_ShortHistoryPromisesNothing(t *testing.T) {
	for _, x := range []struct {
		name         string
		seconds      float64
		redo         float64 // share of the sink's rate
		changes      float64 // of each block in the backup's time
		want, atRate Verdict
		short        bool
	}{
		{"nothing was seen", 0, 0, 0, NothingToSay, NothingToSay, true},
		{"one second", 1, 2, 5, NothingToSay, NothingToSay, true},
		{"too little to say, redo too fast", 5, 2, 5, NothingToSay, Breaks, true},
		{"redo too fast", 12, 2, 5, Breaks, Breaks, true},
		{"redo of half the sink's rate", 12, 0.5, 5, FallsForward, FallsForward, true},
		{"so little that it fits whatever it hits", 12, 0.001, 0.05, Fits, Fits, true},
		{"a twentieth of the backup's time", 361, 2, 5, Fits, Breaks, false}, // by its windows, which are not what they would be
	} {
		in := input(5, uniform(testBlocks))
		in.Room = Room{Cache: testBlocks * testSize / 10}
		in.Changes = brief(x.seconds, x.changes*testBlocks/2, x.redo*in.Sink.StoredPerSecond*3600)
		p := Make(in)
		if p.Now.Verdict != x.want || p.Now.Short != x.short || p.AtThisRate.Verdict != x.atRate || p.SeenLately.Seconds() != x.seconds {
			t.Errorf("%s: %+v; at this rate %v, seen %v", x.name, p.Now, p.AtThisRate.Verdict, p.SeenLately)
		}
		for _, h := range p.Hours {
			if x.short && h.Verdict == Fits && x.want != Fits {
				t.Errorf("%s: %s promises that it fits", x.name, h.Start)
				break
			}
		}
		if x.want == Breaks && p.Now.CanFallForward {
			t.Errorf("%s: it can fall forward", x.name)
		}
	}
}

// TestPlan_LoadThatHasJustBegun: of a load that the hours before do not show the plan warns.
func TestPlan_LoadThatHasJustBegun(t *testing.T) {
	in := input(5, uniform(testBlocks))
	in.Room = Room{Cache: testBlocks * testSize / 10}
	in.Changes = steady(noon, testBlocks/100, testBlocks, uniform(testBlocks))
	if p := Make(in); p.Now.Verdict != Fits || p.Now.Short || p.AtThisRate.Verdict != NothingToSay {
		t.Errorf("%+v, at this rate %v", p.Now, p.AtThisRate.Verdict)
	}
	in.Changes.Lately = mvcc.ChangeRate{Seconds: 12, Overwrites: 5 * testBlocks / 7200, RedoBytes: 2 * in.Sink.StoredPerSecond}
	if p := Make(in); p.Now.Verdict != Fits || p.AtThisRate.Verdict != Breaks || p.AtThisRate.FullAfter == 0 {
		t.Errorf("%+v, at this rate %+v", p.Now, p.AtThisRate)
	}
}

// TestOutlook_ShortHistory: nor does a backup that runs promise anything by it.
func TestOutlook_ShortHistory(t *testing.T) {
	in := input(5, uniform(testBlocks))
	changes := brief(12, 2.5*testBlocks, 2*in.Sink.StoredPerSecond*3600)
	st := mvcc.Status{BlockSize: testSize, AllocatedBlocks: testBlocks, Backups: []mvcc.BackupStatus{{
		ID: 7, Opened: noon, BlocksTotal: testBlocks, BytesPerSecond: int64(in.Sink.BlocksPerSecond),
	}}}
	if o := Outlooks(&st, &changes, Room{Cache: testBlocks * testSize / 10})[0]; o.Verdict != Breaks || o.TimeToFull == 0 {
		t.Errorf("%+v", o)
	}
}
