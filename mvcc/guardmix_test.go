package mvcc

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// mixed are the store's guards, in the order in which they are looked at, with limits
// and with what takes each beyond its own, and no other but those before it.
var mixed = []struct {
	guard Guard
	set   func(*Guards)
	cross func(*guarded)
}{
	{GuardHeld, func(g *Guards) { g.HeldMax = 1 << 20 }, func(g *guarded) { g.change(300) }},
	{GuardTempShare, func(g *Guards) { g.TempShareMax = 0.25 }, func(g *guarded) { g.change(2000) }},
	{GuardHostMemory, func(g *Guards) { g.HostMemoryMin = 1 << 38 }, func(g *guarded) { g.available.Store(1<<38 - 1) }},
	{GuardPressure, func(g *Guards) { g.PressureMax = 5 }, func(g *guarded) { g.stalled.Store(6) }},
}

// TestGuards_InCombination: every set of guards, and each of the things that they guard
// against alone, all at once, and none. A backup ends if and only if a guard of its own
// is beyond its limit, by one that is; two backups with different guards do not end each
// other; and after each round everything is as it was.
func TestGuards_InCombination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, nil)
		for set := range 1 << len(mixed) {
			for _, crossed := range []int{0, 1, 2, 4, 8, 15} {
				g.round(t, set, crossed)
			}
		}
		mustClose(t, g.s)
	})
}

// round has one backup with a set of guards, and one with all others, meet what is
// crossed.
func (g *guarded) round(t *testing.T, set, crossed int) {
	t.Helper()
	name := fmt.Sprintf("guards %04b, crossed %04b", set, crossed)
	beyond := crossed
	if crossed&2 != 0 {
		beyond |= 1 // what fills temporary storage is held
	}
	open := func(set int) (b *Backup, want []Guard) {
		var o BackupOptions
		for i, m := range mixed {
			if set&(1<<i) == 0 {
				continue
			}
			if m.set(&o.Guards); beyond&(1<<i) != 0 {
				want = append(want, m.guard)
			}
		}
		return g.open(o), want
	}
	a, wantA := open(set)
	b, wantB := open(15 &^ set)
	for i, m := range mixed {
		if crossed&(1<<i) != 0 {
			m.cross(g)
		}
	}
	time.Sleep(time.Second)
	for i, want := range [][]Guard{wantA, wantB} {
		live := []*Backup{a, b}[i]
		var e *GuardError
		switch err := live.live.Err(); {
		case want == nil && err != nil:
			t.Fatalf("%s: backup %d ended with %v", name, i, err)
		case want != nil && (!errors.As(err, &e) || !slices.Contains(want, e.Guard) || !e.Guard.Beyond(e.Reading, e.Limit)):
			t.Fatalf("%s: backup %d ended with %v, want one of %v", name, i, err, want)
		}
	}
	ok(t, a.Close())
	ok(t, b.Close())
	g.available.Store(1 << 39)
	g.stalled.Store(0)
	time.Sleep(time.Second)
	if n := g.s.snapshots.Len(); n != 0 {
		t.Fatalf("%s: %d originals are left", name, n)
	}
	ok(t, g.open(BackupOptions{Guards: Guards{1, 0.01, 1 << 38, 1}}).Close()) // nothing is beyond even the strictest
}

// TestGuards_AndTheLadder: a guard on temporary storage ends a backup whose originals
// fill that slowly, before it is full; one that a burst fills between two readings falls
// forward, and no guard ends it for what it gave up.
func TestGuards_AndTheLadder(t *testing.T) {
	for _, burst := range []bool{false, true} {
		t.Run(fmt.Sprintf("burst %v", burst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarded(t, func(o *Options) { o.Temp[0].BytesMax, o.OverflowMax = 1<<20, -1 })
				p := openForward(t, g.s, BackupOptions{Owner: "b", Guards: Guards{TempShareMax: 0.8}})
				for at := 0; at < 2000; at += 20 {
					tx, err := g.s.BeginWrite()
					ok(t, err)
					for _, id := range g.ids[at : at+20] {
						b, err := tx.Edit(id)
						ok(t, err)
						b.Payload()[0]++
						b.Release()
					}
					_, err = tx.Commit()
					ok(t, err)
					if !burst {
						time.Sleep(200 * time.Millisecond)
					}
				}
				time.Sleep(time.Second)
				rungs, err := rungsOf(g.s, "b"), p.b.live.Err()
				if burst {
					ok(t, err)
					if ok(t, p.rest(t)); p.fell == nil || !slices.Contains(rungs, string(RungFallForward)) {
						t.Fatalf("fell forward: %v, rungs %v", p.fell, rungs)
					}
				} else if !errors.Is(err, ErrGuard) || slices.Contains(rungs, string(RungFallForward)) {
					t.Fatalf("%v, rungs %v", err, rungs)
				}
				ok(t, p.b.Close())
				mustClose(t, g.s)
			})
		})
	}
}
