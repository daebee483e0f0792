package mvcc

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc64"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// someBlocks allocates n blocks, each with the number of its commit, one commit for
// each.
func someBlocks(t testing.TB, s *Store, n int) (ids []block.ID) {
	t.Helper()
	for range n {
		tx, err := s.BeginWrite()
		ok(t, err)
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		b.Payload()[0] = byte(tx.Base() + 1)
		ids = append(ids, b.ID())
		b.Release()
		_, err = tx.Commit()
		ok(t, err)
	}
	return ids
}

// drop frees blocks.
func drop(t testing.TB, s *Store, ids ...block.ID) block.LSN {
	t.Helper()
	tx, err := s.BeginWrite()
	ok(t, err)
	for _, id := range ids {
		ok(t, tx.Free(id))
	}
	lsn, err := tx.Commit()
	ok(t, err)
	return lsn
}

// TestR11_L3_NotCarriedIsNotKept: base 100, S = 200, mark 50: commit 201 replaces a
// block that is not carried. No original is kept, and the scan, which finds mark 201,
// does not take the block for carried, wherever its newest version is. Of the same
// extent, a block of commit 150 is kept and handed out as it was.
func TestR11_L3_NotCarriedIsNotKept(t *testing.T) {
	for name, after := range map[string]func(*Store){
		"dirty":   func(*Store) {},
		"cleaned": func(s *Store) { settle(t, s) },
		"evicted": func(s *Store) { settle(t, s); squeeze(t, s) },
		"freed":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := mustOpen(t, smallOptions(simfs.New()))
			ids := someBlocks(t, s, 60)
			base := s.newestLSN()
			settle(t, s)
			old, carried := ids[20], ids[21] // of one extent
			if s.geo.extentsOf(old).at(old) != s.geo.extentsOf(carried).at(carried) {
				t.Fatal("not of one extent")
			}
			lsn := set(t, s, carried, 150)
			p := openIncremental(t, s, base, 0)
			if after != nil {
				set(t, s, old, 201)
				set(t, s, carried, 202)
				after(s)
			} else {
				drop(t, s, old, carried)
			}
			want := uint64(1)
			if after == nil {
				want = 2 // and the bitmap, until its group is listed
			}
			if c := p.b.Cost(); c.OriginalsMade != want {
				t.Fatalf("%d originals were kept, want the one that is carried", c.OriginalsMade)
			}
			ok(t, p.rest(t))
			im := p.images[carried]
			if len(p.images) != 1 || im == nil || im[0] != 150 {
				t.Fatalf("handed out: %d blocks", len(p.images))
			}
			if tr, _ := block.Verify(im, carried, s.data.seed); tr.LSN != lsn {
				t.Fatalf("handed out version %v, want %v", tr.LSN, lsn)
			}
			if n := s.snapshots.Len(); n != 0 {
				t.Fatalf("%d originals are kept behind", n)
			}
			ok(t, p.b.Close())
			mustClose(t, s)
		})
	}
}

// TestR11_FreedAndNotDurableIsCarried: a block that is carried is free as of a commit that is
// not durable yet. Its head says so, and hides the version of S behind it, which is carried
// all the same.
func TestR11_FreedAndNotDurableIsCarried(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	s := mustOpen(t, smallOptions(fsys))
	ids := someBlocks(t, s, 30)
	base := s.newestLSN()
	set(t, s, ids[3], 99)
	p := openIncremental(t, s, base, 0)
	tx, err := s.BeginWrite()
	ok(t, err)
	ok(t, tx.Free(ids[3]))
	sync := g.every(simfs.OpSync, filesLog)
	var failed error
	freed := async(func() { _, failed = tx.Commit() })
	<-sync.reached
	eventually(t, func() string {
		if !isFreed(s, ids[3]) {
			return "the free is not on its way"
		}
		return ""
	})
	err = p.rest(t)
	sync.open()
	<-freed
	ok(t, errors.Join(err, failed))
	if im := p.images[ids[3]]; im == nil || im[0] != 99 {
		t.Fatalf("%d blocks, and not the one that was freed", len(p.images))
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR11_BitmapIsKeptUntilListed: what was in use at S is known only by the bitmap as
// of S. Its version is below the base, and it is changed behind S; the block that was
// freed below S must not come back.
func TestR11_BitmapIsKeptUntilListed(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	ids := someBlocks(t, s, 30)
	base := s.newestLSN()
	set(t, s, ids[3], 99)
	p := openIncremental(t, s, base, 0)
	settle(t, s)
	drop(t, s, ids[3], ids[4])
	settle(t, s)
	ok(t, p.rest(t))
	if im := p.images[ids[3]]; len(p.images) != 1 || im == nil || im[0] != 99 {
		t.Fatalf("%d blocks", len(p.images))
	}
	if n := s.snapshots.Len(); n != 0 {
		t.Fatalf("%d originals are left", n)
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR11_DamageIsNotTakenForFree: of a block that is not carried and was freed since,
// the file may hold anything. But a block that is carried and cannot be read is an
// error, not one block less.
func TestR11_DamageIsNotTakenForFree(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s := mustOpen(t, o)
	ids := someBlocks(t, s, 30)
	base := s.newestLSN()
	settle(t, s)
	lsn := set(t, s, ids[4], 99)
	mustClose(t, s)
	s = mustOpen(t, o)
	p := openIncremental(t, s, base, 0)
	drop(t, s, ids[3])
	settle(t, s)
	for _, id := range ids[3:5] {
		ok(t, fsys.FlipBits(fileData, s.geo.offset(id)+9, 1))
	}
	for range 2 {
		var damage *block.CorruptError
		if err := p.rest(t); !errors.As(err, &damage) || damage.Block != ids[4] {
			t.Fatalf("block %v@%v is damaged: %v", ids[4], lsn, err)
		}
	}
	ok(t, fsys.FlipBits(fileData, s.geo.offset(ids[4])+9, 1))
	ok(t, p.rest(t))
	if len(p.images) != 1 || p.images[ids[4]] == nil {
		t.Fatalf("%d blocks", len(p.images))
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestD5_DamageOfABlockThatWasFreed: a full backup wants a block that was in use at its
// commit, also if it was freed since. If its place rotted that is damage, and is told so.
func TestD5_DamageOfABlockThatWasFreed(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s := mustOpen(t, o)
	ids := someBlocks(t, s, 30)
	settle(t, s)
	mustClose(t, s)
	s = mustOpen(t, o)
	p := openBackup(t, s)
	drop(t, s, ids[3])
	settle(t, s)
	squeeze(t, s) // its original is in place and nowhere else
	ok(t, fsys.FlipBits(fileData, s.geo.offset(ids[3])+9, 1))
	for range 2 {
		var damage *block.CorruptError
		if err := p.rest(t); !errors.As(err, &damage) || damage.Block != ids[3] {
			t.Fatalf("block %v is damaged: %v", ids[3], err)
		}
	}
	ok(t, fsys.FlipBits(fileData, s.geo.offset(ids[3])+9, 1))
	ok(t, p.rest(t))
	if p.images[ids[3]] == nil {
		t.Fatal("it is not in the backup")
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR11_AuditIsWantedFromTheStart: blocks to audit are handed out as they were, also if
// they are overwritten or freed right after the backup was opened; and no others.
func TestR11_AuditIsWantedFromTheStart(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	ids := someBlocks(t, s, 60)
	base := s.newestLSN()
	set(t, s, ids[0], 99)
	p := openIncremental(t, s, base, 20)
	audit := slices.Sorted(maps.Keys(p.audited()))
	if len(audit) != 20 {
		t.Fatalf("%d blocks are audited", len(audit))
	}
	for _, id := range ids[1:] {
		set(t, s, id, 100)
	}
	drop(t, s, ids...)
	settle(t, s)
	squeeze(t, s)
	ok(t, p.rest(t))
	for i, id := range ids {
		im := p.images[id]
		_, audited := p.audited()[id]
		switch {
		case i == 0 && (im == nil || im[0] != 99):
			t.Fatal("the changed block is missing")
		case i > 0 && audited != (im != nil):
			t.Fatalf("block %v, audited %v, handed out %v", id, audited, im != nil)
		case audited && im[0] != byte(i+1):
			t.Fatalf("block %v holds %d, want %d", id, im[0], i+1)
		}
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR11_AuditIsWantedWhileDrawn: a commit that comes between S and the end of the draw
// does not take an audited block away.
func TestR11_AuditIsWantedWhileDrawn(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	o := smallOptions(fsys)
	s := mustOpen(t, o)
	ids := someBlocks(t, s, 60)
	base := s.newestLSN()
	mustClose(t, s)
	s = mustOpen(t, o) // the bitmap is not in RAM
	at := s.geo.offset(s.geo.bitmapOf(0))
	h := g.next(simfs.OpRead, fileData, func(ev simfs.Event) bool { return ev.Off == at })
	var p *backupPull
	opened := async(func() { p = openIncremental(t, s, base, 1) })
	<-h.reached
	for _, id := range ids {
		set(t, s, id, 100)
	}
	h.open()
	<-opened
	ok(t, p.rest(t))
	if len(p.images) != 1 {
		t.Fatalf("%d blocks", len(p.images))
	}
	for id, im := range p.images {
		if im[0] != byte(1+slices.Index(ids, id)) {
			t.Fatalf("block %v holds %d", id, im[0])
		}
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR16_AuditFindsALowMark: a map that is behind is told, loudly, and no base so far is
// taken any more; also not after opening again.
func TestR16_AuditFindsALowMark(t *testing.T) {
	o := smallOptions(simfs.New())
	s := mustOpen(t, o)
	ids := someBlocks(t, s, 40)
	base := s.newestLSN()
	set(t, s, ids[30], 99)
	m := s.geo.extentsOf(ids[30])
	l, v, err := s.latchMap(m.id)
	ok(t, err)
	putMark(v.Data(), m.at(ids[30]), base)
	l.Unlock()
	p := openIncremental(t, s, base, len(ids)) // all of them
	for range 2 {
		if err := p.rest(t); !errors.Is(err, ErrMapBehind) {
			t.Fatalf("the audit says %v", err)
		}
	}
	ok(t, p.b.Close())
	set(t, s, ids[0], 1)
	for range 2 {
		if _, err := s.OpenBackup(context.Background(), BackupOptions{Base: base}); !errors.Is(err, ErrBase) {
			t.Fatalf("a base below what is trusted: %v", err)
		}
		mustClose(t, s)
		s = mustOpen(t, o)
	}
	full := openBackup(t, s)
	ok(t, full.rest(t))
	ok(t, full.b.Close())
	set(t, s, ids[1], 1)
	next := openIncremental(t, s, full.b.info.LSN, 5)
	ok(t, next.rest(t))
	ok(t, next.b.Close())
	mustClose(t, s)
}

// TestR16_FailedStoreHasNoIncrementals: what it reads of the map may be old.
func TestR16_FailedStoreHasNoIncrementals(t *testing.T) {
	fsys := simfs.New()
	s := mustOpen(t, smallOptions(fsys))
	ids := someBlocks(t, s, 20)
	p := openIncremental(t, s, 3, 0)
	set(t, s, ids[0], 9)
	fsys.Fail(simfs.Fault{Ops: simfs.OpSync, File: fileData, Sync: simfs.SyncCacheOld})
	if err := s.cleaner.awaitRound(s.cleaner.rounds()); !errors.Is(err, ErrPoisoned) {
		t.Fatal(err)
	}
	if err := p.rest(t); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("the incremental under way: %v", err)
	}
	ok(t, p.b.Close())
	if _, err := s.OpenBackup(context.Background(), BackupOptions{Base: 3, Rescue: true}); !errors.Is(err, ErrBase) || !errors.Is(err, ErrPoisoned) {
		t.Fatalf("a new one: %v", err)
	}
	if err := s.Close(); !errors.Is(err, ErrPoisoned) {
		t.Fatal(err)
	}
}

// TestR16_ScanReadsWhatChanged: an incremental of few changes, all over the file, reads
// their extents, and one bitmap a group and nine map blocks, twice, at most: to count, too.
func TestR16_ScanReadsWhatChanged(t *testing.T) {
	o := smallOptions(simfs.New())
	o.MaxRAM *= 4
	s := mustOpen(t, o)
	const blocks, changed = 3000, 3
	tx, err := s.BeginWrite()
	ok(t, err)
	for range blocks {
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		b.Release()
	}
	base, err := tx.Commit()
	ok(t, err)
	rng := rand.New(rand.NewPCG(chance.Seed(t), 1))
	for range changed {
		set(t, s, reserved+block.ID(rng.IntN(blocks)), 1)
	}
	mustClose(t, s)
	s = mustOpen(t, o)
	p := openIncremental(t, s, base, 0)
	ok(t, p.rest(t))
	c := p.b.ScanCost()
	if len(p.images) != changed || c.Blocks > changed*extentBlocks || c.MapBlocks > 4 || c.Bitmaps != 1 {
		t.Fatalf("%d blocks handed out for %+v", len(p.images), c)
	}
	if read := c.Blocks + c.MapBlocks + c.Bitmaps; read*100 > blocks {
		t.Fatalf("%d of %d blocks were read", read, blocks)
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR10_ErrorsOfNextLoseNothing_Incremental: as of a full backup.
func TestR10_ErrorsOfNextLoseNothing_Incremental(t *testing.T) {
	fsys := simfs.New()
	c := &crashRun{t: t, o: smallOptions(fsys), m: newModel(), rng: rand.New(rand.NewPCG(1, 1))}
	c.m.spread = true
	c.s = mustOpen(t, c.o)
	a := newArchive()
	for range 6 {
		ok(t, c.commits(1, 20, 60))
		a.record(t, c.s, c.m)
	}
	mustClose(t, c.s)
	for skip := range 12 {
		s := mustOpen(t, c.o) // nothing in the cache
		p := openIncremental(t, s, 3, 4)
		fault := fsys.Fail(simfs.Fault{Ops: simfs.OpRead, File: fileData, Skip: skip, Sticky: true})
		for !p.done {
			if err := p.pull(t, 5); err != nil {
				if !errors.Is(err, syscall.EIO) {
					t.Fatal(err)
				}
				fault.Disarm()
			}
		}
		fault.Disarm()
		a.check(t, p, c.m, true)
		ok(t, p.b.Close())
		mustClose(t, s)
	}
}

// touched is which blocks each commit of a concurrent history changed.
type touched struct {
	mu sync.Mutex
	by map[block.LSN][]block.ID
}

// TestConcurrent_R16_Incrementals: writers, checkpoints and incrementals as fast as they
// can. Every block holds the number of the commit that wrote it; each incremental
// has exactly what the commits in its range left.
func TestConcurrent_R16_Incrementals(t *testing.T) {
	o := smallOptions(simfs.New())
	dog := newWatchdog(t)
	s := dog.watch(mustOpen(t, o))
	ids := someBlocks(t, s, 40)
	far := []block.ID{farBlock(t, s)}
	ids = append(ids, far...)
	first := s.newestLSN()
	seed := chance.Seed(t)
	log := &touched{by: map[block.LSN][]block.ID{}}
	var done atomic.Bool
	var others sync.WaitGroup
	for i := range 2 {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		others.Go(func() {
			for !done.Load() {
				dog.pat()
				stamp(t, s, log, ids, rng)
			}
		})
	}
	others.Go(func() {
		for !done.Load() {
			_ = s.cleaner.awaitRound(s.cleaner.rounds())
		}
	})
	taken := 20 * *flagLong / slower
	func() {
		defer done.Store(true)
		rng := rand.New(rand.NewPCG(seed, 9))
		for range taken {
			base := first + block.LSN(rng.Uint64N(uint64(s.snapshots.Horizon()-first)+1))
			p := openIncremental(t, s, base, 3)
			if err := p.rest(t); err != nil {
				t.Error(err)
				return
			}
			log.check(t, p)
			if err := p.b.Close(); err != nil {
				t.Error(err)
			}
		}
	}()
	others.Wait()
	t.Logf("%d commits, %d incrementals", s.newestLSN(), taken)
	mustClose(t, s)
}

// stamp writes the commit's number into a few blocks.
func stamp(t *testing.T, s *Store, log *touched, ids []block.ID, rng *rand.Rand) {
	tx, err := s.BeginWrite()
	if err != nil {
		t.Error(err)
		return
	}
	lsn := tx.Base() + 1
	var mine []block.ID
	for range 1 + rng.IntN(4) {
		id := ids[rng.IntN(len(ids))]
		b, err := tx.Edit(id)
		if err != nil {
			t.Error(err)
			break
		}
		binary.LittleEndian.PutUint64(b.Payload()[8:], uint64(lsn))
		b.Release()
		mine = append(mine, id)
	}
	log.mu.Lock()
	log.by[lsn] = mine
	log.mu.Unlock()
	if _, err := tx.Commit(); err != nil {
		t.Error(err)
	}
}

// check compares an incremental with what the commits in its range touched.
func (l *touched) check(t *testing.T, p *backupPull) {
	base, lsn := p.b.info.Base, p.b.info.LSN
	want := map[block.ID]block.LSN{}
	l.mu.Lock()
	for n := base + 1; n <= lsn; n++ {
		for _, id := range l.by[n] {
			want[id] = n
		}
	}
	l.mu.Unlock()
	for id := range p.images {
		if _, audit := p.audited()[id]; !audit && want[id] == 0 {
			t.Errorf("incremental (%v, %v] hands out block %v for nothing", base, lsn, id)
		}
	}
	for id, n := range want {
		im := p.images[id]
		if im == nil {
			t.Errorf("incremental (%v, %v] has no block %v@%v", base, lsn, id, n)
			continue
		}
		if got := block.LSN(binary.LittleEndian.Uint64(im[8:])); got != n {
			t.Errorf("incremental (%v, %v] has block %v@%v, want %v", base, lsn, id, got, n)
		}
	}
}

// checkIncremental takes an incremental and proves that it has what the model says has
// changed since its base, as it is now.
func checkIncremental(t testing.TB, s *Store, m *model, base block.LSN) {
	t.Helper()
	p := openIncremental(t, s, base, 2)
	ok(t, p.rest(t))
	was, is := m.at[base].blocks, m.at[p.b.info.LSN].blocks
	for id, c := range is {
		im := p.images[id]
		if before, had := was[id]; im == nil && (!had || before != c) {
			t.Fatalf("incremental (%v, %v] has no block %v", base, p.b.info.LSN, id)
		}
		if im == nil {
			continue
		}
		tr, reason := block.Verify(im, id, s.data.seed)
		if got := (content{tr.Type, crc64.Checksum(block.Payload(im), crcTable)}); reason != "" || got != c {
			t.Fatalf("incremental (%v, %v] has block %v as %v, want %v; %s", base, p.b.info.LSN, id, got, c, reason)
		}
	}
	ok(t, p.b.Close())
}
