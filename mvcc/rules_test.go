package mvcc

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// A handle of a transaction that has ended does nothing, whoever writes now.
func TestWriteTx_LateRollbackHitsNobodyElse(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	m := newModel()
	rng := rand.New(rand.NewPCG(1, 1))
	first, err := s.BeginWrite()
	ok(t, err)
	_, err = first.Commit()
	ok(t, err)
	w, err := begin(t, s, m, rng)
	ok(t, err)
	ok(t, w.alloc())
	ok(t, first.Rollback())
	if _, err := first.Alloc(block.TypeLeaf); !errors.Is(err, ErrTxDone) {
		t.Fatalf("an ended transaction allocates: %v", err)
	}
	ok(t, w.alloc())
	_, err = w.commit(m)
	ok(t, err)
	checkAll(t, s, m)
	mustClose(t, s)
}

// oneBlock makes a store whose block 13 holds n bytes of value and is in place.
func oneBlock(t *testing.T, o Options) (*Store, block.ID) {
	t.Helper()
	s := mustOpen(t, o)
	return s, anotherBlock(t, s)
}

// anotherBlock allocates a block, and is back when it is in place.
func anotherBlock(t *testing.T, s *Store) block.ID {
	t.Helper()
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Alloc(block.TypeLeaf)
	ok(t, err)
	b.Payload()[0] = 1
	b.Release()
	_, err = tx.Commit()
	ok(t, err)
	settle(t, s)
	return b.ID()
}

// set writes a value into a block.
func set(t testing.TB, s *Store, id block.ID, value byte) block.LSN {
	t.Helper()
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Edit(id)
	ok(t, err)
	b.Payload()[0] = value
	b.Release()
	lsn, err := tx.Commit()
	ok(t, err)
	return lsn
}

func value(t testing.TB, r *ReadTx, id block.ID) byte {
	t.Helper()
	b, err := r.Block(id)
	ok(t, err)
	defer b.Release()
	return b.Payload()[0]
}

func beginRead(t testing.TB, s *Store) *ReadTx {
	t.Helper()
	r, err := s.BeginRead()
	ok(t, err)
	return r
}

// TestR21_CloseUnderABorrowedBlock: whoever still has a block when Close gives
// up waiting reads what it lent, and then gets a typed error.
func TestR21_CloseUnderABorrowedBlock(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	s, id := oneBlock(t, smallOptions(simfs.New()))
	r := beginRead(t, s)
	b, err := r.Block(id)
	ok(t, err)
	ok(t, s.Close())
	if b.Payload()[0] != 1 {
		t.Fatal("a borrowed block has changed")
	}
	b.Release()
	var broken *snapshot.BrokenError
	if _, err := r.Block(id); !errors.As(err, &broken) || broken.Reason != snapshot.ReasonClosed {
		t.Fatalf("after Close: %v", err)
	}
	r.Close()
	if _, err := s.BeginRead(); !errors.Is(err, ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}

// TestR21_CloseBreaksBackup: the next use of a backup says why it ended.
func TestR21_CloseBreaksBackup(t *testing.T) {
	s, _ := oneBlock(t, smallOptions(simfs.New()))
	p := openBackup(t, s)
	ok(t, p.pull(t, 1))
	ok(t, s.Close())
	var broken *snapshot.BrokenError
	if err := p.rest(t); !errors.As(err, &broken) || broken.Reason != snapshot.ReasonClosed {
		t.Fatalf("after Close: %v", err)
	}
	ok(t, p.b.Close())
}

const (
	fileData   = testDir + "/data"
	fileSecond = testDir + "/doublewrite"
	filesLog   = testDir + "/log/*"
)

// TestR1_HorizonIsAReader: a reader that opens while a newer commit waits for
// its sync sees what was before, then and later.
func TestR1_HorizonIsAReader(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	s, id := oneBlock(t, smallOptions(fsys))
	h := g.every(simfs.OpSync, filesLog)
	done := async(func() { set(t, s, id, 2) })
	published(t, s, 2)
	r := beginRead(t, s)
	if r.LSN() != 1 || value(t, r, id) != 1 {
		t.Fatalf("a reader at %v sees %d while 2 is pending (L7)", r.LSN(), value(t, r, id))
	}
	mustWait(t, done, "a commit whose log is not synced")
	h.open()
	<-done
	if value(t, r, id) != 1 {
		t.Fatal("a snapshot has changed (L1)")
	}
	if r2 := beginRead(t, s); value(t, r2, id) != 2 {
		t.Fatal("acknowledged and not visible")
	} else {
		r2.Close()
	}
	r.Close()
	mustClose(t, s)
}

func published(t testing.TB, s *Store, lsn block.LSN) {
	t.Helper()
	eventually(t, func() string {
		if s.newestLSN() != lsn {
			return "not published"
		}
		return ""
	})
}

// TestR3_SuccessorWaitsForItsBase: what a write transaction saw is durable when
// it returns, changed or not.
func TestR3_SuccessorWaitsForItsBase(t *testing.T) {
	for name, end := range map[string]func(*WriteTx) error{
		"rolled back": (*WriteTx).Rollback,
		"unchanged":   func(tx *WriteTx) error { _, err := tx.Commit(); return err },
	} {
		t.Run(name, func(t *testing.T) {
			fsys := simfs.New()
			g := newGates(fsys)
			s, id := oneBlock(t, smallOptions(fsys))
			h := g.every(simfs.OpSync, filesLog)
			first := async(func() { set(t, s, id, 2) })
			published(t, s, 2)
			second := async(func() {
				tx, err := s.BeginWrite()
				ok(t, err)
				b, err := tx.Block(id)
				ok(t, err)
				if tx.Base() != 2 || b.Payload()[0] != 2 {
					t.Errorf("base %v", tx.Base())
				}
				b.Release()
				ok(t, end(tx))
			})
			mustWait(t, second, name)
			h.open()
			<-first
			<-second
			mustClose(t, s)
		})
	}
}

// TestR4_StaleAccept: the file holds a sound version with an LSN below S that
// is not the one S needs, which is dirty in RAM.
func TestR4_StaleAccept(t *testing.T) {
	s, id := oneBlock(t, smallOptions(simfs.New()))
	set(t, s, id, 2)
	p := openBackup(t, s)
	ok(t, p.rest(t))
	if got := p.images[id][0]; got != 2 {
		t.Fatalf("the backup has version %d", got)
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR4_DirectReadRacesCleaner: between the decision to read the file and the
// read itself the block is changed and written in place.
func TestR4_DirectReadRacesCleaner(t *testing.T) {
	for _, cached := range []bool{true, false} {
		directReadRace(t, cached)
	}
}

func directReadRace(t *testing.T, cached bool) {
	fsys := simfs.New()
	g := newGates(fsys)
	s, id := oneBlock(t, smallOptions(fsys))
	if !cached { // then only the LSN tells
		mustClose(t, s)
		s = mustOpen(t, s.opts)
	}
	p := openBackup(t, s)
	at := s.geo.offset(id)
	h := g.next(simfs.OpRead, fileData, func(ev simfs.Event) bool { return ev.Off <= at && at < ev.Off+ev.Len })
	done := async(func() { ok(t, p.rest(t)) })
	<-h.reached
	set(t, s, id, 2)
	settle(t, s)
	h.open()
	<-done
	if got := p.images[id][0]; got != 1 {
		t.Fatalf("the backup of LSN 1 has version %d", got)
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR4_StaleFill: who changes a block waits for a read of it that is in
// flight, so what that read brings is not put over the change.
func TestR4_StaleFill(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	o := smallOptions(fsys)
	s, id := oneBlock(t, o)
	mustClose(t, s)
	s = mustOpen(t, o)
	r := beginRead(t, s)
	h := g.next(simfs.OpRead, fileData, func(ev simfs.Event) bool { return ev.Off == s.geo.offset(id) })
	read := async(func() {
		if got := value(t, r, id); got != 1 {
			t.Errorf("read %d", got)
		}
	})
	<-h.reached
	wrote := async(func() { set(t, s, id, 2); settle(t, s) })
	mustWait(t, wrote, "a change of a block that is being read")
	h.open()
	<-read
	<-wrote
	r2 := beginRead(t, s)
	if value(t, r, id) != 1 || value(t, r2, id) != 2 {
		t.Fatal("a read in flight has undone a change")
	}
	r.Close()
	r2.Close()
	mustClose(t, s)
}

// squeeze takes all the frames that can be had without I/O, so that everything
// leaves RAM that has another place.
func squeeze(t testing.TB, s *Store) {
	t.Helper()
	var taken [][]byte
	for int64(len(taken)) < s.cache.Room()-s.cache.Frames(blockcache.ClassDirty)-2 {
		d, err := s.cache.NewFrame()
		ok(t, err)
		taken = append(taken, d)
	}
	for _, d := range taken {
		s.cache.GiveFrame(d)
	}
}

// inPlaceOriginal leaves the store with block 13 changed from 1 to 2 under a
// reader, and the original nowhere but in the data file.
func inPlaceOriginal(t *testing.T, s *Store, id block.ID) *ReadTx {
	t.Helper()
	r := beginRead(t, s)
	set(t, s, id, 2)
	squeeze(t, s)
	l := s.cache.Latch(id)
	v := s.snapshots.Find(id, 1)
	if v == nil || v.Data() != nil || v.Slot() != 0 || !v.InPlace {
		t.Fatal("the original is not only in the data file")
	}
	l.Unlock()
	return r
}

// TestL4_InPlaceCostsNothing, and R4: it is secured before it is overwritten.
func TestL4_R4_LostOriginal(t *testing.T) {
	s, id := oneBlock(t, smallOptions(simfs.New()))
	r := inPlaceOriginal(t, s, id)
	if n, used := s.cache.Frames(blockcache.ClassOriginal), s.cache.Stats().Temporary.UsedBytes; n != 0 || used != 0 {
		t.Fatalf("%d frames and %d bytes of temporary storage for an original in place", n, used)
	}
	settle(t, s)
	if s.secured.Load() != 1 {
		t.Fatal("not secured")
	}
	squeeze(t, s) // as any original it can leave RAM now
	if used := s.cache.Stats().Temporary.UsedBytes; used == 0 {
		t.Error("it is not in temporary storage")
	}
	if value(t, r, id) != 1 {
		t.Fatal("the original is lost")
	}
	r.Close()
	mustClose(t, s)
}

// TestR4_SecuringFailsBreaksSnapshots, not the store.
func TestR4_SecuringFailsBreaksSnapshots(t *testing.T) {
	fsys := simfs.New()
	s, id := oneBlock(t, smallOptions(fsys))
	r := inPlaceOriginal(t, s, id)
	newer := beginRead(t, s)
	fault := fsys.Fail(simfs.Fault{Ops: simfs.OpRead, File: fileData, Off: s.geo.offset(id), Len: 1})
	settle(t, s)
	if fault.Fired() != 1 || s.state.failure() != nil {
		t.Fatalf("fired %d, store: %v", fault.Fired(), s.state.failure())
	}
	var broken *snapshot.BrokenError
	for range 2 {
		if _, err := r.Block(id); !errors.As(err, &broken) || broken.Reason != snapshot.ReasonUnreadable || !errors.Is(err, syscall.EIO) {
			t.Fatalf("%v", err)
		}
	}
	if value(t, newer, id) != 2 {
		t.Fatal("wrong")
	}
	set(t, s, id, 3)
	if value(t, newer, id) != 2 {
		t.Fatal("wrong")
	}
	r.Close()
	newer.Close()
	mustClose(t, s)
}

// TestR6_BackupIsDurable also in the mode that never syncs.
func TestR6_BackupIsDurable(t *testing.T) {
	o := smallOptions(simfs.New())
	o.Durability = DurableNever
	s, id := oneBlock(t, o)
	set(t, s, id, 2)
	p := openBackup(t, s)
	if p.b.Info().LSN != 2 || s.log.Durable() < 2 {
		t.Fatalf("backup of %v, durable %v", p.b.Info().LSN, s.log.Durable())
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR7_RedoOfOneLargeCommit: a commit that changes more blocks than there are
// frames is redone.
func TestR7_RedoOfOneLargeCommit(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s := mustOpen(t, o)
	m := newModel()
	w, err := begin(t, s, m, rand.New(rand.NewPCG(1, 1)))
	ok(t, err)
	for i := range 1500 {
		b, err := w.tx.Alloc(block.TypeLeaf)
		ok(t, err)
		b.Payload()[7] = byte(i)
		w.note(b)
		b.Release()
	}
	_, err = w.commit(m)
	ok(t, err)
	o.FS = fsys.Crash(nil, simfs.DropAll)
	ok(t, s.Close())
	dog := newWatchdog(t)
	s = dog.watch(mustOpen(t, o))
	checkAll(t, s, m)
	mustClose(t, s)
}

// TestR7_L10_VoidCommit: temporary storage loses a private block in the middle
// of a commit's redo. That transaction fails, and only that.
func TestR7_L10_VoidCommit(t *testing.T) {
	for _, skip := range []int{0, 300, 500, 700} {
		fsys := simfs.New()
		ok(t, fsys.Mkdir(testDir, 0o700))
		ok(t, fsys.Mkdir("/temp", 0o700))
		o := smallOptions(fsys)
		o.Temp = []TempDir{{Path: "/temp", BytesMax: 64 << 20}}
		c := &faultRun{crashRun: crashRun{t: t, o: o, m: newModel(), rng: rand.New(rand.NewPCG(1, uint64(skip)))}}
		c.s = mustOpen(t, o)
		ok(t, c.commits(2, 10, 40))
		fault := fsys.Fail(simfs.Fault{Ops: simfs.OpRead, File: "/temp/*", Skip: skip})
		c.try(func(w *writeOp) error {
			for range 900 {
				b, err := w.tx.Alloc(block.TypeLeaf)
				if err != nil {
					return err
				}
				for i := range b.Payload() {
					b.Payload()[i] = byte(c.rng.Uint32()) // nothing that shortens redo
				}
				w.note(b)
				b.Release()
			}
			return nil
		})
		if fault.Fired() != 1 || c.s.state.failure() != nil {
			t.Fatalf("fired %d, store: %v", fault.Fired(), c.s.state.failure())
		}
		checkAll(t, c.s, c.m)
		ok(t, c.commits(3, 10, 40))
		c.checkAfter(fsys.Crash(nil, simfs.DropAll), "void commit", nil)
		mustClose(t, c.s)
	}
}

// TestL8_NoAckAfterPoison: also not for a transaction that had begun before.
func TestL8_NoAckAfterPoison(t *testing.T) {
	fsys := simfs.New()
	s, id := oneBlock(t, smallOptions(fsys))
	set(t, s, id, 2)
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Edit(id)
	ok(t, err)
	b.Payload()[0] = 3
	b.Release()
	fsys.Fail(simfs.Fault{Ops: simfs.OpWrite, File: fileData})
	if err := s.cleaner.awaitRound(s.cleaner.rounds()); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("%v", err)
	}
	if _, err := tx.Commit(); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("committed on a failed store: %v", err)
	}
	if _, err := s.BeginWrite(); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("%v", err)
	}
	r := beginRead(t, s)
	if value(t, r, id) != 2 {
		t.Fatal("reads do not go on")
	}
	r.Close()
	if _, err := s.OpenBackup(t.Context(), BackupOptions{}); !errors.Is(err, ErrEmergency) || !errors.Is(err, ErrPoisoned) {
		t.Fatalf("a backup of a failed store that is no rescue: %v", err)
	}
	rescue, err := s.OpenBackup(t.Context(), BackupOptions{Rescue: true})
	ok(t, err)
	p := &backupPull{b: rescue, images: map[block.ID][]byte{}}
	ok(t, p.rest(t))
	if p.images[id][0] != 2 {
		t.Fatal("the rescue backup is wrong")
	}
	ok(t, p.b.Close())
	if err := s.Close(); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("%v", err)
	}
	o := smallOptions(fsys)
	s = mustOpen(t, o)
	r = beginRead(t, s)
	if value(t, r, id) != 2 {
		t.Fatal("lost")
	}
	r.Close()
	mustClose(t, s)
}

// TestR9_AllocFreeAlloc under a snapshot of each state.
func TestR9_AllocFreeAlloc(t *testing.T) {
	for _, clean := range []bool{false, true} {
		pause := func(s *Store) {
			if clean {
				settle(t, s)
			}
		}
		s, id := oneBlock(t, smallOptions(simfs.New()))
		r1 := beginRead(t, s)
		tx, err := s.BeginWrite()
		ok(t, err)
		ok(t, tx.Free(id))
		_, err = tx.Commit()
		ok(t, err)
		pause(s)
		r2 := beginRead(t, s)
		tx, err = s.BeginWrite()
		ok(t, err)
		b, err := tx.Alloc(block.TypeOverflow)
		ok(t, err)
		if b.ID() != id {
			t.Fatal("not used again at once (L11)")
		}
		b.Payload()[0] = 3
		b.Release()
		_, err = tx.Commit()
		ok(t, err)
		pause(s)
		r3 := beginRead(t, s)
		if value(t, r1, id) != 1 || value(t, r3, id) != 3 {
			t.Fatal("wrong version")
		}
		if _, err := r2.Block(id); !errors.Is(err, ErrNotInUse) {
			t.Fatalf("a block that was free: %v", err)
		}
		for _, r := range []*ReadTx{r1, r2, r3} {
			r.Close()
		}
		mustClose(t, s)
	}
}

// TestR9_HighWaterFallsUnderSnapshot: truncating secures the originals behind.
func TestR9_HighWaterFallsUnderSnapshot(t *testing.T) {
	fsys := simfs.New()
	c := &crashRun{t: t, o: smallOptions(fsys), m: newModel(), rng: rand.New(rand.NewPCG(1, 1))}
	c.s = mustOpen(t, c.o)
	for range 4 {
		ok(t, c.allocMany(100))
	}
	settle(t, c.s)
	r := beginRead(t, c.s)
	b := openBackup(t, c.s)
	ok(t, c.freeAll(3))
	before := c.s.data.length()
	squeeze(t, c.s)
	settle(t, c.s)
	if after := c.s.data.length(); after >= before {
		t.Fatalf("the file is not cut: %d bytes", after)
	}
	checkRead(t, r, c.m)
	if err := r.reader.Err(); err != nil {
		t.Fatal(err)
	}
	ok(t, b.rest(t))
	b.restore(t, c.m)
	ok(t, b.b.Close())
	ok(t, c.allocMany(50))
	settle(t, c.s)
	checkRead(t, r, c.m)
	r.Close()
	mustClose(t, c.s)
}

// TestR10_ErrorsOfNextLoseNothing: each read of the data file fails once, and
// the context ends now and then; who calls Next again gets all blocks.
func TestR10_ErrorsOfNextLoseNothing(t *testing.T) {
	fsys := simfs.New()
	c := &crashRun{t: t, o: smallOptions(fsys), m: newModel(), rng: rand.New(rand.NewPCG(1, 1))}
	c.s = mustOpen(t, c.o)
	ok(t, c.allocMany(60))
	mustClose(t, c.s)
	for skip := range 12 {
		s := mustOpen(t, c.o) // nothing in the cache
		p := openBackup(t, s)
		fault := fsys.Fail(simfs.Fault{Ops: simfs.OpRead, File: fileData, Skip: skip, Sticky: true})
		for !p.done {
			err := p.pull(t, 9)
			if err != nil {
				if !errors.Is(err, syscall.EIO) {
					t.Fatal(err)
				}
				fault.Disarm()
			}
			gone, cancel := context.WithCancel(context.Background())
			cancel()
			if n, err := p.b.Next(gone, make([]byte, 8*4096), make([]block.ID, 8)); n != 0 || !errors.Is(err, context.Canceled) {
				t.Fatalf("a context that is over: %d, %v", n, err)
			}
		}
		fault.Disarm()
		p.restore(t, c.m)
		ok(t, p.b.Close())
		mustClose(t, s)
	}
}

// TestL2_OneOriginalForAll: three readers and a backup share one original.
func TestL2_OneOriginalForAll(t *testing.T) {
	s, id := oneBlock(t, smallOptions(simfs.New()))
	var readers []*ReadTx
	for range 3 {
		readers = append(readers, beginRead(t, s))
	}
	p := openBackup(t, s)
	set(t, s, id, 2)
	l := s.cache.Latch(id)
	if v := s.snapshots.Find(id, 1); v == nil {
		t.Fatal("no original")
	}
	l.Unlock()
	if n := s.snapshots.Len(); n != 1 {
		t.Fatalf("%d originals of one changed block", n)
	}
	if c := p.b.Cost(); c.OriginalsMade != 1 || c.OriginalsShared != 1 {
		t.Fatalf("%+v", c)
	}
	for _, r := range readers {
		if value(t, r, id) != 1 {
			t.Fatal("wrong")
		}
		r.Close()
	}
	if s.snapshots.Len() != 1 {
		t.Fatal("the backup has lost its original")
	}
	ok(t, p.rest(t))
	if p.images[id][0] != 1 || s.snapshots.Len() != 0 { // L3
		t.Fatalf("%d originals behind a backup that has everything", s.snapshots.Len())
	}
	set(t, s, id, 3)
	if s.snapshots.Len() != 0 {
		t.Fatal("an original for a backup that has the block (L3)")
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}
