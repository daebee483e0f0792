package blockcache

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/spillwaydb/spillway/block"
)

// TestEntries_ComeAndGo: an entry keeps what was written into it, two never share
// a place, and pages follow: each one that is in use holds something, and all go
// with the last entry.
func TestEntries_ComeAndGo(t *testing.T) {
	c := open(t, 400, 0, nil)
	rng := seeded(t)
	want := map[Handle]Entry{}
	var held []Handle
	for range 30000 {
		grow := 3
		if len(held) > 4000 {
			grow = 1
		}
		if len(held) == 0 || rng.IntN(4) < grow {
			h := c.NewEntry()
			if _, twice := want[h]; twice || h == 0 || *c.Entry(h) != (Entry{}) {
				t.Fatalf("handle %d is %+v, in use %v", h, *c.Entry(h), twice)
			}
			e := Entry{ID: block.ID(rng.Uint64()), LSN: block.LSN(rng.Uint64()), Next: Handle(rng.Uint32()), Wants: uint8(rng.Uint32())}
			*c.Entry(h), want[h] = e, e
			held = append(held, h)
		} else {
			i := rng.IntN(len(held))
			h := held[i]
			if *c.Entry(h) != want[h] {
				t.Fatalf("handle %d is %+v, want %+v", h, *c.Entry(h), want[h])
			}
			c.FreeEntry(h)
			delete(want, h)
			held[i] = held[len(held)-1]
			held = held[:len(held)-1]
		}
		if got, least := c.Frames(ClassIndex), int64(len(held)+c.entries.perPage-1)/int64(c.entries.perPage); got < least || got > int64(len(held)) {
			t.Fatalf("%d pages for %d entries", got, len(held))
		}
	}
	for _, h := range held {
		c.FreeEntry(h)
	}
	closeEmpty(t, c)
}

// TestEntryTable compares with a map.
func TestEntryTable(t *testing.T) {
	c := open(t, 400, 0, nil)
	rng := seeded(t)
	table, want := c.NewEntryTable(), map[block.ID]Handle{}
	most := 300
	for range 60000 {
		id := block.ID(rng.IntN(most))
		if h := want[id]; h == 0 {
			h = c.NewEntry()
			c.Entry(h).ID = id
			table.Insert(h)
			want[id] = h
		} else if rng.IntN(3) > 0 {
			if got := table.Remove(id); got != h {
				t.Fatalf("block %v was %d, want %d", id, got, h)
			}
			c.FreeEntry(h)
			delete(want, id)
		}
		if probe := block.ID(rng.IntN(most)); table.Find(probe) != want[probe] {
			t.Fatalf("block %v is %d, want %d", probe, table.Find(probe), want[probe])
		}
		if rng.IntN(2000) == 0 {
			most = []int{3, 300, 3000}[rng.IntN(3)]
		}
		if bytes := c.Stats().LentBytes; bytes > int64(len(want))*8*EntryTableBytes+8*entryTableMin || bytes < 8*int64(len(want)-entryTableMin) {
			t.Fatalf("%d bytes for %d entries", bytes, len(want))
		}
	}
	n := 0
	table.All(func(h Handle) {
		n++
		if want[c.Entry(h).ID] != h {
			t.Fatalf("handle %d", h)
		}
		c.FreeEntry(h)
	})
	if n != len(want) || table.Len() != n {
		t.Fatalf("%d of %d entries", n, len(want))
	}
	table.Clear()
	closeEmpty(t, c)
}

// owner stands in for the index of originals.
type owner struct {
	c      *Cache
	mu     sync.Mutex
	images map[Handle]int
	frozen int
}

func (o *owner) Held(h Handle, delta int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.images[h] += delta
}

func (o *owner) Freeze(v *Version) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.c.Entry(v.Entry).Describe(v)
	v.Entry = 0
	o.frozen++
}

// TestL9_SpilledOriginalIsAnEntry: when an original's frame goes, all that is left
// of it in RAM is its entry, and that says where it is.
func TestL9_SpilledOriginalIsAnEntry(t *testing.T) {
	c := open(t, 400, 2000, nil)
	o := &owner{c: c, images: map[Handle]int{}}
	c.SetOwner(o)
	handles := map[Handle]block.ID{}
	var versions []*Version
	for i := range 1500 {
		v, err := c.NewVersion(block.ID(i), block.TypeLeaf)
		ok(t, err)
		v.LSN, v.Until, v.Entry = 7, 8, c.NewEntry()
		c.Entry(v.Entry).ID, c.Entry(v.Entry).LSN, c.Entry(v.Entry).Until = v.ID, 7, 8
		v.data[0], v.data[1] = byte(i), byte(i>>8)
		l := c.Latch(v.ID)
		v.Role = RoleOriginal
		c.Reclass(v, ClassPrivate)
		c.held(v, 1)
		c.Keep(v)
		handles[v.Entry] = v.ID
		l.Unlock()
		versions = append(versions, v)
	}
	o.mu.Lock()
	frozen := o.frozen
	o.mu.Unlock()
	if frozen < 1000 {
		t.Errorf("%d are frozen", frozen)
	}
	for h, id := range handles {
		l := c.Latch(id)
		v := versions[id]
		o.mu.Lock()
		images := o.images[h]
		o.mu.Unlock()
		switch e := c.Entry(h); {
		case v.Role == RoleDead:
			image, err := c.ReadSlot(e.Slot, e.ID, e.LSN)
			ok(t, err)
			if image[0] != byte(id) || image[1] != byte(id>>8) || e.Type != block.TypeLeaf || images != 1 || v.data != nil || v.Entry != 0 {
				t.Fatalf("block %v is %+v with %d images", id, e, images)
			}
			c.FreeSlot(e.Slot)
		case v.data == nil:
			t.Fatalf("block %v has no frame, and a version", id)
		default:
			v.Entry = 0
			c.Kill(v)
		}
		c.FreeEntry(h)
		l.Unlock()
	}
	awaitFree(t, c)
	closeEmpty(t, c)
}

// TestFreeze_HeadsComeBack: heads of every kind, and what is pending behind them,
// are what they were after they were frozen; those that somebody uses, or that have
// a frame, are not frozen.
func TestFreeze_HeadsComeBack(t *testing.T) {
	c := open(t, 400, 0, nil)
	rng := seeded(t)
	for round := range 3000 {
		id := block.ID(rng.Uint64())
		chain := randomChain(rng, id)
		var want []description
		for _, v := range chain {
			want = append(want, v.describe())
		}
		busy := rng.IntN(3) == 0
		l := c.Latch(id)
		l.Insert(chain[0])
		for i, v := range chain[1:] {
			chain[i].Older, v.Role = v, RolePending
		}
		who := chain[rng.IntN(len(chain))]
		if busy {
			who.Pin()
		}
		l.Settle(chain[0])
		l.Unlock()
		if got, want := c.FrozenHeads(), int64(1); (got == want) == busy {
			t.Fatalf("round %d: %d heads are frozen, busy %v", round, got, busy)
		}
		if v, _ := c.Live(id, ^block.LSN(0)); v != nil {
			t.Fatal("a head without a frame is lent")
		}
		l = c.Latch(id)
		head := l.Head(id)
		if busy != (head == chain[0]) {
			t.Fatalf("round %d: busy %v", round, busy)
		}
		var got []description
		for v := head; v != nil; v = v.Older {
			got = append(got, v.describe())
		}
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: %+v, want %+v", round, got, want)
		}
		if busy {
			c.Unpin(who)
		}
		l.Remove(head)
		head.Role = RoleDead
		l.Unlock()
	}
	closeEmpty(t, c)
}

// randomChain is a head without a frame and what is pending behind it.
func randomChain(rng *rand.Rand, id block.ID) (chain []*Version) {
	lsn := block.LSN(1000)
	for n := 1 + rng.IntN(3); len(chain) < n; {
		v := &Version{ID: id, LSN: lsn, Type: block.TypeLeaf, slot: Slot(1 + rng.IntN(1000)), InPlace: rng.IntN(3) == 0}
		if len(chain) > 0 {
			v.Until = chain[len(chain)-1].LSN
			if rng.IntN(2) == 0 {
				v.slot, v.InPlace = 0, true
			}
		} else {
			v.Dirty, v.Rec, v.Image = true, lsn-block.LSN(rng.IntN(2)*5), lsn
			if rng.IntN(2) == 0 {
				v.Freed, v.slot, v.Type, v.Image = true, 0, 0, 0
			}
		}
		chain = append(chain, v)
		lsn -= block.LSN(1 + rng.IntN(9))
	}
	return chain
}

// description is what is compared: the type of a version that is in place is found
// there.
type description struct {
	id                        block.ID
	lsn, until, rec, image    block.LSN
	slot                      Slot
	typ                       block.Type
	inPlace, isDirty, isFreed bool
}

func (v *Version) describe() description {
	d := description{v.ID, v.LSN, v.Until, v.Rec, v.Image, v.slot, v.Type, v.InPlace, v.Dirty, v.Freed}
	if v.InPlace && v.slot == 0 {
		d.typ = 0
	}
	return d
}

// TestL9_OverheadTakesFrames: what entries and heap take, frames do not get, and
// the memory of the frames is given back to the system.
func TestL9_OverheadTakesFrames(t *testing.T) {
	c := open(t, 400, 0, nil)
	all := c.Room()
	take := func(n int64) (list [][]byte) {
		for range n {
			d, err := c.NewFrame()
			ok(t, err)
			list = append(list, d)
		}
		return list
	}
	for _, d := range take(all) {
		c.GiveFrame(d)
	}
	c.ChargeHeap(100*size - 7)
	h := c.NewEntry()
	if got, want := c.Room(), all-101; got != want {
		t.Fatalf("room for %d frames, want %d", got, want)
	}
	list := take(all - 101)
	if d, _, _ := c.frames.take(0, 0); d != nil {
		t.Fatal("a frame beyond MaxRAM")
	}
	if resident := c.frames.inUse + int64(len(c.frames.hot)); resident > max(all-100, int64(c.frames.hotMax())) {
		t.Errorf("%d frames have memory", resident)
	}
	for _, d := range list {
		c.GiveFrame(d)
	}
	c.ChargeHeap(-100*size + 7)
	c.FreeEntry(h)
	if c.Room() != all {
		t.Fatalf("room for %d frames, want %d", c.Room(), all)
	}
	closeEmpty(t, c)
}

// TestL9_BuffersHaveAShare: no more than a quarter of MaxRAM, and none when entries
// have their half.
func TestL9_BuffersHaveAShare(t *testing.T) {
	c := open(t, 400, 0, nil)
	n, total := int64(1000), int64(0)
	var err error
	for ; err == nil; total += n {
		if err = c.Charge(n); err == nil && 2*(total+n) > c.budget.ram/4 {
			t.Fatalf("%d bytes were granted", total+n)
		}
	}
	if total -= n; !errors.Is(err, ErrBudget) || 2*(total+n) <= c.budget.ram/4 {
		t.Fatalf("%d bytes, then %v", total, err)
	}
	if got := c.budget.buffers.Load(); got != 2*total {
		t.Fatalf("buffers are charged with %d bytes where %d were granted", got, 2*total)
	}
	c.Uncharge(total)
	c.ChargeHeap(c.budget.ram/2 + 1)
	if err := c.Charge(n); !errors.Is(err, ErrBudget) || !c.spiller.isFull() {
		t.Fatalf("half of MaxRAM is taken: %v", err)
	}
	c.ChargeHeap(-c.budget.ram/2 - 1)
	ok(t, c.Charge(n))
	c.Uncharge(n)
	closeEmpty(t, c)
}
