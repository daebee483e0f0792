package snapshot

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/spill"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// naive is what a set of snapshots must do, by looking at everything each time.
type naive struct {
	t       *testing.T
	rng     *rand.Rand
	cache   *blockcache.Cache
	set     *Set
	lsn     block.LSN
	current map[block.ID]*blockcache.Version // newest versions
	kept    []*blockcache.Version            // replaced versions that may be wanted
	readers []*Reader
	backups []*naiveBackup
	broken  []*BrokenError
	hours   int // that the set's clock is ahead
}

type naiveBackup struct {
	*Backup
	done   map[block.ID]bool
	narrow bool // to what is above least, and every fifth block
	least  block.LSN
	want   tally
}

// tallyNow counts what is kept for the backup.
func (n *naive) tallyNow(b *naiveBackup) (kept, stored uint64) {
	for _, v := range n.kept {
		if slices.Contains(n.backupsWant(v), b) {
			kept++
			if v.Data() != nil {
				stored++
			}
		}
	}
	return kept, stored
}

func (b *naiveBackup) carries(v *blockcache.Version) bool {
	return !b.narrow || v.LSN > b.least || fifth(v.ID)
}

func fifth(id block.ID) bool { return id%5 == 0 }

func newNaive(t *testing.T, seed uint64) *naive {
	sp, err := spill.Open(spill.Options{BlockSize: 4096})
	ok(t, err)
	c, err := blockcache.Open(blockcache.Options{BlockSize: 4096, RAMBytesMax: 16 << 20, Spill: sp})
	ok(t, err)
	n := &naive{t: t, rng: rand.New(rand.NewPCG(seed, 5)), cache: c, current: map[block.ID]*blockcache.Version{}}
	n.set = New(c, 0, func(e *BrokenError) { n.broken = append(n.broken, e) })
	return n
}

// readersWant counts the points, not the readers, that want v.
func (n *naive) readersWant(v *blockcache.Version) (points int, only block.LSN) {
	seen := map[block.LSN]bool{}
	for _, r := range n.readers {
		if l := r.LSN(); r.Err() == nil && v.LSN <= l && l < v.Until && !seen[l] {
			seen[l] = true
			points++
			only = l
		}
	}
	return points, only
}

func (n *naive) backupsWant(v *blockcache.Version) (list []*naiveBackup) {
	for _, b := range n.backups {
		if b.Err() == nil && v.LSN <= b.LSN() && b.LSN() < v.Until && b.carries(v) && !b.done[v.ID] {
			list = append(list, b)
		}
	}
	return list
}

// step does one random thing and then compares everything.
func (n *naive) step() {
	switch roll := n.rng.IntN(100); {
	case roll < 45:
		n.commit()
	case roll < 60 && len(n.readers) < 20:
		r := &Reader{Owner: []string{"", "reader"}[n.rng.IntN(2)]} // counted only, or listed
		n.set.OpenReader(r)
		n.readers = append(n.readers, r)
	case roll < 75 && len(n.readers) > 0:
		i := n.rng.IntN(len(n.readers))
		n.set.CloseReader(n.readers[i])
		n.readers = slices.Delete(n.readers, i, i+1)
	case roll < 79:
		n.openBackup()
	case roll < 95 && len(n.backups) > 0:
		n.doneSome(n.backups[n.rng.IntN(len(n.backups))])
	case roll < 97 && len(n.backups) > 0:
		i := n.rng.IntN(len(n.backups))
		n.backups[i].Close()
		n.backups = slices.Delete(n.backups, i, i+1)
	case roll < 99 && len(n.backups) > 0:
		n.narrow(n.backups[n.rng.IntN(len(n.backups))])
	case roll == 99:
		n.breakOne()
	}
	n.compare()
	n.compareTallies()
}

// compareTallies: what a backup keeps, and what it would keep if it kept everything.
func (n *naive) compareTallies() {
	for _, b := range n.backups {
		b.want.kept, b.want.stored = n.tallyNow(b)
		if b.tally != b.want {
			n.t.Fatalf("backup of %v counts %+v, want %+v", b.LSN(), b.tally, b.want)
		}
	}
}

// commit replaces, frees and makes some blocks; the horizon follows, sometimes
// several commits later.
func (n *naive) commit() {
	var replaced []*blockcache.Version
	for range 1 + n.rng.IntN(3) {
		n.lsn++
		for range n.rng.IntN(8) {
			id := block.ID(n.rng.IntN(40))
			old := n.current[id]
			if old != nil && old.LSN == n.lsn {
				continue
			}
			if old != nil {
				n.pend(old, n.lsn)
				replaced = append(replaced, old)
				delete(n.current, id)
			}
			if old == nil || n.rng.IntN(4) > 0 {
				n.current[id] = n.version(id)
			}
		}
	}
	n.set.Advance(n.lsn)
	for _, v := range replaced {
		n.replaced(v)
	}
}

func (n *naive) pend(v *blockcache.Version, until block.LSN) {
	from := n.cache.ClassOf(v)
	v.Until, v.Role = until, blockcache.RolePending
	n.cache.Reclass(v, from)
}

// version has a frame, or is in place only.
func (n *naive) version(id block.ID) *blockcache.Version {
	if n.rng.IntN(3) == 0 {
		return &blockcache.Version{ID: id, LSN: n.lsn, InPlace: true}
	}
	v, err := n.cache.NewVersion(id, block.TypeLeaf)
	ok(n.t, err)
	v.LSN = n.lsn
	return v
}

func (n *naive) replaced(v *blockcache.Version) {
	l := n.cache.Latch(v.ID)
	defer l.Unlock()
	for _, b := range n.backups {
		if b.Err() == nil && v.LSN <= b.LSN() && b.LSN() < v.Until {
			b.want.replaced++
		}
	}
	points, _ := n.readersWant(v)
	want := points > 0 || len(n.backupsWant(v)) > 0
	if got := n.set.Replaced(v); got != want {
		n.t.Fatalf("block %v of [%v, %v): kept %v, want %v", v.ID, v.LSN, v.Until, got, want)
	}
	if !want {
		n.cache.Kill(v)
		return
	}
	n.kept = append(n.kept, v)
	for _, b := range n.backupsWant(v) {
		kept, stored := n.tallyNow(b)
		b.want.peak, b.want.storedPeak = max(b.want.peak, kept), max(b.want.storedPeak, stored)
	}
}

func (n *naive) openBackup() {
	b, err := n.set.OpenBackup("backup", "")
	if len(n.backups) == BackupsMax {
		if !errors.Is(err, ErrTooManyBackups) {
			n.t.Fatalf("backup %d: %v", len(n.backups)+1, err)
		}
		return
	}
	ok(n.t, err)
	n.backups = append(n.backups, &naiveBackup{Backup: b, done: map[block.ID]bool{}})
}

// narrow makes a backup an incremental, once.
func (n *naive) narrow(b *naiveBackup) {
	if !b.narrow {
		b.narrow, b.least = true, block.LSN(n.rng.Uint64N(uint64(b.LSN())+1))
		b.Narrow(b.least, fifth)
	}
}

func (n *naive) doneSome(b *naiveBackup) {
	var ids [6]block.ID
	list := ids[:n.rng.IntN(len(ids))]
	list = list[:b.Queued(list)]
	if n.rng.IntN(2) == 0 {
		list = append(list, block.ID(n.rng.IntN(40)))
	}
	for _, id := range list {
		l := n.cache.Latch(id)
		b.Done(id)
		l.Unlock()
		b.done[id] = true
		if !b.IsDone(id) {
			n.t.Fatalf("block %v is not done", id)
		}
	}
}

// breakOne: R13 says which.
func (n *naive) breakOne() {
	n.hours++
	n.set.Tick(time.Now().Add(time.Duration(n.hours) * time.Hour)) // nobody is young
	held := n.bytes()
	before := len(n.broken)
	due := n.due()
	if did := n.set.BreakVictim(); !did {
		if held > 0 {
			n.t.Fatalf("%d bytes are held and there is no victim", held)
		}
		return
	}
	if len(n.broken) == before {
		n.t.Fatal("broken, and nobody was told")
	}
	n.set.settle()
	for _, e := range n.broken[before:] {
		if e.Reason != ReasonExhausted || !errors.Is(e, ErrBroken) {
			n.t.Fatalf("broken for %v", e)
		}
	}
	n.dueWent(due)
	n.dropBroken()
}

// dropBroken closes what was broken, as its owners would.
func (n *naive) dropBroken() {
	n.readers = slices.DeleteFunc(n.readers, func(r *Reader) bool {
		if r.Err() != nil {
			n.set.CloseReader(r)
			return true
		}
		return false
	})
	n.backups = slices.DeleteFunc(n.backups, func(b *naiveBackup) bool {
		if b.Err() != nil {
			b.Close()
			return true
		}
		return false
	})
}

// size is what an original takes. One that never had a frame is in place.
func size(v *blockcache.Version) int64 { return originalBytes + int64(len(v.Data())) }

// found is what the index says, or nil: a version without a frame is another one
// each time that it is looked up.
func (n *naive) found(id block.ID, lsn block.LSN) *blockcache.Version {
	l := n.cache.Latch(id)
	defer l.Unlock()
	return n.set.Find(id, lsn)
}

// isFound tells whether the index has v for who reads at lsn.
func (n *naive) isFound(v *blockcache.Version, lsn block.LSN) bool {
	got := n.found(v.ID, lsn)
	if v.Data() != nil || got == nil {
		return got == v
	}
	return got.ID == v.ID && got.LSN == v.LSN && got.Until == v.Until && got.InPlace && got.Data() == nil
}

func (n *naive) bytes() (sum int64) {
	for _, v := range n.kept {
		sum += size(v)
	}
	return sum
}

// compare asks the naive way who wants what.
func (n *naive) compare() {
	t := n.t
	t.Helper()
	exclusive := map[block.LSN]int64{}
	made := map[*Backup][2]int64{}
	wanted := n.kept[:0]
	for _, v := range n.kept {
		points, only := n.readersWant(v)
		backups := n.backupsWant(v)
		if points == 0 && len(backups) == 0 {
			if v.Role != blockcache.RoleDead || n.isFound(v, v.LSN) {
				t.Fatalf("nobody wants block %v of [%v, %v), and it is kept", v.ID, v.LSN, v.Until)
			}
			continue
		}
		if !n.isFound(v, v.LSN) || v.Data() != nil && v.Role != blockcache.RoleOriginal {
			t.Fatalf("block %v of [%v, %v) is wanted, and gone", v.ID, v.LSN, v.Until)
		}
		wanted = append(wanted, v)
		if points == 1 && len(backups) == 0 {
			exclusive[only] += size(v)
		}
		for _, b := range backups {
			sums := made[b.Backup]
			sums[0] += size(v)
			if points == 0 && len(backups) == 1 {
				sums[1] += size(v)
			}
			made[b.Backup] = sums
		}
	}
	n.kept = wanted
	if got := n.set.Len(); got != len(wanted) {
		t.Fatalf("%d originals, want %d", got, len(wanted))
	}
	n.compareCounts(exclusive, made)
	n.compareFind()
}

func (n *naive) compareCounts(exclusive map[block.LSN]int64, made map[*Backup][2]int64) {
	t := n.t
	for _, p := range n.set.points {
		if got := p.exclusive(); got != exclusive[p.lsn] {
			t.Fatalf("ending LSN %v frees %d bytes, want %d", p.lsn, got, exclusive[p.lsn])
		}
	}
	for _, b := range n.backups {
		if got := [2]int64{b.held, b.exclusive}; got != made[b.Backup] {
			t.Fatalf("backup of %v holds and frees %v, want %v", b.LSN(), got, made[b.Backup])
		}
		if b.heldPeak < b.held {
			t.Fatalf("backup of %v holds %d, and its peak is %d", b.LSN(), b.held, b.heldPeak)
		}
	}
	if got := n.cache.Frames(blockcache.ClassOriginal)*4096 + int64(len(n.kept))*originalBytes; got != n.bytes() {
		t.Fatalf("originals take %d bytes, want %d", got, n.bytes())
	}
}

// compareFind looks up what each snapshot sees.
func (n *naive) compareFind() {
	var at []block.LSN
	for _, r := range n.readers {
		at = append(at, r.LSN())
	}
	for _, lsn := range at {
		id := block.ID(n.rng.IntN(40))
		var want *blockcache.Version
		for _, v := range n.kept {
			if v.ID == id && v.LSN <= lsn && lsn < v.Until {
				want = v
			}
		}
		if want == nil {
			if got := n.found(id, lsn); got != nil {
				n.t.Fatalf("block %v at %v is %v, want none", id, lsn, got)
			}
		} else if !n.isFound(want, lsn) {
			n.t.Fatalf("block %v at %v is %v, want %v", id, lsn, n.found(id, lsn), want)
		}
	}
}

// queueLen is how many originals are in hand.
func queueLen(b *Backup) int {
	b.set.mu.Lock()
	defer b.set.mu.Unlock()
	return b.queue.Len()
}

// TestModel_L2_L3_KeptIsWanted: after every step the originals kept are exactly
// those that somebody could still read, and every count is exact (L9, R11).
func TestModel_L2_L3_KeptIsWanted(t *testing.T) {
	seed := chance.Seed(t)
	for i := range uint64(30 / slower) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			n := newNaive(t, seed+i)
			n.set.slice = 1 + n.rng.IntN(releaseSlice)
			for range 500 {
				n.step()
			}
			n.end()
		})
	}
}

func (n *naive) end() {
	for _, r := range n.readers {
		n.set.CloseReader(r)
	}
	for _, b := range n.backups {
		b.Close()
		b.Close()
	}
	n.readers, n.backups = nil, nil
	n.compare()
	if n.set.Len() != 0 || len(n.set.points) != 1 || n.cache.Frames(blockcache.ClassOriginal) != 0 {
		n.t.Fatalf("%d originals, %d points are left", n.set.Len(), len(n.set.points))
	}
	if len(n.set.leaving.list) != 0 || n.set.lists != 0 {
		n.t.Fatalf("%d lists are leaving, %d sublists are left", len(n.set.leaving.list), n.set.lists)
	}
	for _, v := range n.current {
		n.cache.Kill(v)
	}
	n.close()
}

// TestR11_NewestSnapshotIsADoneBackup: an older reader wants what the newest
// snapshot, a backup that has the block, does not.
func TestR11_NewestSnapshotIsADoneBackup(t *testing.T) {
	n := newNaive(t, 1)
	v, err := n.cache.NewVersion(7, block.TypeLeaf)
	ok(t, err)
	v.LSN = 1
	n.set.Advance(1)
	r := &Reader{}
	n.set.OpenReader(r)
	n.readers = append(n.readers, r)
	n.set.Advance(2)
	b, err := n.set.OpenBackup("", "")
	ok(t, err)
	n.backups = append(n.backups, &naiveBackup{Backup: b, done: map[block.ID]bool{7: true}})
	l := n.cache.Latch(7)
	b.Done(7)
	l.Unlock()
	n.set.Advance(3)
	n.pend(v, 3)
	n.lsn = 3
	n.replaced(v)
	if n.found(7, 1) != v {
		t.Fatal("the older reader has lost its block")
	}
	n.compare()
	n.end()
}

// TestL3_DoneLetsGo: the original goes when the block is handed out.
func TestL3_DoneLetsGo(t *testing.T) {
	n := newNaive(t, 1)
	b, err := n.set.OpenBackup("", "")
	ok(t, err)
	v, err := n.cache.NewVersion(7, block.TypeLeaf)
	ok(t, err)
	n.set.Advance(1)
	n.pend(v, 1)
	l := n.cache.Latch(7)
	if !n.set.Replaced(v) || queueLen(b) != 1 {
		t.Fatal("a block that is not done is not kept")
	}
	b.Done(7)
	l.Unlock()
	if n.set.Len() != 0 || queueLen(b) != 0 || b.Stats().HeldBytes != 0 {
		t.Fatal("a block that is done is kept")
	}
	b.Close()
	n.end()
}

// TestL3_NarrowLetsGo: of the originals that a backup holds when it becomes an
// incremental it keeps those that it carries; those of others stay.
func TestL3_NarrowLetsGo(t *testing.T) {
	n := newNaive(t, 1)
	n.reader(1)
	n.set.Advance(2)
	n.openBackup()
	b := n.backups[0]
	n.set.Advance(3)
	want := 0
	for id := range block.ID(2*releaseSlice + 10) {
		lsn := block.LSN(1 + id%2)
		n.original(id, lsn, 3)
		if lsn == 2 || fifth(id) {
			want++
		}
	}
	b.narrow, b.least = true, 1
	b.Narrow(1, fifth)
	n.compare()
	if got := queueLen(b.Backup); got != want {
		t.Fatalf("%d originals are wanted, want %d", got, want)
	}
	n.original(1001, 1, 3) // the reader's
	if got := queueLen(b.Backup); got != want {
		t.Fatalf("%d originals are wanted, want %d", got, want)
	}
	n.compare()
	n.end()
}

// original makes one original of a block, of the version that lived from one commit until
// another.
func (n *naive) original(id block.ID, from, until block.LSN) {
	v, err := n.cache.NewVersion(id, block.TypeLeaf)
	ok(n.t, err)
	v.LSN = from
	n.pend(v, until)
	l := n.cache.Latch(id)
	defer l.Unlock()
	if !n.set.Replaced(v) {
		n.t.Fatalf("block %v of [%v, %v) is not kept", id, from, until)
	}
	n.kept = append(n.kept, v)
}

func (n *naive) reader(lsn block.LSN) *Reader {
	n.set.Advance(lsn)
	r := &Reader{}
	n.set.OpenReader(r)
	n.readers = append(n.readers, r)
	return r
}

// TestL10_EveryReaderExpires: readers of one commit come and go in any order, and each
// that is there is listed, and is broken when its lease is over.
func TestL10_EveryReaderExpires(t *testing.T) {
	for gone := range 3 {
		n := newNaive(t, 1)
		n.set.Advance(1)
		open := func() {
			r := &Reader{Owner: "named"}
			r.SetLease(time.Minute)
			n.set.OpenReader(r)
			n.readers = append(n.readers, r)
		}
		open()
		open()
		open()
		n.set.CloseReader(n.readers[gone])
		n.readers = slices.Delete(n.readers, gone, gone+1)
		open()
		if list := n.set.List(100); len(list) != 3 {
			t.Errorf("reader %d has gone: %d are listed", gone, len(list))
		}
		n.set.Expire(time.Now().Add(time.Hour), 0)
		for i, r := range n.readers {
			if e := new(BrokenError); !errors.As(r.Err(), &e) || e.Reason != ReasonExpired {
				t.Errorf("reader %d has gone: the end of reader %d is %v", gone, i, r.Err())
			}
		}
		n.dropBroken()
		n.end()
	}
}
