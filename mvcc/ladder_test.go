package mvcc

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// rungsOf are the rungs that events told for whose snapshot has that owner, in order.
func rungsOf(s *Store, owner string) (list []string) {
	for _, ev := range s.Events(0) {
		if ev.Rung != "" && ev.Of.Owner == owner {
			list = append(list, string(ev.Rung))
		}
	}
	return list
}

// TestLadder_EachRungIsTold: a backup, and a reader, whose originals outgrow everything:
// each rung once, in order, with what is held and what comes next, and what comes next
// is what comes.
func TestLadder_EachRungIsTold(t *testing.T) {
	for owner, want := range map[string][]string{
		"backup": {"spill", "overflow", "fall-forward"}, "reader": {"spill", "overflow", "break"},
	} {
		t.Run(owner, func(t *testing.T) {
			g := newGuarded(t, func(o *Options) { o.Temp[0].BytesMax, o.OverflowMax = 1<<20, 1<<20 })
			var end func()
			if owner == "backup" {
				b := g.open(BackupOptions{Owner: owner})
				end = func() {
					if c := b.Cost(); c.OriginalsOverflowed == 0 || c.OriginalsSpilled == 0 {
						t.Errorf("%+v", c)
					}
					ok(t, b.Close())
				}
			} else {
				r, err := g.s.BeginSnapshot(SnapshotOptions{Owner: owner})
				ok(t, err)
				end = r.Close
			}
			for range 2 {
				g.change(2000)
			}
			sameStrings(t, owner, rungsOf(g.s, owner), want...)
			next := Rung("")
			for _, ev := range g.s.Events(0) {
				switch {
				case ev.Rung == "":
					continue
				case ev.Why == "":
					t.Errorf("without a reason: %+v", ev)
				case next != "" && next != ev.Rung:
					t.Errorf("%s where %s was to come next", ev.Rung, next)
				case ev.Kind == EventRung && ev.Bytes <= 0:
					t.Errorf("nothing is held: %+v", ev)
				}
				next = ev.Next
			}
			end()
			mustClose(t, g.s)
		})
	}
}

// TestLadder_RungsAreOptions: without temporary storage, without overflow, and with a
// backup that aborts, these rungs are not on the way.
func TestLadder_RungsAreOptions(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*Options)
		abort bool
		want  []string
	}{
		"no temporary storage": {func(o *Options) { o.Temp, o.OverflowMax = []TempDir{}, 1<<20 }, false, []string{"overflow", "fall-forward"}},
		"no overflow":          {func(o *Options) { o.Temp[0].BytesMax, o.OverflowMax = 1<<20, -1 }, false, []string{"spill", "fall-forward"}},
		"abort":                {func(o *Options) { o.Temp[0].BytesMax, o.OverflowMax = 1<<20, 1<<20 }, true, []string{"spill", "overflow", "break"}},
		"nothing":              {func(o *Options) { o.Temp, o.OverflowMax = []TempDir{}, -1 }, true, []string{"break"}},
		"unbounded":            {func(o *Options) { o.Temp, o.OverflowMax = []TempDir{}, OverflowUnbounded }, true, []string{"overflow"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuarded(t, c.set)
			o := BackupOptions{Owner: "b"}
			if c.abort {
				o.OnExhaustion = ExhaustionAbort
			}
			b := g.open(o)
			for range 2 {
				g.change(2000)
			}
			g.s.noteRungs()
			sameStrings(t, name, rungsOf(g.s, "b"), c.want...)
			ok(t, b.Close())
			mustClose(t, g.s)
		})
	}
}

// TestLadder_WritersArePaced: only where that was asked for; each commit by no more than
// it may be, and all of it counted and told.
func TestLadder_WritersArePaced(t *testing.T) {
	for _, most := range []time.Duration{0, 20 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			g := newGuarded(t, func(o *Options) {
				o.Temp[0].BytesMax, o.OverflowMax = 8<<20, -1
				o.WriterDelayMax, o.WriterDelayShare = most, 0.25
			})
			r, err := g.s.BeginSnapshot(SnapshotOptions{Owner: "r"})
			ok(t, err)
			longest := time.Duration(0)
			for i := range 40 {
				began := time.Now()
				g.change(20) // one commit of the same blocks
				longest = max(longest, time.Since(began))
				for _, id := range g.ids[i*45:][:45] {
					set(t, g.s, id, 9)
				}
				time.Sleep(200 * time.Millisecond)
			}
			st := g.s.Status()
			told := rungsOf(g.s, "")
			if most == 0 {
				if st.PacedWaits != 0 || longest > 0 || len(told) != 0 {
					t.Errorf("%d commits were held up, one for %v", st.PacedWaits, longest)
				}
			} else {
				if st.PacedWaits == 0 || longest == 0 || longest > most || st.PacedTime > time.Duration(st.PacedWaits)*most || st.PacedTime < longest {
					t.Errorf("%d commits were held up for %v, one for %v", st.PacedWaits, st.PacedTime, longest)
				}
				sameStrings(t, "told", told, "pace-writers")
			}
			r.Close()
			time.Sleep(time.Second)
			if g.s.ladder.delay.Load() != 0 {
				t.Error("commits are held up for nobody")
			}
			mustClose(t, g.s)
		})
	}
}

// TestLadder_ScanIsPaced: a scan rests no more while its backup holds more than its
// share, and does again at half of that.
func TestLadder_ScanIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, func(o *Options) { o.OverflowMax = -1 })
		b := g.open(BackupOptions{Owner: "b", HurryShare: 0.1})
		time.Sleep(time.Second)
		if b.hurry.Load() {
			t.Fatal("it hurries for nothing")
		}
		g.change(1000)
		time.Sleep(time.Second)
		if !b.hurry.Load() {
			t.Fatalf("it rests with %d bytes held", b.Cost().HeldBytes)
		}
		sameStrings(t, "told", rungsOf(g.s, "b"), "spill", "pace-scan")
		p := &backupPull{b: b, images: map[block.ID][]byte{}}
		ok(t, p.rest(t))
		time.Sleep(time.Second)
		if b.hurry.Load() {
			t.Fatal("it still hurries")
		}
		ok(t, b.Close())
		mustClose(t, g.s)
	})
}
