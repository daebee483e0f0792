package mvcc

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// crowd is a store with little MaxRAM and temporary storage of many times that:
// what is known of originals is what fills up. Its model is, for each block, the
// commits that changed it.
type crowd struct {
	t       testing.TB
	s       *Store
	rng     *rand.Rand
	dog     *watchdog
	ids     []block.ID
	changes map[block.ID][]block.LSN // in order
	readers []*ReadTx
	broken  int
	peak    Level // of the index
	temp    int64 // peak in bytes
}

func newCrowd(t testing.TB, blocks int) *crowd {
	o := smallOptions(simfs.New())
	o.Temp[0].BytesMax = 1 << 30
	o.LogBytesMax = 0
	c := &crowd{t: t, rng: rand.New(rand.NewPCG(chance.Seed(t), 1)), dog: newWatchdog(t), changes: map[block.ID][]block.LSN{}}
	c.s = c.dog.watch(mustOpen(t, o))
	c.grow(blocks, 500)
	return c
}

// grow allocates blocks, so many at once.
func (c *crowd) grow(blocks, atOnce int) {
	for len(c.ids) < blocks {
		c.write(func(tx *WriteTx) {
			for range min(atOnce, blocks-len(c.ids)) {
				b, err := tx.Alloc(block.TypeLeaf)
				ok(c.t, err)
				c.ids = append(c.ids, b.ID())
				c.fill(tx, b)
			}
		})
	}
}

// fill puts the LSN that the transaction will have into a block.
func (c *crowd) fill(tx *WriteTx, b Block) {
	defer b.Release()
	lsn := tx.Base() + 1
	binary.LittleEndian.PutUint64(b.Payload()[100:], uint64(lsn))
	c.changes[b.ID()] = append(c.changes[b.ID()], lsn)
}

// write is a transaction that must succeed, whatever snapshots hold.
func (c *crowd) write(f func(*WriteTx)) {
	c.t.Helper()
	tx, err := c.s.BeginWrite()
	ok(c.t, err)
	f(tx)
	_, err = tx.Commit()
	ok(c.t, err)
	c.dog.pat()
	c.look()
}

// change changes n blocks at random.
func (c *crowd) change(n int) {
	c.write(func(tx *WriteTx) {
		for range n {
			id := c.ids[c.rng.IntN(len(c.ids))]
			if last := c.changes[id]; last[len(last)-1] == tx.Base()+1 {
				continue
			}
			b, err := tx.Edit(id)
			ok(c.t, err)
			c.fill(tx, b)
		}
	})
}

// look proves that everything is within MaxRAM and overflow (L9).
func (c *crowd) look() {
	c.t.Helper()
	st := c.s.Status()
	for _, l := range st.Levels {
		switch {
		case l.Name == "index" && l.Used > l.Limit*5/4:
			c.t.Fatalf("entries take %d bytes, their share is %d", l.Used, l.Limit)
		case l.Name == "index" && l.Used > c.peak.Used:
			c.peak = l
		}
	}
	c.temp = max(c.temp, st.Cache.Temporary.UsedBytes)
	size := int64(st.BlockSize)
	frames := st.Cache.FramesInUse + (st.Cache.LentBytes+size-1)/size
	const forced = 8 // pages that were needed behind an LSN
	if most := st.Cache.FramesMax + min(c.s.opts.OverflowMax, c.s.opts.MaxRAM/4)/size + 32 + forced; frames > most {
		c.t.Fatalf("%d frames of %d are taken: %+v", frames, most, st.Cache)
	}
}

// check reads some blocks by a reader, which is right or broken.
func (c *crowd) check(r *ReadTx, n int) bool {
	c.t.Helper()
	for range n {
		id := c.ids[c.rng.IntN(len(c.ids))]
		if c.changes[id][0] > r.LSN() {
			continue
		}
		b, err := r.Block(id)
		if errors.Is(err, snapshot.ErrBroken) {
			return false
		}
		ok(c.t, err)
		got := block.LSN(binary.LittleEndian.Uint64(b.Payload()[100:]))
		b.Release()
		if want := c.at(id, r.LSN()); got != want {
			c.t.Fatalf("block %v at LSN %v is from %v, want %v", id, r.LSN(), got, want)
		}
	}
	return true
}

// at is the newest change of a block at or below an LSN.
func (c *crowd) at(id block.ID, lsn block.LSN) (found block.LSN) {
	for _, l := range c.changes[id] {
		if l <= lsn {
			found = l
		}
	}
	return found
}

// end closes everything; nothing is left then.
func (c *crowd) end() {
	for _, r := range c.readers {
		c.check(r, 20)
		r.Close()
	}
	mustClose(c.t, c.s)
}

// prune forgets readers that were broken.
func (c *crowd) prune() {
	kept := c.readers[:0]
	for _, r := range c.readers {
		if r.reader.Err() != nil {
			c.broken++
			r.Close()
			continue
		}
		kept = append(kept, r)
	}
	c.readers = kept
}

// TestModel_L9_ManyOriginalsLittleRAM: originals of many times MaxRAM, and
// temporary storage that would take many more. What is known of them stays in its
// share of MaxRAM; when that is used up snapshots are broken, as if temporary
// storage were full; writers never fail, and nobody reads what is wrong.
func TestModel_L9_ManyOriginalsLittleRAM(t *testing.T) {
	c := newCrowd(t, 3000)
	backup := openBackup(t, c.s)
	backups := 0
	for range 130 / slower {
		c.readers = append(c.readers, beginRead(t, c.s))
		c.change(200)
		for range 3 {
			c.check(c.readers[c.rng.IntN(len(c.readers))], 5)
		}
		if c.rng.IntN(4) == 0 {
			i := c.rng.IntN(len(c.readers))
			c.readers[i].Close()
			c.readers = append(c.readers[:i], c.readers[i+1:]...)
		}
		if err := backup.pull(t, 40); err != nil || backup.done {
			if err != nil && !errors.Is(err, snapshot.ErrBroken) {
				t.Fatal(err)
			}
			ok(t, backup.b.Close())
			backup, backups = openBackup(t, c.s), backups+1
		}
		c.prune()
	}
	ok(t, backup.b.Close())
	if c.peak.Used > c.peak.Limit*9/8 {
		t.Errorf("entries take %d bytes, their share is %d", c.peak.Used, c.peak.Limit)
	}
	t.Logf("%d snapshots broken, %d backups, entries at most %d of %d bytes, temporary storage at most %d MiB, MaxRAM %d KiB",
		c.broken, backups, c.peak.Used, c.peak.Limit, c.temp>>20, c.s.opts.MaxRAM>>10)
	if slower == 1 && (c.broken == 0 || c.peak.Used < c.peak.Limit*9/10 || c.temp < 15*c.s.opts.MaxRAM) {
		t.Error("it was not crowded")
	}
	c.end()
}

// TestL9_FreedUnderASnapshot: the originals of freed blocks stay where they are, in
// the data file, and take no frame and no temporary storage. What is known of them
// is counted all the same: when there is no more room the snapshot ends, and not
// the transaction that frees.
func TestL9_FreedUnderASnapshot(t *testing.T) {
	c := newCrowd(t, 8000)
	settle(t, c.s)
	c.readers = append(c.readers, beginRead(t, c.s))
	taken := c.s.opts.MaxRAM * 3 / 8 // so that it does not take so many
	c.s.cache.ChargeHeap(taken)
	originals := 0
	for at := 0; at < len(c.ids); at += 500 {
		c.write(func(tx *WriteTx) {
			for _, id := range c.ids[at : at+500] {
				ok(t, tx.Free(id))
			}
		})
		originals = max(originals, c.s.snapshots.Len())
		if st := c.s.Status(); st.Cache.Temporary.UsedBytes > 100*4096 {
			t.Fatalf("%d bytes of temporary storage for originals in place", st.Cache.Temporary.UsedBytes)
		}
		c.check(c.readers[0], 20)
	}
	if c.prune(); c.broken != 1 || originals < 5000 {
		t.Errorf("%d snapshots are broken, at most %d originals", c.broken, originals)
	}
	c.s.cache.ChargeHeap(-taken)
	c.end()
}

// TestL9_TransactionIsBounded: a transaction of many times MaxRAM is taken; what is
// too much even for temporary storage without end is refused, and nothing is lost.
func TestL9_TransactionIsBounded(t *testing.T) {
	c := newCrowd(t, 10)
	tx, err := c.s.BeginWrite()
	ok(t, err)
	blocks := int64(0)
	for ; err == nil; blocks++ {
		var b Block
		if b, err = tx.Alloc(block.TypeLeaf); err == nil {
			b.Release()
		}
	}
	if most := c.s.opts.MaxRAM/2/privateBytes + 1; !errors.Is(err, ErrTxTooLarge) || blocks > most || blocks*4096 < 10*c.s.opts.MaxRAM {
		t.Fatalf("%d blocks: %v", blocks, err)
	}
	if l := c.s.Status().Cache; l.Index*4096+l.LentBytes > blocks*awayBytes*11/10 {
		t.Errorf("%d blocks: %+v", blocks, l)
	}
	ok(t, tx.Rollback())
	c.change(5)
	c.end()
}

// TestL9_TransactionWaitsForTheCleaner: the heads that a large commit left in
// temporary storage have the room that the next one needs. Snapshots do not pay for
// that.
func TestL9_TransactionWaitsForTheCleaner(t *testing.T) {
	c := newCrowd(t, 200)
	settle(t, c.s)
	c.readers = append(c.readers, beginRead(t, c.s))
	h := newGates(c.s.opts.FS.(*simfs.FS)).every(simfs.OpWrite, fileData)
	edits := 200
	large := func(tx *WriteTx) {
		for _, id := range c.ids[:edits] {
			b, err := tx.Edit(id)
			ok(t, err)
			c.fill(tx, b)
		}
		for range 6500 {
			b, err := tx.Alloc(block.TypeLeaf)
			ok(t, err)
			c.ids = append(c.ids, b.ID())
			c.fill(tx, b)
		}
	}
	c.write(large)
	if bare := c.bareHeads(); bare < 6500 || bare != c.s.cache.FrozenHeads() {
		t.Errorf("%d heads have no frame, %d of them are frozen", bare, c.s.cache.FrozenHeads())
	}
	edits = 0 // they would need frames, and wait for the cleaner because of that
	done := async(func() { c.write(large) })
	<-h.reached
	eventually(t, func() string {
		if c.s.Status().IndexWaits == 0 {
			return "the transaction finds room"
		}
		return ""
	})
	mustWait(t, done, "a transaction that has no room")
	h.open()
	<-done
	if c.readers[0].reader.Err() != nil {
		t.Error("a snapshot was broken for it")
	}
	c.check(c.readers[0], 500)
	r := beginRead(t, c.s)
	if !c.check(r, 2000) {
		t.Error("broken")
	}
	r.Close()
	c.end()
}

// bareHeads counts the heads that have no frame.
func (c *crowd) bareHeads() (n int64) {
	c.s.cache.EachLatch(func(l *blockcache.Latch) {
		l.Heads(func(v *blockcache.Version) {
			if v.Data() == nil {
				n++
			}
		})
	})
	return n
}

// TestL9_BackupAsksForItsBuffers, and its end gives them back.
func TestL9_BackupAsksForItsBuffers(t *testing.T) {
	s, _ := oneBlock(t, smallOptions(simfs.New()))
	p := openBackup(t, s)
	ok(t, p.b.Charge(10_000))
	ok(t, p.b.Charge(20_000))
	p.b.Uncharge(5000)
	if got := s.Status().Cache.LentBytes; got != 2*25_000 {
		t.Errorf("%d bytes are lent", got)
	}
	if err := p.b.Charge(s.opts.MaxRAM); !errors.Is(err, ErrBudget) {
		t.Errorf("as much as MaxRAM: %v", err)
	}
	ok(t, p.rest(t))
	ok(t, p.b.Close())
	if err := p.b.Charge(1); !errors.Is(err, ErrTxDone) {
		t.Errorf("after Close: %v", err)
	}
	p.b.Uncharge(5000)
	mustClose(t, s) // nothing is lent then
}

// TestR4_EndOfAnOriginalThatIsBeingRead: its slot is given back, and used for
// something else, while a reader is on the way to it. That reader is told why it
// gets nothing.
func TestR4_EndOfAnOriginalThatIsBeingRead(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	ok(t, fsys.Mkdir("/temp", 0o700))
	ok(t, fsys.Mkdir(testDir, 0o700))
	o := smallOptions(fsys)
	o.Temp = []TempDir{{Path: "/temp", BytesMax: 1 << 20}}
	s, id := oneBlock(t, o)
	r := beginRead(t, s)
	set(t, s, id, 2)
	settle(t, s)
	squeeze(t, s)
	if st := s.Status().Cache; st.Originals != 0 || st.Temporary.UsedBytes == 0 {
		t.Fatalf("the original is not in temporary storage: %+v", st)
	}
	h := g.next(simfs.OpRead, "/temp/*")
	done := async(func() {
		var broken *snapshot.BrokenError
		if _, err := r.Block(id); !errors.As(err, &broken) {
			t.Errorf("the original is gone, and its reader gets %v", err)
		}
	})
	<-h.reached
	s.snapshots.BreakAll(snapshot.ReasonClosed)
	if n := s.snapshots.Len(); n != 0 {
		t.Fatalf("%d originals are left", n)
	}
	tx, err := s.BeginWrite()
	ok(t, err)
	for err == nil { // until temporary storage is full: one goes where the original was
		var b Block
		if b, err = tx.Alloc(block.TypeLeaf); err == nil {
			b.Release()
		}
	}
	ok(t, tx.Rollback())
	h.open()
	<-done
	r.Close()
	mustClose(t, s)
}

// TestR9_TailIsSecuredInSlices: more originals than are looked at at once lie
// behind a high-water mark that falls.
func TestR9_TailIsSecuredInSlices(t *testing.T) {
	c := newCrowd(t, 1000)
	settle(t, c.s)
	c.readers = append(c.readers, beginRead(t, c.s))
	c.write(func(tx *WriteTx) {
		for _, id := range c.ids[10:] {
			ok(t, tx.Free(id))
		}
	})
	squeeze(t, c.s)
	before := c.s.data.length()
	settle(t, c.s)
	if after := c.s.data.length(); after >= before/2 {
		t.Fatalf("the file is not cut: %d bytes, were %d", after, before)
	}
	if !c.check(c.readers[0], 3000) {
		t.Fatal("broken")
	}
	c.end()
}

// TestR13_NoTransactionFailsForWhatSnapshotsHold: temporary storage that a reader has
// filled with originals has room for the private blocks of a transaction, if need be by
// the reader's end.
func TestR13_NoTransactionFailsForWhatSnapshotsHold(t *testing.T) {
	o := smallOptions(simfs.New())
	o.Temp[0].BytesMax, o.OverflowMax = 1<<20, -1
	c := &crowd{t: t, rng: rand.New(rand.NewPCG(chance.Seed(t), 1)), dog: newWatchdog(t), changes: map[block.ID][]block.LSN{}}
	c.s = c.dog.watch(mustOpen(t, o))
	c.grow(600, 100)
	for range 20 {
		r, err := c.s.BeginRead()
		ok(t, err)
		for range 3 {
			c.change(200)
		}
		if !c.check(r, 20) {
			c.broken++
		}
		r.Close()
	}
	if c.broken == 0 {
		t.Error("temporary storage had room for all of it")
	}
	c.end()
}
