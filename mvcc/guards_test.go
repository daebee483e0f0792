package mvcc

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// guarded is a store with many blocks, a host whose readings a test sets, and little
// temporary storage.
type guarded struct {
	t         *testing.T
	s         *Store
	available atomic.Int64 // bytes of memory that the host can give
	stalled   atomic.Int64 // percent of the time
	ids       []block.ID
	value     byte
}

func newGuarded(t *testing.T, set func(*Options)) *guarded {
	g := &guarded{t: t}
	g.available.Store(1 << 39)
	o := smallOptions(simfs.New())
	o.Temp[0].BytesMax = 16 << 20
	o.host = func() (blockcache.HostMemory, error) {
		return blockcache.HostMemory{Limit: 1 << 40, Available: g.available.Load()}, nil
	}
	o.stall = func() (float64, error) { return float64(g.stalled.Load()), nil }
	if set != nil {
		set(&o)
	}
	g.s = mustOpen(t, o)
	for range 100 {
		tx, err := g.s.BeginWrite()
		ok(t, err)
		for range 20 {
			b, err := tx.Alloc(block.TypeLeaf)
			ok(t, err)
			g.ids = append(g.ids, b.ID())
			b.Release()
		}
		_, err = tx.Commit()
		ok(t, err)
	}
	return g
}

// change changes the first n blocks, a few in each commit.
func (g *guarded) change(n int) {
	g.t.Helper()
	g.value++
	for at := 0; at < n; at += 20 {
		tx, err := g.s.BeginWrite()
		ok(g.t, err)
		for _, id := range g.ids[at:min(at+20, n)] {
			b, err := tx.Edit(id)
			ok(g.t, err)
			b.Payload()[0] = g.value
			b.Release()
		}
		_, err = tx.Commit()
		ok(g.t, err)
	}
}

func (g *guarded) open(o BackupOptions) *Backup {
	g.t.Helper()
	b, err := g.s.OpenBackup(g.t.Context(), o)
	ok(g.t, err)
	return b
}

// TestGuards_EachEndsItsBackup: within a second of the reading that is too much, with a
// typed reason, an event, and a margin that tells of it; a backup beside it that has no
// guard goes on, and so does the store.
func TestGuards_EachEndsItsBackup(t *testing.T) {
	cases := map[Guard]struct {
		guards Guards
		cross  func(*guarded)
	}{
		GuardHeld:       {Guards{HeldMax: 1 << 20, TempShareMax: 1}, func(g *guarded) { g.change(500) }},
		GuardTempShare:  {Guards{TempShareMax: 0.25, HeldMax: 1 << 40}, func(g *guarded) { g.change(2000) }},
		GuardHostMemory: {Guards{HostMemoryMin: 1 << 38, PressureMax: 5}, func(g *guarded) { g.available.Store(1<<38 - 1) }},
		GuardPressure:   {Guards{PressureMax: 5, HostMemoryMin: 1}, func(g *guarded) { g.stalled.Store(6) }},
	}
	for guard, c := range cases {
		t.Run(string(guard), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGuarded(t, nil)
				other := g.open(BackupOptions{Owner: "other"})
				b := g.open(BackupOptions{Owner: "o", Label: "l", Guards: c.guards})
				time.Sleep(time.Second)
				ok(t, b.live.Err())
				c.cross(g)
				time.Sleep(time.Second)
				var err *GuardError
				if e := b.live.Err(); !errors.As(e, &err) || !errors.Is(e, ErrBroken) || err.Guard != guard || !guard.Beyond(err.Reading, err.Limit) {
					t.Fatalf("the backup ended with %v", e)
				}
				list := eventsOf(g.s, EventGuard)
				if len(list) != 1 || *list[0].Guard != *err || list[0].Of.Owner != "o" || list[0].Of.Label != "l" {
					t.Fatalf("events %+v", list)
				}
				for _, m := range b.Cost().Margins {
					if m.Guard == guard && !guard.Beyond(m.Closest, m.Limit) || m.Guard != guard && m.Guard.Beyond(m.Closest, m.Limit) {
						t.Errorf("margin %+v", m)
					}
				}
				if len(b.Cost().Margins) != 2 {
					t.Errorf("margins %+v", b.Cost().Margins)
				}
				g.change(20)
				ok(t, other.live.Err())
				ok(t, other.Close())
				ok(t, b.Close())
				if n := g.s.snapshots.Len(); n != 0 {
					t.Errorf("%d originals are left", n)
				}
				mustClose(t, g.s)
			})
		})
	}
}

// TestT16_GuardsDoNotSwing: after a guard has ended a backup, none that has it begins
// before its reading is back by a tenth; none begins that it would end at once; one
// without it may.
func TestT16_GuardsDoNotSwing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, nil)
		const least = 1 << 38
		with := BackupOptions{Guards: Guards{HostMemoryMin: least}}
		refused := func(available int64) {
			t.Helper()
			g.available.Store(available)
			time.Sleep(time.Second)
			if _, err := g.s.OpenBackup(t.Context(), with); !errors.Is(err, ErrGuard) {
				t.Fatalf("with %d bytes: %v", available, err)
			}
		}
		begins := func(available int64) {
			t.Helper()
			g.available.Store(available)
			time.Sleep(time.Second)
			ok(t, g.open(with).Close())
		}
		begins(least)
		refused(least - 1) // at once
		begins(least)
		b := g.open(with)
		g.available.Store(least - 1)
		time.Sleep(time.Second)
		if !errors.Is(b.live.Err(), ErrGuard) {
			t.Fatalf("%v", b.live.Err())
		}
		ok(t, b.Close())
		refused(least)
		refused(least * 109 / 100)
		ok(t, g.open(BackupOptions{}).Close())
		begins(least * 111 / 100)
		begins(least)

		with = BackupOptions{Guards: Guards{PressureMax: 50}} // one that must not be passed from below
		pressed := g.open(with)
		g.stalled.Store(51)
		time.Sleep(time.Second)
		if !errors.Is(pressed.live.Err(), ErrGuard) {
			t.Fatalf("%v", pressed.live.Err())
		}
		ok(t, pressed.Close())
		for _, percent := range []int64{50, 46} {
			g.stalled.Store(percent)
			refused(least)
		}
		g.stalled.Store(44)
		begins(least)
		g.stalled.Store(50)
		begins(least)
		mustClose(t, g.s)
	})
}

// TestEmergency_NoNewBackup: while the host is under its floor, with the reason; what
// runs already goes on.
func TestEmergency_NoNewBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, func(o *Options) { o.HostFloor = 1 << 30 })
		b := g.open(BackupOptions{})
		g.available.Store(1<<30 - 1)
		time.Sleep(time.Second)
		var e *EmergencyError
		if _, err := g.s.OpenBackup(t.Context(), BackupOptions{}); !errors.As(err, &e) || !errors.Is(err, ErrEmergency) || e.Reason == "" {
			t.Fatalf("%v", err)
		}
		ok(t, b.live.Err())
		g.available.Store(1 << 30)
		time.Sleep(time.Second)
		ok(t, g.open(BackupOptions{}).Close())
		if _, err := g.s.OpenBackup(t.Context(), BackupOptions{Rescue: true}); !errors.Is(err, ErrOptions) {
			t.Fatalf("a rescue of a store that is well: %v", err)
		}
		ok(t, b.Close())
		mustClose(t, g.s)
	})
}

// TestL8_RescueIsExact: of a store that was poisoned by each of its files, at the last
// commit that was durable, restored and compared; nothing above is handed out (R6).
func TestL8_RescueIsExact(t *testing.T) {
	faults := map[string]simfs.Fault{
		"log sync":          {Ops: simfs.OpSync, File: filesLog},
		"log write":         {Ops: simfs.OpWrite, File: filesLog},
		"data write":        {Ops: simfs.OpWrite, File: fileData, Short: true},
		"data sync":         {Ops: simfs.OpSync, File: fileData, Sync: simfs.SyncCacheNew},
		"second copy":       {Ops: simfs.OpWrite, File: fileSecond},
		"second copy, sync": {Ops: simfs.OpSync, File: fileSecond},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			fsys := simfs.New()
			ok(t, fsys.Mkdir(testDir, 0o700))
			ok(t, fsys.SyncDir("/"))
			c := &crashRun{t: t, o: smallOptions(fsys), m: newModel(), rng: rand.New(rand.NewPCG(chance.Seed(t), 9))}
			c.s = mustOpen(t, c.o)
			ok(t, c.commits(10, 10, 60))
			ok(t, c.checkpoint())
			ok(t, c.commits(5, 10, 60))
			v := c.m.newest()
			armed := fsys.Fail(fault)
			err := c.commit(5, 60)
			if c.s.state.failure() == nil {
				ok(t, err)
				v = c.m.newest()
				_ = c.checkpoint()
			}
			if armed.Fired() == 0 || c.s.state.failure() == nil {
				t.Fatalf("fired %d times, the store: %v", armed.Fired(), c.s.state.failure())
			}
			if _, err := c.s.OpenBackup(t.Context(), BackupOptions{}); !errors.Is(err, ErrEmergency) {
				t.Fatalf("a backup that is no rescue: %v", err)
			}
			b, err := c.s.OpenBackup(t.Context(), BackupOptions{Rescue: true})
			ok(t, err)
			p := &backupPull{b: b, images: map[block.ID][]byte{}}
			if got := b.Info().LSN; got != v || got != c.s.log.Durable() {
				t.Fatalf("the rescue is of LSN %v, durable is %v", got, v)
			}
			ok(t, p.rest(t))
			c.m.cutTo(v)
			p.restore(t, c.m)
			ok(t, b.Close())
			_ = c.s.Close()
		})
	}
}

// TestL8_RescueNeverTakesWhatASyncLost: where the system forgets what it could not
// write, and shows what was there before, sound in itself: neither a reader nor a rescue
// takes that for the newest version.
func TestL8_RescueNeverTakesWhatASyncLost(t *testing.T) {
	g := newGuarded(t, nil)
	ok(t, g.s.cleaner.awaitRound(g.s.cleaner.rounds()))
	g.s.cleaner.turn.Lock() // no round of its own in between
	g.change(20)
	g.s.opts.FS.(*simfs.FS).Fail(simfs.Fault{Ops: simfs.OpSync, File: fileData, Sync: simfs.SyncCacheOld})
	g.s.cleaner.turn.Unlock()
	if err := g.s.cleaner.awaitRound(g.s.cleaner.rounds()); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("%v", err)
	}
	r := beginRead(t, g.s)
	lost := 0
	for _, id := range g.ids[:20] {
		l := g.s.cache.Latch(id)
		if h := l.Head(id); h != nil && !h.Dirty { // it leaves RAM, as a clean block may at any time
			l.Remove(h)
			g.s.cache.Kill(h)
		}
		l.Unlock()
		b, err := r.Block(id)
		switch {
		case errors.Is(err, block.ErrCorrupt):
			lost++
			continue
		case err != nil || b.Payload()[0] != g.value:
			t.Fatalf("block %v: %v", id, err)
		}
		b.Release()
	}
	r.Close()
	b, err := g.s.OpenBackup(t.Context(), BackupOptions{Rescue: true})
	ok(t, err)
	p := &backupPull{b: b, images: map[block.ID][]byte{}}
	err = p.rest(t)
	t.Logf("%d reads found a block lost; the rescue: %v", lost, err)
	if lost == 0 || !errors.Is(err, block.ErrCorrupt) {
		t.Fatal("a rescue without what was lost")
	}
	ok(t, b.Close())
	_ = g.s.Close()
}

// TestRelease_ByNumber: a backup, a reader with a name beside one at the same commit that
// goes on, readers without a name; each use of it says so, and what it held goes.
func TestRelease_ByNumber(t *testing.T) {
	g := newGuarded(t, nil)
	b := g.open(BackupOptions{})
	named := func(owner string) *ReadTx {
		r, err := g.s.BeginSnapshot(SnapshotOptions{Owner: owner})
		ok(t, err)
		return r
	}
	one, two := named("one"), named("two")
	g.change(40)
	nobody := beginRead(t, g.s)
	g.change(40)
	ids := map[string]uint64{}
	for _, st := range g.s.Status().Snapshots {
		ids[st.Kind+st.Owner] = st.ID
	}
	if err := g.s.Release(1 << 40); !errors.Is(err, ErrNoSnapshot) {
		t.Fatalf("%v", err)
	}
	released := func(err error) {
		t.Helper()
		var e *BrokenError
		if !errors.As(err, &e) || e.Reason != snapshot.ReasonReleased {
			t.Fatalf("%v", err)
		}
	}
	for _, who := range []string{"readerone", "backup", "reader"} {
		ok(t, g.s.Release(ids[who]))
		if err := g.s.Release(ids[who]); !errors.Is(err, ErrNoSnapshot) {
			t.Fatalf("%s again: %v", who, err)
		}
	}
	_, err := one.Block(g.ids[0])
	released(err)
	_, err = nobody.Block(g.ids[0])
	released(err)
	released(b.live.Err())
	r, err := two.Block(g.ids[0])
	ok(t, err)
	if r.Payload()[0] != 0 {
		t.Fatal("the one that was not released is wrong")
	}
	r.Release()
	if list := eventsOf(g.s, EventReleased); len(list) != 3 || list[0].Of.Owner != "one" || list[1].Of.Kind != "backup" {
		t.Fatalf("%+v", list)
	}
	for _, r := range []*ReadTx{one, two, nobody} {
		r.Close()
	}
	ok(t, b.Close())
	if n := g.s.snapshots.Len(); n != 0 {
		t.Errorf("%d originals are left", n)
	}
	mustClose(t, g.s)
}

// TestLease_Expires: by the store's age for all, by a reader's own for it alone.
func TestLease_Expires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuarded(t, func(o *Options) { o.ReadAgeMax = time.Minute })
		begin := func(o SnapshotOptions) *ReadTx {
			r, err := g.s.BeginSnapshot(o)
			ok(t, err)
			return r
		}
		short, all, long := begin(SnapshotOptions{AgeMax: 10 * time.Second}), begin(SnapshotOptions{Owner: "o"}), begin(SnapshotOptions{Owner: "p", AgeMax: time.Hour})
		g.change(20)
		plain := begin(SnapshotOptions{})
		g.change(20)
		expired := func(r *ReadTx) bool {
			var e *BrokenError
			err := r.reader.Err()
			return errors.As(err, &e) && e.Reason == snapshot.ReasonExpired
		}
		for _, want := range []struct {
			after                   time.Duration
			short, all, long, plain bool
		}{{9 * time.Second, false, false, false, false}, {2 * time.Second, true, false, false, false}, {50 * time.Second, true, true, false, true}, {time.Hour, true, true, true, true}} {
			time.Sleep(want.after)
			got := []bool{expired(short), expired(all), expired(long), expired(plain)}
			for i, w := range []bool{want.short, want.all, want.long, want.plain} {
				if got[i] != w {
					t.Fatalf("after %v more: %v, want %+v", want.after, got, want)
				}
			}
			if want.after == 50*time.Second { // the rest of an hour is long for a test
				break
			}
		}
		for _, r := range []*ReadTx{short, all, long, plain} {
			r.Close()
		}
		mustClose(t, g.s)
	})
}
