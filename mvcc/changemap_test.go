package mvcc

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// marksOf reads marks, each map block once.
type marksOf struct {
	t     testing.TB
	s     *Store
	known map[block.ID][]byte // nil: everything counts as changed
}

func newMarks(t testing.TB, s *Store) *marksOf { return &marksOf{t, s, map[block.ID][]byte{}} }

func (m *marksOf) in(b mapBlock, id block.ID) block.LSN {
	p, read := m.known[b.id]
	if !read {
		p = make([]byte, m.s.geo.bitsEnd)
		known, err := m.s.readMarks(b.id, p)
		ok(m.t, err)
		if !known {
			p = nil
		}
		m.known[b.id] = p
	}
	if p == nil {
		return newest
	}
	return getMark(p, b.at(id))
}

// of is the mark that decides about a block: the lower one of the two levels.
func (m *marksOf) of(id block.ID) block.LSN {
	return min(m.in(m.s.geo.extentsOf(id), id), m.in(m.s.geo.regionsOf(m.s.geo.groupOf(id)), id))
}

// checkMarks proves that no extent's mark is below the LSN of a block in it, or of
// the last change or free that the model knows of (R16).
func checkMarks(t testing.TB, s *Store, m *model) {
	t.Helper()
	r := beginRead(t, s)
	defer r.Close()
	marks := newMarks(t, s)
	last := map[block.ID]block.LSN{}
	for lsn := 1; lsn <= int(r.LSN()); lsn++ {
		was, is := m.at[lsn-1].blocks, m.at[lsn].blocks
		for id, c := range is {
			if before, had := was[id]; !had || before != c {
				last[id] = block.LSN(lsn)
			}
		}
		for id := range was {
			if _, has := is[id]; !has {
				last[id] = block.LSN(lsn)
			}
		}
	}
	for id, lsn := range last {
		if mark := marks.of(id); mark < lsn {
			t.Fatalf("block %v was changed or freed at %v, its extent's mark is %v", id, lsn, mark)
		}
	}
	ids := append(m.at[r.LSN()].ids(), metaBlock)
	for g := range s.geo.groups(r.meta.highWater) {
		ids = append(ids, s.geo.bitmapOf(g))
	}
	for _, id := range ids {
		b, err := r.Block(id)
		ok(t, err)
		lsn := b.v.LSN
		b.Release()
		if mark := marks.of(id); mark < lsn {
			t.Fatalf("block %v has LSN %v, its extent's mark is %v", id, lsn, mark)
		}
	}
}

// markOf is a block's mark.
func markOf(t testing.TB, s *Store, id block.ID) block.LSN {
	t.Helper()
	return newMarks(t, s).of(id)
}

// mapPlace is where the map block with a block's mark is in the data file.
func mapPlace(s *Store, id block.ID) int64 { return s.geo.offset(s.geo.extentsOf(id).id) }

// onDisk is the mark of a block's extent as the data file has it, and whether that is
// sound.
func onDisk(t testing.TB, s *Store, id block.ID) (block.LSN, bool) {
	t.Helper()
	m := s.geo.extentsOf(id)
	b := make([]byte, s.geo.size)
	tr, err := s.data.read(m.id, b)
	if err != nil {
		return 0, false
	}
	if tr.Type != block.TypeMap {
		t.Fatalf("map block %v has type %v", m.id, tr.Type)
	}
	return getMark(b, m.at(id)), true
}

// TestR16_MarkRaisedWhileWritten: a mark that is raised between the cleaner's copy
// of a map block and the end of its write is not taken for written.
func TestR16_MarkRaisedWhileWritten(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	o := smallOptions(fsys)
	s, id := oneBlock(t, o)
	set(t, s, id, 2)
	at := mapPlace(s, id)
	h := g.next(simfs.OpWrite, fileData, func(ev simfs.Event) bool { return ev.Off <= at && at < ev.Off+ev.Len })
	round := async(func() { ok(t, s.cleaner.awaitRound(s.cleaner.rounds())) })
	<-h.reached
	lsn := set(t, s, id, 3)
	h.open()
	<-round
	settle(t, s)
	if redo := s.redoStart(); redo <= lsn {
		t.Fatalf("redo starts at %v: nothing was tried", redo)
	}
	if mark, _ := onDisk(t, s, id); mark != lsn {
		t.Fatalf("the file has mark %v, redo starts at %v", mark, s.redoStart())
	}
	mustClose(t, s)
}

// TestR16_EvictedBeforeItsCommit: a commit in preparation has raised a mark; the
// map block is written, evicted, and damaged before the commit is published. What
// replaces it counts that commit, too.
func TestR16_EvictedBeforeItsCommit(t *testing.T) {
	fsys := simfs.New()
	s, id := oneBlock(t, smallOptions(fsys))
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Edit(id)
	ok(t, err)
	b.Payload()[0] = 2
	b.Release()
	ok(t, tx.prepare())
	if mark := markOf(t, s, id); mark != tx.Base()+1 {
		t.Fatalf("mark %v before the LSN %v is taken", mark, tx.Base()+1)
	}
	settle(t, s)
	squeeze(t, s)
	if s.holdsMap(s.geo.extentsOf(id).id) {
		t.Fatal("the map block is not evicted")
	}
	ok(t, fsys.FlipBits(fileData, mapPlace(s, id), 1))
	markOf(t, s, id) // someone reads it
	lsn, err := tx.logAndPublish()
	tx.finish()
	ok(t, err)
	if mark := markOf(t, s, id); mark < lsn {
		t.Fatalf("commit %v has mark %v", lsn, mark)
	}
	ok(t, s.awaitCommitted(lsn))
	mustClose(t, s)
}

// TestR16_MoreMapBlocksThanFrames: a transaction that touches more of them than
// there are frames gets its marks: the cleaner writes map blocks that wait for a
// commit which is not in the log.
func TestR16_MoreMapBlocksThanFrames(t *testing.T) {
	newWatchdog(t)
	fsys := simfs.New()
	o := smallOptions(fsys)
	s := mustOpen(t, o)
	m := newModel()
	w, err := begin(t, s, m, rand.New(rand.NewPCG(1, 1)))
	ok(t, err)
	const groups = 50
	perBlock := uint64(extentBlocks * s.geo.marks())
	var ids []block.ID
	for g := range uint64(groups) {
		for n := range uint64(offsetMapSecond - offsetMap) {
			if s.firstGroup = g; g < uint64(len(s.hints)) {
				s.hints[g] = max(n*perBlock+77, reserved)
			}
			b, err := w.tx.Alloc(block.TypeLeaf)
			ok(t, err)
			b.Payload()[7] = byte(n + 1)
			w.note(b)
			ids = append(ids, b.ID())
			b.Release()
		}
	}
	if int64(groups*(reserved-offsetMap)) <= s.cache.FramesMax() {
		t.Fatalf("%d frames: nothing was tried", s.cache.FramesMax())
	}
	lsn, err := w.commit(m)
	ok(t, err)
	check := func(s *Store) {
		t.Helper()
		marks := newMarks(t, s)
		for _, id := range ids {
			if mark := marks.of(id); mark < lsn {
				t.Fatalf("block %v of commit %v has mark %v", id, lsn, mark)
			}
		}
	}
	check(s)
	o.FS = fsys.Crash(nil, simfs.DropAll)
	mustClose(t, s)
	s = mustOpen(t, o)
	check(s)
	checkAll(t, s, m)
	mustClose(t, s)
}

// warnings collects what a store warns of.
type warnings struct {
	mu   sync.Mutex
	list []string
}

func (w *warnings) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (w *warnings) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, string(p))
	return len(p), nil
}

func (w *warnings) count(text string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.list {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// patch changes bytes of the data file of a closed store.
func patch(t testing.TB, fsys *simfs.FS, off int64, b []byte) {
	t.Helper()
	f, err := fsys.OpenFile(fileData, os.O_RDWR, 0)
	ok(t, err)
	_, err = f.WriteAt(b, off)
	ok(t, err)
	ok(t, f.Sync())
	ok(t, f.Close())
}

// TestR16_DamagedMapBlock: it refuses nobody, is told, counts all as changed, and is
// written anew.
func TestR16_DamagedMapBlock(t *testing.T) {
	for what, damage := range map[string]func(fsys *simfs.FS, s *Store, at int64){
		"rot": func(fsys *simfs.FS, _ *Store, at int64) { ok(t, fsys.FlipBits(fileData, at+100, 4)) },
		"unreadable": func(fsys *simfs.FS, _ *Store, at int64) {
			fsys.Fail(simfs.Fault{Ops: simfs.OpRead, File: fileData, Off: at, Len: 1})
		},
		"another block": func(fsys *simfs.FS, _ *Store, at int64) {
			all, err := fsys.Bytes(fileData)
			ok(t, err)
			patch(t, fsys, at, all[13*4096:14*4096])
		},
		"another type": func(fsys *simfs.FS, s *Store, at int64) {
			all, err := fsys.Bytes(fileData)
			ok(t, err)
			image := all[at : at+4096]
			block.Seal(image, block.Trailer{Type: block.TypeLeaf, ID: block.ID(at / 4096), LSN: s.newestLSN()}, s.data.seed)
			patch(t, fsys, at, image)
		},
	} {
		t.Run(what, func(t *testing.T) {
			fsys, warned := simfs.New(), &warnings{}
			o := smallOptions(fsys)
			o.Logger = warned.logger()
			s, id := oneBlock(t, o)
			for range 5 {
				set(t, s, id, 2)
			}
			at := mapPlace(s, id)
			mustClose(t, s)
			damage(fsys, s, at)
			s = mustOpen(t, o)
			p := openIncremental(t, s, 2, 0)
			ok(t, p.rest(t))
			if p.images[id] == nil {
				t.Fatal("the incremental has nothing")
			}
			ok(t, p.b.Close())
			if n := warned.count("replaced"); n != 1 {
				t.Fatalf("%d warnings: %v", n, warned.list)
			}
			settle(t, s)
			if mark, sound := onDisk(t, s, id); !sound || mark != s.newestLSN()+1 {
				t.Fatalf("not written anew: mark %v, sound: %v", mark, sound)
			}
			set(t, s, id, 9)
			mustClose(t, s)
		})
	}
}

// TestR16_CheckRepairsTheMap: damage of the map that Check finds on disk, behind a frame
// or not, is told and mended, and is no problem of the database.
func TestR16_CheckRepairsTheMap(t *testing.T) {
	for _, cached := range []bool{true, false} {
		fsys, warned := simfs.New(), &warnings{}
		o := smallOptions(fsys)
		o.Logger = warned.logger()
		s, id := oneBlock(t, o)
		lsn := set(t, s, id, 2)
		settle(t, s)
		if !cached {
			mustClose(t, s)
			s = mustOpen(t, o)
		}
		ok(t, fsys.FlipBits(fileData, mapPlace(s, id), 1))
		res, err := s.Check(context.Background(), nil)
		ok(t, err)
		if len(res.Problems) > 0 {
			t.Fatalf("problems: %v", res.Problems)
		}
		settle(t, s)
		if n := warned.count("changed-block map"); n != 1 {
			t.Fatalf("%d warnings: %v", n, warned.list)
		}
		want := lsn
		if !cached {
			want++
		}
		if mark, sound := onDisk(t, s, id); !sound || mark != want {
			t.Fatalf("cached %v: mark %v, sound: %v", cached, mark, sound)
		}
		mustClose(t, s)
	}
}

// TestR16_TornMapBlock: it takes its second copy, and stays exact.
func TestR16_TornMapBlock(t *testing.T) {
	fsys, warned := simfs.New(), &warnings{}
	g := newGates(fsys)
	o := smallOptions(fsys)
	o.Logger = warned.logger()
	s, id := oneBlock(t, o)
	far := farBlock(t, s)
	settle(t, s)
	lsn := set(t, s, id, 2)
	at := mapPlace(s, id)
	h := g.next(simfs.OpWrite, fileData, func(ev simfs.Event) bool { return ev.Off <= at && at < ev.Off+ev.Len })
	round := async(func() { ok(t, s.cleaner.awaitRound(s.cleaner.rounds())) })
	<-h.reached
	torn := fsys.Crash(nil, simfs.DropAll)
	ok(t, torn.FlipBits(fileData, at+1, 0xff))
	h.open()
	<-round
	mustClose(t, s)
	o.FS = torn
	s = mustOpen(t, o)
	if a, b := markOf(t, s, id), markOf(t, s, far); a != lsn || b != lsn-1 || warned.count("replaced") != 0 {
		t.Fatalf("marks %v and %v, want %v and %v; %v", a, b, lsn, lsn-1, warned.list)
	}
	mustClose(t, s)
}

// farBlock allocates a block in another extent and region of the first map block.
func farBlock(t testing.TB, s *Store) block.ID {
	t.Helper()
	tx, err := s.BeginWrite()
	ok(t, err)
	s.hints[0] = 1000
	b, err := tx.Alloc(block.TypeLeaf)
	ok(t, err)
	b.Release()
	_, err = tx.Commit()
	ok(t, err)
	return b.ID()
}

// TestR16_OldDatabase: one that was written before there was a map, or whose map was
// lost, counts as changed until now, and is exact from then on.
func TestR16_OldDatabase(t *testing.T) {
	fsys, warned := simfs.New(), &warnings{}
	o := smallOptions(fsys)
	o.Logger = warned.logger()
	s, id := oneBlock(t, o)
	far := farBlock(t, s)
	set(t, s, id, 2)
	mustClose(t, s)
	patch(t, fsys, offsetMap*4096, make([]byte, (reserved-offsetMap)*4096))
	s = mustOpen(t, o)
	p := openIncremental(t, s, 2, 0)
	ok(t, p.rest(t))
	if p.images[id] == nil || p.images[far] != nil {
		t.Fatalf("base 2 hands out %v@3: %v, %v@2: %v", id, p.images[id] != nil, far, p.images[far] != nil)
	}
	if got := p.b.ScanCost().Blocks; got == 0 {
		t.Fatal("nothing was read")
	}
	ok(t, p.b.Close())
	mustClose(t, s)
	s = mustOpen(t, o)
	set(t, s, id, 3)
	lsn := set(t, s, id, 4)
	if a, b := markOf(t, s, id), markOf(t, s, far); a != lsn || b != 4 {
		t.Fatalf("marks %v and %v", a, b)
	}
	if warned.count("replaced") != 0 {
		t.Fatal(warned.list)
	}
	mustClose(t, s)
}

// TestR16_Floor: a base below the map's floor or above the newest commit is
// refused, and a floor that was raised stays.
func TestR16_Floor(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s, id := oneBlock(t, o)
	for range 5 {
		set(t, s, id, 2)
	}
	s.distrustMap()
	set(t, s, id, 3)
	for range 2 {
		for base, fine := range map[block.LSN]bool{1: false, 5: false, 6: true, 7: true, 8: false} {
			b, err := s.OpenBackup(context.Background(), BackupOptions{Base: base})
			if fine != (err == nil) || !fine && !errors.Is(err, ErrBase) {
				t.Fatalf("base %v: %v", base, err)
			}
			if err == nil {
				ok(t, b.Close())
			}
		}
		mustClose(t, s)
		s = mustOpen(t, o)
	}
	p := openBackup(t, s)
	ok(t, p.rest(t))
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR16_RegrownGroup: a group that was given back with its map and comes again.
func TestR16_RegrownGroup(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	c := &crashRun{t: t, o: o, m: newModel(), rng: rand.New(rand.NewPCG(1, 1))}
	c.s = mustOpen(t, o)
	grow := func() block.ID {
		t.Helper()
		var id block.ID
		ok(t, c.change(func(w *writeOp) error {
			if c.s.firstGroup = 1; len(c.s.hints) > 1 {
				c.s.hints[1] = reserved
			}
			b, err := w.tx.Alloc(block.TypeLeaf)
			ok(t, err)
			id = b.ID()
			w.note(b)
			b.Release()
			return nil
		}))
		return id
	}
	ok(t, c.allocMany(3))
	id := grow()
	settle(t, c.s)
	// While the cleaner holds a copy of the group's map, its blocks go.
	ok(t, c.change(func(w *writeOp) error { return w.free(id) }))
	settle(t, c.s)
	if has := c.s.data.has(c.s.geo.extentsOf(id).id); has {
		t.Fatal("the tail is not cut")
	}
	checkMarks(t, c.s, c.m)
	size := c.s.data.length()
	func() { // a mark is raised behind the end of the file: by a commit that is given up, say
		l := c.s.cache.Latch(c.s.geo.extentsOf(id).id)
		defer l.Unlock()
		if v := l.Head(c.s.geo.extentsOf(id).id); v != nil {
			c.s.dirtyMap(v, 1)
		}
	}()
	settle(t, c.s)
	if now, err := c.s.data.file.Size(); err != nil || now != size {
		t.Fatalf("writing the map has grown the file from %d to %d bytes", size, now)
	}
	again := grow()
	if again != id {
		t.Fatalf("block %v, then %v", id, again)
	}
	checkMarks(t, c.s, c.m)
	for _, mode := range []simfs.Mode{simfs.DropAll, simfs.KeepAll} {
		c.checkAfter(fsys.Crash(nil, mode), "regrown", nil)
	}
	settle(t, c.s)
	checkMarks(t, c.s, c.m)
	mustClose(t, c.s)
}

// TestR16_BuiltMap: the marks of a database that was built are those of the trailers,
// also where the builder does not keep them in RAM; and old bases serve.
func TestR16_BuiltMap(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	o := smallOptions(simfs.New())
	c := &crashRun{t: t, o: o, m: newModel(), rng: rng}
	c.m.spread = true
	c.s = mustOpen(t, o)
	a := newArchive()
	for range 12 {
		ok(t, c.commits(1, 12, 60))
		a.record(t, c.s, c.m)
	}
	p := openBackup(t, c.s)
	ok(t, p.rest(t))
	info := p.b.Info()
	ok(t, p.b.Close())
	mustClose(t, c.s)

	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	ok(t, fsys.SyncDir("/"))
	bl, err := NewBuilder(testDir, info, BuildOptions{FS: fsys})
	ok(t, err)
	bl.marks.most = 1
	ids := slices.Collect(maps.Keys(p.images))
	slices.Sort(ids)
	rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		ok(t, bl.Write(id, p.images[id]))
	}
	ok(t, bl.Finish())
	o.FS = fsys.Crash(nil, simfs.DropAll)
	s := mustOpen(t, o)
	marks := newMarks(t, s)
	want := map[block.ID]block.LSN{}
	for id, lsn := range a.states[info.LSN] {
		want[id/extentBlocks] = max(want[id/extentBlocks], lsn)
	}
	for id := range info.HighWater {
		m := s.geo.extentsOf(id)
		if mark := marks.in(m, id); mark != want[id/extentBlocks] {
			t.Fatalf("extent of block %v has mark %v, want %v", id, mark, want[id/extentBlocks])
		}
	}
	if s.mapFloor() != 0 {
		t.Fatalf("floor %v", s.mapFloor())
	}
	old := &crashRun{t: t, o: o, s: s, m: c.m, rng: rng}
	ok(t, old.commits(3, 12, 60))
	a.record(t, s, c.m)
	for _, base := range a.bases() {
		p := openIncremental(t, s, max(base, 1), 3)
		ok(t, p.rest(t))
		a.check(t, p, c.m, base == 5)
		ok(t, p.b.Close())
	}
	mustClose(t, s)
}

// TestR16_MapBlocksAreInNoVersion: nobody reads, changes or frees one through a
// transaction, in RAM or not; no backup has one, and no database is built with one.
func TestR16_MapBlocksAreInNoVersion(t *testing.T) {
	s, id := oneBlock(t, smallOptions(simfs.New()))
	set(t, s, id, 2)
	for at := block.ID(offsetMap); at < reserved; at++ {
		markOf(t, s, at*extentBlocks)
	}
	p := openBackup(t, s)
	ok(t, p.rest(t))
	m := s.geo.extentsOf(id)
	image := make([]byte, s.geo.size)
	_, err := s.data.read(m.id, image)
	ok(t, err)
	bl, err := NewProver("test", p.b.info)
	ok(t, err)
	if err := bl.Write(m.id, image); !errors.Is(err, block.ErrCorrupt) {
		t.Fatalf("a map block in a backup: %v", err)
	}
	ok(t, p.b.Close())
	r := beginRead(t, s)
	tx, err := s.BeginWrite()
	ok(t, err)
	for at := block.ID(offsetMap); at < reserved; at++ {
		_, err1 := r.Block(at)
		_, err2 := tx.Block(at)
		_, err3 := tx.Edit(at)
		for _, err := range []error{err1, err2, err3, tx.Free(at)} {
			if !errors.Is(err, ErrNotInUse) {
				t.Fatalf("map block %v: %v", at, err)
			}
		}
		if p.images[at] != nil {
			t.Fatalf("map block %v is in a backup", at)
		}
	}
	ok(t, tx.Rollback())
	r.Close()
	mustClose(t, s)
}
