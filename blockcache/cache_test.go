package blockcache

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/spill"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const size = 4096

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func seeded(t testing.TB) *rand.Rand { return rand.New(rand.NewPCG(chance.Seed(t), 1)) }

// open makes a cache of so many frames' worth of MaxRAM, with temporary storage
// for tempBlocks.
func open(t testing.TB, frames, tempBlocks int64, set func(*Options)) *Cache {
	t.Helper()
	return openOn(t, simfs.New(), frames, tempBlocks, set)
}

func openOn(t testing.TB, fsys *simfs.FS, frames, tempBlocks int64, set func(*Options)) *Cache {
	t.Helper()
	ok(t, fsys.Mkdir("/temp", 0o700))
	so := spill.Options{BlockSize: size, FS: fsys}
	if tempBlocks > 0 {
		so.Dirs = []spill.Dir{{Path: "/temp", BytesMax: tempBlocks * size}}
	}
	sp, err := spill.Open(so)
	ok(t, err)
	o := Options{BlockSize: size, RAMBytesMax: frames * (size + descriptorBytes), Spill: sp}
	if set != nil {
		set(&o)
	}
	c, err := Open(o)
	ok(t, err)
	return c
}

// close ends a cache in which nothing may be left.
func closeEmpty(t testing.TB, c *Cache) {
	t.Helper()
	for class := ClassClean; class < classCount; class++ {
		if n := c.Frames(class); n != 0 {
			t.Errorf("%d frames of class %v are left", n, class)
		}
	}
	if st := c.Stats(); st.FramesInUse != 0 || st.Temporary.UsedBytes != 0 {
		t.Errorf("left: %+v", st)
	}
	ok(t, c.Close())
}

// use reads a block as the store does and reports whether it was in RAM.
func use(t testing.TB, c *Cache, id block.ID) (hit bool) {
	if v, _ := c.Live(id, ^block.LSN(0)); v != nil {
		c.Unpin(v)
		return true
	}
	d, err := c.NewFrame()
	ok(t, err)
	l := c.Latch(id)
	defer l.Unlock()
	v := &Version{ID: id, LSN: 1, InPlace: true}
	l.Insert(v)
	c.Adopt(v, d)
	c.Keep(v)
	return false
}

func dropHeads(c *Cache) {
	c.EachLatch(func(l *Latch) {
		var all []*Version
		l.Heads(func(v *Version) { all = append(all, v) })
		for _, v := range all {
			l.Remove(v)
			c.Kill(v)
		}
	})
}

// TestEviction_ScanResistance: a scan of the whole database does not wash out
// what is used again and again.
func TestEviction_ScanResistance(t *testing.T) {
	c := open(t, 2000, 0, nil)
	rng := seeded(t)
	const hot = 900
	for range 20 * hot {
		use(t, c, block.ID(rng.IntN(hot)))
	}
	for id := range block.ID(40000) {
		use(t, c, 10000+id)
		if id%20 == 0 { // the work goes on, a little
			use(t, c, block.ID(rng.IntN(hot)))
		}
	}
	hits := 0
	for id := range block.ID(hot) {
		if v, _ := c.Live(id, 9); v != nil {
			hits++
			c.Unpin(v)
		}
	}
	if hits < hot*85/100 {
		t.Errorf("a scan left %d of %d", hits, hot)
	}
	dropHeads(c)
	closeEmpty(t, c)
}

// TestEviction_PinnedHideNobody: however many pinned blocks there are in the
// small list, others are found.
func TestEviction_PinnedHideNobody(t *testing.T) {
	c := open(t, 400, 0, nil)
	var pinned []*Version
	for id := range block.ID(c.FramesMax()) {
		use(t, c, id)
		if id%2 == 0 {
			v, _ := c.Live(id, 9)
			pinned = append(pinned, v)
		}
	}
	for id := range block.ID(2000) {
		use(t, c, 10000+id)
		use(t, c, 10000+id) // used again: it goes to the main list
	}
	for _, v := range pinned {
		if v.data == nil || v.Role != RoleHead {
			t.Fatal("a pinned frame was taken")
		}
		c.Unpin(v)
	}
	if n := c.frameWaits.Load(); n != 0 {
		t.Errorf("%d waits, and half of the frames could go", n)
	}
	dropHeads(c)
	closeEmpty(t, c)
}

// original makes a version that a snapshot wants and that is in a frame only.
func original(t testing.TB, c *Cache, id block.ID, lsn block.LSN) *Version {
	t.Helper()
	v, err := c.NewVersion(id, block.TypeLeaf)
	ok(t, err)
	v.LSN, v.Until = lsn, lsn+1
	v.data[0], v.data[1] = byte(id), byte(lsn)
	l := c.Latch(id)
	defer l.Unlock()
	v.Role = RoleOriginal
	c.Reclass(v, ClassPrivate)
	c.Keep(v)
	return v
}

// image is a version's first two bytes, from wherever it is.
func imageOf(t testing.TB, c *Cache, v *Version) [2]byte {
	t.Helper()
	l := c.Latch(v.ID)
	if v.data != nil {
		defer l.Unlock()
		return [2]byte(v.data)
	}
	slot := v.slot
	l.Unlock()
	d, err := c.ReadSlot(slot, v.ID, v.LSN)
	ok(t, err)
	return [2]byte(d)
}

// TestLadder_OverflowOnlyWhenTemporaryIsFull: RAM, then temporary storage, then
// overflow, then the end of a snapshot, in this order.
func TestLadder_OverflowOnlyWhenTemporaryIsFull(t *testing.T) {
	const tempBlocks, overflow = 512, 40
	var held []*Version
	var c *Cache
	var exhausted int
	c = open(t, 400, tempBlocks, func(o *Options) {
		o.OverflowBytesMax = overflow * size
		o.Exhausted = func() bool {
			exhausted++
			c.follow()
			if used := c.opts.Spill.Stats().UsedBytes; used < tempBlocks*size*3/4 { // an eighth comes free before it is worth a write, and more meanwhile
				t.Errorf("a snapshot must end with %d of %d bytes of temporary storage in use", used, tempBlocks*size)
			}
			if over := c.Stats().FramesPeak - c.FramesMax(); over < overflow { // the spiller may have freed some since
				t.Errorf("a snapshot must end with at most %d frames of overflow in use", over)
			}
			for _, v := range held[:100] {
				l := c.Latch(v.ID)
				c.Kill(v)
				l.Unlock()
			}
			held = held[100:]
			return true
		}
	})
	for i := range 2000 {
		held = append(held, original(t, c, block.ID(i), 7))
		if over := c.Stats().FramesInUse - c.FramesMax(); over > 0 {
			if used := c.opts.Spill.Stats().UsedBytes; used < tempBlocks*size*9/10 && exhausted == 0 {
				t.Fatalf("%d frames of overflow with %d of %d bytes of temporary storage in use", over, used, tempBlocks*size)
			}
			if over > overflow+standingReserve {
				t.Fatalf("%d frames of overflow, limit %d", over, overflow)
			}
		}
	}
	if exhausted == 0 {
		t.Error("never exhausted")
	}
	for _, v := range held {
		if got := imageOf(t, c, v); got != [2]byte{byte(v.ID), 7} {
			t.Fatalf("block %v is %v", v.ID, got)
		}
		l := c.Latch(v.ID)
		c.Kill(v)
		l.Unlock()
	}
	awaitFree(t, c)
	closeEmpty(t, c)
}

// awaitFree waits for pins of the spiller to go.
func awaitFree(t testing.TB, c *Cache) {
	t.Helper()
	for range 60_000 {
		if st := c.Stats(); st.FramesInUse == 0 && st.Temporary.UsedBytes == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestL4_InPlaceLeavesFirst: an original that the data file still holds goes
// without I/O, before any is spilled, and takes nothing then.
func TestL4_InPlaceLeavesFirst(t *testing.T) {
	c := open(t, 400, 1000, nil)
	var all []*Version
	for i := range 1000 {
		v, err := c.NewVersion(block.ID(i), block.TypeLeaf)
		ok(t, err)
		v.LSN, v.Until, v.InPlace = 7, 8, true
		l := c.Latch(v.ID)
		v.Role = RoleOriginal
		c.Reclass(v, ClassPrivate)
		c.Keep(v)
		l.Unlock()
		all = append(all, v)
	}
	if n := c.Stats().Spilled; n != 0 {
		t.Errorf("%d were spilled", n)
	}
	for _, v := range all {
		l := c.Latch(v.ID)
		c.Kill(v)
		l.Unlock()
	}
	closeEmpty(t, c)
}

// TestClasses_Exact: whatever happens to versions, each class counts its frames.
func TestClasses_Exact(t *testing.T) {
	c := open(t, 600, 200, nil)
	rng := seeded(t)
	var all []*Version
	pins := map[*Version]int{}
	for range 6000 {
		if len(all) < 300 && rng.IntN(3) == 0 {
			v, err := c.NewVersion(block.ID(rng.Uint64()), block.TypeLeaf)
			ok(t, err)
			all = append(all, v)
		}
		if len(all) == 0 {
			continue
		}
		i := rng.IntN(len(all))
		v := all[i]
		l := c.Latch(v.ID)
		from := c.ClassOf(v)
		switch roll := rng.IntN(12); {
		case roll == 0:
			v.Pin()
			pins[v]++
		case roll < 3 && pins[v] > 0:
			pins[v]--
			c.Unpin(v)
		case v.Role == RolePrivate && roll < 6:
			l.Insert(v)
			v.Dirty = true
			c.Reclass(v, from)
		case v.Role == RoleHead && roll < 6:
			v.Dirty = false
			c.Reclass(v, from)
		case v.Role == RoleHead && roll < 9:
			l.Remove(v)
			v.Role = RolePending
			c.Reclass(v, from)
		case v.Role == RolePending && roll < 9:
			v.Role = RoleOriginal
		case roll == 11 && v.Role != RoleDead:
			if v.Role == RoleHead {
				l.Remove(v)
			}
			c.Kill(v)
		}
		if v.Role == RoleDead && pins[v] == 0 {
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
		}
		l.Unlock()
		want := [classCount]int64{}
		for _, v := range all {
			want[c.ClassOf(v)]++
		}
		for class := range classCount {
			if got := c.Frames(Class(class)); got != want[class] {
				t.Fatalf("%d frames of class %v, want %d", got, Class(class), want[class])
			}
		}
		if in := c.Stats().FramesInUse; in != int64(len(all)) {
			t.Fatalf("%d frames in use, want %d", in, len(all))
		}
	}
	endAll(c, all, pins)
	closeEmpty(t, c)
}

// endAll lets go of versions and of the pins on them.
func endAll(c *Cache, all []*Version, pins map[*Version]int) {
	for _, v := range all {
		for range pins[v] {
			c.Unpin(v)
		}
		if v.Role != RoleDead {
			if v.Role == RoleHead {
				c.Latch(v.ID).Remove(v)
				c.latchOf(v.ID).Unlock()
			}
			c.Kill(v)
		}
	}
}

// TestWaiters_NeverStuck: many ask for more than there is, and all get it in
// the end, whatever makes room: frames given back, originals spilled, pins that
// end.
func TestWaiters_NeverStuck(t *testing.T) {
	rng := seeded(t)
	for range 4 / slower {
		c := open(t, 400, 3000, nil)
		var group sync.WaitGroup
		var mu sync.Mutex
		var held []*Version
		var stuck atomic.Bool
		alarm := time.AfterFunc(5*time.Minute, func() { stuck.Store(true); panic("stuck") })
		for i := range 8 {
			rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
			group.Go(func() {
				for j := range 250 {
					switch rng.IntN(3) {
					case 0:
						v := original(t, c, block.ID(i*1000+j), 3)
						mu.Lock()
						held = append(held, v)
						mu.Unlock()
					case 1:
						var mine [][]byte
						for range rng.IntN(20) {
							d, err := c.NewFrame()
							if err != nil {
								t.Error(err)
								return
							}
							mine = append(mine, d)
						}
						for _, d := range mine {
							c.GiveFrame(d)
						}
					case 2:
						mu.Lock()
						var v *Version
						if len(held) > 0 {
							k := rng.IntN(len(held))
							v = held[k]
							held[k] = held[len(held)-1]
							held = held[:len(held)-1]
						}
						mu.Unlock()
						if v != nil {
							if got := imageOf(t, c, v); got != [2]byte{byte(v.ID), 3} {
								t.Errorf("block %v is %v", v.ID, got)
							}
							l := c.Latch(v.ID)
							c.Kill(v)
							l.Unlock()
						}
					}
				}
			})
		}
		group.Wait()
		alarm.Stop()
		for _, v := range held {
			l := c.Latch(v.ID)
			c.Kill(v)
			l.Unlock()
		}
		awaitFree(t, c)
		closeEmpty(t, c)
	}
}

// TestSpiller_DiesOnTheWay: an original that is let go while it is being written
// leaves no slot behind.
func TestSpiller_DiesOnTheWay(t *testing.T) {
	fsys := simfs.New()
	reached, pass := make(chan struct{}), make(chan struct{})
	var first sync.Once
	fsys.Before(func(ev simfs.Event) {
		if ev.Op == simfs.OpWrite {
			first.Do(func() { close(reached); <-pass })
		}
	})
	c := openOn(t, fsys, 400, 1000, nil)
	var all []*Version
	for i := range c.FramesMax() - 5 {
		all = append(all, original(t, c, block.ID(i), 7))
	}
	c.spiller.demand()
	<-reached
	for _, v := range all {
		l := c.Latch(v.ID)
		c.Kill(v)
		l.Unlock()
	}
	close(pass)
	awaitFree(t, c)
	closeEmpty(t, c)
}

// TestPrivate_SpillAndBack: a transaction's versions go and come back; when
// there is no room, none is lost.
func TestPrivate_SpillAndBack(t *testing.T) {
	c := open(t, 400, 512, nil)
	var all []*Version
	for i := range 200 {
		v, err := c.NewVersion(block.ID(i), block.TypeLeaf)
		ok(t, err)
		v.LSN = 5
		v.data[0] = byte(i)
		all = append(all, v)
	}
	ok(t, c.SpillPrivate(all))
	if n := c.Frames(ClassPrivate); n != 0 {
		t.Fatalf("%d frames of class private", n)
	}
	for i, v := range all {
		h := c.Freeze(v)
		d, err := c.NewFrame()
		ok(t, err)
		v, err = c.Unspill(h, d)
		ok(t, err)
		if v.data[0] != byte(i) || v.slot != 0 || v.ID != block.ID(i) || v.LSN != 5 || v.Type != block.TypeLeaf {
			t.Fatalf("block %d came back as %+v", i, v)
		}
		all[i] = v
	}
	for _, v := range all {
		c.Kill(v)
	}
	closeEmpty(t, c)

	c = open(t, 400, 0, nil)
	v, err := c.NewVersion(1, block.TypeLeaf)
	ok(t, err)
	if err := c.SpillPrivate([]*Version{v}); !errors.Is(err, spill.ErrFull) || v.data == nil {
		t.Fatalf("no temporary storage: %v", err)
	}
	c.Kill(v)
	closeEmpty(t, c)
}

// TestLive_NeverAFrameThatIsGone: who pins without the latch has the version's
// own bytes, whatever is evicted and replaced meanwhile.
func TestLive_NeverAFrameThatIsGone(t *testing.T) {
	c := open(t, 400, 0, nil)
	rng := seeded(t)
	var group sync.WaitGroup
	var done atomic.Bool
	const blocks = 1500
	fill := func(rng *rand.Rand) {
		id := block.ID(rng.IntN(blocks))
		d, err := c.NewFrame()
		if err != nil {
			t.Error(err)
			return
		}
		for i := range 64 {
			d[i] = byte(id)
		}
		l := c.Latch(id)
		defer l.Unlock()
		if l.Head(id) != nil {
			c.GiveFrame(d)
			return
		}
		v := &Version{ID: id, LSN: 1, InPlace: true}
		l.Insert(v)
		c.Adopt(v, d)
		c.Keep(v)
	}
	for range 2 {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
		group.Go(func() {
			for range 20000 / slower {
				fill(rng)
			}
			done.Store(true)
		})
	}
	for range 2 {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 0))
		group.Go(func() {
			for !done.Load() {
				id := block.ID(rng.IntN(blocks))
				v, d := c.Live(id, 5)
				if v == nil {
					continue
				}
				for i := range 64 {
					if d[i] != byte(id) || v.ID != id {
						t.Errorf("block %v reads %d", id, d[i])
						break
					}
				}
				c.Unpin(v)
			}
		})
	}
	group.Wait()
	dropHeads(c)
	closeEmpty(t, c)
}

// TestLatch_Table compares the open addressing with a map.
func TestLatch_Table(t *testing.T) {
	rng := seeded(t)
	var l Latch
	first := make([]place, tableMin)
	l.init(&Cache{}, &first)
	want := map[block.ID]*Version{}
	for range 40000 {
		id := block.ID(rng.IntN(300))
		switch v := want[id]; {
		case v == nil:
			want[id] = &Version{ID: id}
			l.Insert(want[id])
		case rng.IntN(3) == 0:
			w := &Version{ID: id}
			l.Replace(v, w)
			want[id] = w
			if w.Older != v || v.Role != RolePending {
				t.Fatal("not chained")
			}
		default:
			l.Remove(v)
			delete(want, id)
		}
		probe := block.ID(rng.IntN(300))
		if got := l.Head(probe); got != want[probe] {
			t.Fatalf("block %v is %v, want %v", probe, got, want[probe])
		}
	}
	n := 0
	l.Heads(func(v *Version) {
		n++
		if want[v.ID] != v {
			t.Fatalf("block %v", v.ID)
		}
	})
	if n != len(want) {
		t.Fatalf("%d heads, want %d", n, len(want))
	}
}

// TestWatermarks_Hysteresis: a level that trembles about a threshold tells once.
func TestWatermarks_Hysteresis(t *testing.T) {
	g := newGauge("l", DefaultMarks())
	told := 0
	for _, used := range []int64{10, 49, 50, 49, 50, 46, 51, 44, 50, 91, 80, 86, 84, 10} {
		told += len(g.see(time.Unix(1, 0), reading{used: used, limit: 100}))
	}
	if told != 6 || g.state != LevelNormal || g.peak != 91 { // up, down, up, up to critical, down to high, down
		t.Fatalf("told %d times, %v, peak %d", told, g.state, g.peak)
	}
}
