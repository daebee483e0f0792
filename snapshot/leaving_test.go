package snapshot

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/chance"
)

// How many originals a snapshot of these tests holds, and how many of them are a slice.
const (
	heldByOne  = 40
	smallSlice = 4
)

// close ends the set and the cache, which are empty.
func (n *naive) close() {
	n.t.Helper()
	n.set.Close()
	if l := n.set.leaving.list; len(l) != 0 {
		n.t.Errorf("%d ends are not over", len(l))
	}
	ok(n.t, n.cache.Close())
}

// heldBy are originals of the blocks from 0 on, which live from one commit until another.
func (n *naive) heldBy(from, until block.LSN) {
	n.set.slice = smallSlice
	for id := range block.ID(heldByOne) {
		n.original(id, from, until)
	}
}

// holdBehind takes the latch of a block that is not in the first slice, and that no block
// of the first slice shares: whoever lets go of all stops there.
func (n *naive) holdBehind() *blockcache.Latch {
	first := map[*blockcache.Latch]bool{}
	for id := range block.ID(smallSlice) {
		l := n.cache.Latch(id)
		l.Unlock()
		first[l] = true
	}
	for id := block.ID(smallSlice); ; id++ {
		l := n.cache.Latch(id)
		if !first[l] {
			return l
		}
		l.Unlock()
	}
}

// isLeft tells how many originals are in the index, and whether the goroutine runs.
func (n *naive) isLeft() (originals int, runs bool) {
	n.set.mu.Lock()
	defer n.set.mu.Unlock()
	return n.set.index.Len(), n.set.leaving.runs
}

// needRoom needs room once, for which one slice of what is held has to go, and no more by
// who needs it.
func (n *naive) needRoom() {
	n.t.Helper()
	freed := make(chan bool, 1)
	go func() { freed <- n.set.BreakVictim() }()
	left, runs := n.isLeft()
	for ; !runs && len(freed) == 0; left, runs = n.isLeft() {
		if left < heldByOne-smallSlice {
			n.t.Fatalf("%d of %d originals are left, and they go by who needs room", left, heldByOne)
		}
		runtime.Gosched()
	}
	if _, runs = n.isLeft(); !<-freed || !runs {
		n.t.Fatalf("%d of %d originals are left, and nobody is there for them", left, heldByOne)
	}
}

// othersNeedRoom has others need room until one is left, and one of them waits; then it
// lets go of the latch. Another snapshot holds one original.
func (n *naive) othersNeedRoom(l *blockcache.Latch) {
	n.t.Helper()
	freed, started := make(chan bool, heldByOne), 0
	need := func() {
		started++
		go func() { freed <- n.set.BreakVictim() }()
	}
	for left, _ := n.isLeft(); left > 1; {
		need() // takes a slice, which may stop at the latch
		for before := left; left == before; left, _ = n.isLeft() {
			if n.needed() > 0 {
				n.t.Fatalf("%d originals are there to be taken, and who needs room waits", left)
			}
			runtime.Gosched()
		}
	}
	for need(); n.needed() == 0; {
		runtime.Gosched()
	}
	l.Unlock()
	for range started {
		if !<-freed {
			n.t.Error("nothing was freed")
		}
	}
}

// TestR13_WhoNeedsRoomLetsGoOfOneSlice: of what a victim holds; the rest goes without him,
// however long that takes, and whatever the victim is. Others who need room meanwhile end
// nobody, and when there is nothing to take they wait.
func TestR13_WhoNeedsRoomLetsGoOfOneSlice(t *testing.T) {
	victims := map[string]func(n *naive) (ended func() bool, closeIt func()){
		"reader": func(n *naive) (func() bool, func()) {
			r := n.reader(1)
			return func() bool { return r.Err() != nil }, func() { n.set.CloseReader(r) }
		},
		"backup": func(n *naive) (func() bool, func()) {
			n.set.Advance(1)
			b, err := n.set.OpenBackup("", "")
			ok(n.t, err)
			return func() bool { return b.Err() != nil }, b.Close
		},
		"fall forward": func(n *naive) (func() bool, func()) {
			n.set.Advance(1)
			b, err := n.set.OpenBackup("", "")
			ok(n.t, err)
			b.CanFallForward(func(int64, Reason, error) {})
			return func() bool { return b.Err() == nil && b.FellForward() }, b.Close
		},
	}
	for name, open := range victims {
		t.Run(name, func(t *testing.T) {
			n := newNaive(t, 1)
			ended, closeIt := open(n)
			n.set.Advance(2)
			n.heldBy(1, 2)
			beside := n.reader(3)
			n.set.Advance(9)
			n.original(1000, 3, 9)
			n.age()
			l := n.holdBehind()
			n.needRoom()
			if !ended() || beside.Err() != nil {
				t.Errorf("ended %v, the reader beside it: %v", ended(), beside.Err())
			}
			n.othersNeedRoom(l)
			if beside.Err() != nil {
				t.Errorf("the reader beside it: %v", beside.Err())
			}
			n.set.settle()
			if left, _ := n.isLeft(); left != 1 {
				t.Errorf("%d originals are left, of the reader beside it 1", left)
			}
			closeIt()
			n.set.CloseReader(beside)
			n.close()
		})
	}
}

// TestR11_PlaceOfABrokenBackup: what a victim holds goes behind the one who needed room.
// Until it has gone the victim keeps its place, its bytes are its own, and who closes it
// waits.
func TestR11_PlaceOfABrokenBackup(t *testing.T) {
	n := newNaive(t, 1)
	n.set.Advance(1)
	n.openBackup()
	first := n.backups[0].Backup
	n.set.Advance(2)
	n.heldBy(1, 2)
	n.age()
	l := n.holdBehind()
	n.needRoom()
	n.backups, n.kept = nil, nil
	n.set.Advance(9)
	if n.inPlace(0, 1, 9) { // of a block of the first slice: its latch is free
		t.Error("a backup that was broken wants an original")
	}
	n.openBackup()
	second := n.backups[0].Backup
	if second.bit == first.bit || second.Stats().HeldBytes != 0 {
		t.Errorf("place %d after %d, and it holds %d bytes", second.bit, first.bit, second.Stats().HeldBytes)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		first.Close()
		if n := first.Stats().HeldBytes; n != 0 {
			t.Errorf("closed, and holds %d bytes", n)
		}
	}()
	for range 100 {
		runtime.Gosched()
		select {
		case <-closed:
			t.Error("it does not wait for what it held")
		default:
		}
	}
	l.Unlock()
	<-closed
	third, err := n.set.OpenBackup("", "")
	ok(t, err)
	if third.bit != first.bit {
		t.Errorf("place %d, and %d is free", third.bit, first.bit)
	}
	third.Close()
	n.toldOf(1, true)
	n.end()
}

// TestR21_CloseWaitsForWhatIsLeaving: the cache is there until the last original has gone;
// then nothing goes behind anybody.
func TestR21_CloseWaitsForWhatIsLeaving(t *testing.T) {
	n := newNaive(t, 1)
	r := n.reader(1)
	n.set.Advance(2)
	n.heldBy(1, 2)
	n.age()
	l := n.holdBehind()
	n.needRoom()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		n.set.Close()
	}()
	for range 100 {
		runtime.Gosched()
		select {
		case <-closed:
			t.Error("closed, and originals are on their way out")
		default:
		}
	}
	l.Unlock()
	<-closed
	if left, runs := n.isLeft(); left != 0 || runs {
		t.Errorf("%d originals are left, the goroutine runs: %v", left, runs)
	}
	n.set.CloseReader(r)
	n.kept = nil
	r = n.reader(3)
	n.set.Advance(4)
	n.heldBy(3, 4)
	if !n.set.BreakVictim() || n.set.Len() != 0 {
		t.Errorf("%d originals are left behind, and nobody is there for them", n.set.Len())
	}
	n.set.CloseReader(r)
	n.close()
}

// crowd is everybody at once: who commits, reads, backs up, needs room and releases.
type crowd struct {
	*naive
	lsn  atomic.Uint64
	quit chan struct{}
	done sync.WaitGroup
	told sync.Map // of errors: how often
	fell atomic.Int64
}

// TestModel_R11_R13_EndsOverlap: snapshots of every kind end in every way at the same time.
// Each end is told once, and when all have ended nothing is left, of nobody.
func TestModel_R11_R13_EndsOverlap(t *testing.T) {
	seed := chance.Seed(t)
	for i := range uint64(10 / slower) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c := &crowd{naive: newNaive(t, seed+i), quit: make(chan struct{})}
			c.set.slice = 1 + c.rng.IntN(20)
			c.set.onBreak = func(e *BrokenError) {
				n, _ := c.told.LoadOrStore(e, new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
			}
			for k, f := range []func(*rand.Rand){c.reads, c.reads, c.backsUp, c.backsUp, c.needsRoom, c.needsRoom, c.releases} {
				rng := rand.New(rand.NewPCG(seed+i, uint64(k)))
				c.done.Go(func() {
					for !c.over() {
						f(rng)
						runtime.Gosched()
					}
				})
			}
			for range 200 {
				c.commits(c.rng)
				runtime.Gosched()
			}
			close(c.quit)
			c.done.Wait()
			c.set.BreakAll(ReasonClosed)
			c.proveNothingIsLeft()
		})
	}
}

func (c *crowd) over() bool {
	select {
	case <-c.quit:
		return true
	default:
		return false
	}
}

// commits replaces some blocks.
func (c *crowd) commits(rng *rand.Rand) {
	until := block.LSN(c.lsn.Add(1) + 1)
	c.set.Advance(until)
	c.set.Tick(time.Now().Add(time.Duration(until) * time.Minute))
	for range rng.IntN(30) {
		id := block.ID(rng.IntN(2000))
		v := &blockcache.Version{ID: id, LSN: until - 1 - block.LSN(rng.Uint64N(min(uint64(until), 20))), Until: until, InPlace: true, Role: blockcache.RolePending}
		l := c.cache.Latch(id)
		c.replace(v)
		l.Unlock()
	}
}

// replace asks about a version, unless there is an original of that name already.
func (c *crowd) replace(v *blockcache.Version) {
	c.set.mu.Lock()
	_, twice := c.set.index.Get(c.set.probe(v.ID, v.LSN))
	c.set.mu.Unlock()
	if !twice {
		c.set.Replaced(v)
	}
}

func (c *crowd) reads(rng *rand.Rand) {
	r := &Reader{Owner: []string{"", "reader"}[rng.IntN(2)]}
	c.set.OpenReader(r)
	for range rng.IntN(20) {
		runtime.Gosched()
	}
	c.set.CloseReader(r)
}

func (c *crowd) backsUp(rng *rand.Rand) {
	b, err := c.set.OpenBackup("backup", "")
	if err != nil { // those that left keep their places for a while
		return
	}
	if rng.IntN(2) == 0 {
		b.CanFallForward(func(int64, Reason, error) {
			c.fell.Add(1)
			c.set.BreakVictim() // who is told may need room
		})
	}
	if rng.IntN(3) == 0 {
		b.Narrow(b.LSN()/2, fifth)
	}
	for range rng.IntN(40) {
		id := block.ID(rng.IntN(2000))
		l := c.cache.Latch(id)
		b.Done(id)
		l.Unlock()
		runtime.Gosched()
	}
	if rng.IntN(4) == 0 {
		b.Break(ReasonGuard, nil)
	}
	b.Close()
	if held := b.Stats().HeldBytes; held != 0 {
		c.t.Errorf("a backup is closed, and holds %d bytes", held)
	}
}

func (c *crowd) needsRoom(rng *rand.Rand) {
	for range rng.IntN(20) {
		runtime.Gosched()
	}
	c.set.BreakVictim()
}

func (c *crowd) releases(rng *rand.Rand) {
	if list := c.set.List(10); len(list) > 0 {
		c.set.Release(list[rng.IntN(len(list))].ID, ReasonReleased)
	}
}

func (c *crowd) proveNothingIsLeft() {
	s := c.set
	told := uint64(0)
	c.told.Range(func(e, n any) bool {
		told++
		if n := n.(*atomic.Int64).Load(); n != 1 {
			c.t.Errorf("%v was told %d times", e, n)
		}
		return true
	})
	if s.index.Len() != 0 || s.lists != 0 || len(s.points) != 1 || len(s.leaving.list) != 0 || s.backups != [BackupsMax]*Backup{} {
		c.t.Errorf("left: %d originals, %d lists, %d points, %d departures, backups %v", s.index.Len(), s.lists, len(s.points), len(s.leaving.list), s.backups)
	}
	c.close()
	if st := c.cache.Stats(); st.Index != 0 || st.LentBytes != 0 {
		c.t.Errorf("left: %+v", st)
	}
	c.t.Logf("%d ends were told, %d fell forward, %d originals", told, c.fell.Load(), s.made)
}
