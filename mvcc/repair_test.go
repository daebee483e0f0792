package mvcc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// repairRun is a random history with a backup in its middle, whose log is kept.
type repairRun struct {
	*crashRun
	fsys   *simfs.FS
	backup *backupPull
	tail   *LogTail
	was    []byte // the data file at the backup
}

func newRepairRun(t *testing.T, seed uint64) *repairRun {
	t.Helper()
	c, fsys := newCrashRun(t, seed, func(o *Options) { o.LogBytesMax = LogBytesMin })
	ok(t, c.commits(6, 20, 120))
	for at := c.s.newestLSN(); c.s.log.Oldest() <= at; settle(t, c.s) { // until no image of what is there is in the log
		keep := len(c.m.at[c.m.newest()].blocks)
		ok(t, c.allocMany(30))
		ok(t, c.freeAll(keep))
	}
	r := &repairRun{crashRun: c, fsys: fsys, backup: openBackup(t, c.s)}
	ok(t, r.backup.rest(t))
	ok(t, r.backup.b.Close())
	r.was = r.file()
	r.tail = openTail(t, c.s, r.backup.b.info.LSN)
	return r
}

func (r *repairRun) file() []byte {
	b, err := r.fsys.Bytes(fileData)
	ok(r.t, err)
	return b
}

// notInLog is a block of the backup of which the log has no image.
func (r *repairRun) notInLog() block.ID {
	r.t.Helper()
	for _, id := range r.m.at[r.backup.b.info.LSN].ids() {
		if tr, reason := block.Verify(r.backup.images[id], id, r.s.data.seed); reason == "" && tr.LSN < r.s.log.Oldest() {
			return id
		}
	}
	r.t.Fatal("the log has an image of every block")
	return 0
}

// damage spoils the place of a block, in one of the ways that there are, and says how.
func (r *repairRun) damage(id block.ID, how int) string {
	at, size := r.s.geo.offset(id), int64(r.s.geo.size)
	all := r.file()
	switch how {
	case 0:
		ok(r.t, r.fsys.FlipBits(fileData, at+r.rng.Int64N(size), 1<<r.rng.IntN(8)))
		return "a flipped bit"
	case 1:
		patch(r.t, r.fsys, at, make([]byte, size))
		return "zeros"
	case 2:
		other := r.s.geo.offset(metaBlock)
		if id == metaBlock {
			other += size
		}
		patch(r.t, r.fsys, at, all[other:other+size])
		return "another block"
	case 3:
		patch(r.t, r.fsys, at, all[at:at+size/2])
		patch(r.t, r.fsys, at+size/2, make([]byte, size/2))
		return "half of it"
	default:
		if at+size > int64(len(r.was)) {
			return r.damage(id, 1)
		}
		patch(r.t, r.fsys, at, r.was[at:at+size])
		return "an old version"
	}
}

// repair repairs a block as its user would: first without an image.
func (r *repairRun) repair(id block.ID, dry bool) (BlockRepaired, error) {
	q := BlockRepair{Block: id, DryRun: dry}
	out, err := r.s.RepairBlock(context.Background(), q)
	if err != nil || out.From+out.To == 0 {
		return out, err
	}
	q.Image, q.AsOf = slices.Clone(r.backup.images[id]), r.backup.b.info.LSN
	if q.Image == nil {
		return out, nil
	}
	return r.s.RepairBlock(context.Background(), q)
}

// Random histories; every kind of damage in random blocks, also in meta block and
// bitmaps, in RAM or not: repaired, everything is what the model says, on the disk, too,
// and after a power cut (R8, L6).
func TestModel_Repair(t *testing.T) {
	seed := chance.Seed(t)
	states := map[RepairState]int{}
	for round := range uint64(6 * *flagLong) {
		r := newRepairRun(t, seed+round)
		ok(t, r.commits(1+r.rng.IntN(8), 15, 120))
		if round%2 == 0 { // what belongs there is not in RAM
			settle(t, r.s)
			squeeze(t, r.s)
			if r.rng.IntN(2) == 0 {
				ok(t, r.commits(2, 10, 120))
			}
		} else if r.rng.IntN(2) == 0 {
			settle(t, r.s)
		}
		ids := append(slices.Sorted(maps.Keys(r.m.at[r.m.newest()].blocks)), metaBlock, r.s.geo.bitmapOf(0))
		r.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		ids = ids[:min(len(ids), 12)]
		how := map[block.ID]string{}
		for _, id := range ids {
			how[id] = r.damage(id, r.rng.IntN(5))
		}
		slices.Sort(ids) // the bitmap first
		for _, id := range ids {
			r.s.cleaner.turn.Lock() // so that nobody else writes
			before := r.file()
			dry, err := r.repair(id, true)
			ok(t, err)
			same := bytes.Equal(before, r.file())
			r.s.cleaner.turn.Unlock()
			if !same {
				t.Fatalf("block %v: a dry run has written", id)
			}
			out, err := r.repair(id, false)
			if err != nil || out.State == RepairNoImage || out.State == RepairFree {
				t.Fatalf("round %d, block %v with %s: %+v, %v", round, id, how[id], out, err)
			}
			written := dry.State == RepairMemory && dry.Found == "" && out.State == RepairSound // by a round meanwhile
			if dry.State != out.State && !written || dry.LSN != out.LSN {
				t.Fatalf("block %v: a dry run said %+v, it was %+v", id, dry, out)
			}
			states[out.State]++
		}
		checkAll(t, r.s, r.m)
		res, err := r.s.Check(context.Background(), nil)
		ok(t, err)
		if len(res.Problems)+len(res.Damaged) > 0 {
			t.Fatalf("round %d: still there: %v %v", round, res.Problems, res.Damaged)
		}
		for _, id := range ids { // also what RAM hides
			if out, err := r.repair(id, true); err != nil || out.State != RepairSound && out.Found != "" {
				t.Fatalf("block %v after its repair: %+v, %v", id, out, err)
			}
		}
		r.checkAfter(r.fsys.Crash(nil, simfs.DropAll), fmt.Sprintf("round %d after a power cut", round), nil)
		r.tail.Close()
		mustClose(t, r.s)
	}
	for _, s := range []RepairState{RepairImage, RepairMemory} {
		if states[s] == 0 {
			t.Fatalf("nothing was repaired from %s: %v", s, states)
		}
	}
}

// A whole image in the log makes every other one unnecessary; a free block needs none.
func TestRepair_FromTheLogAlone(t *testing.T) {
	s := mustOpen(t, smallOptions(newDisk(t)))
	fsys := s.opts.FS.(*simfs.FS)
	tail := openTail(t, s, 0)
	m := newModel()
	c := &crashRun{t: t, s: s, m: m, rng: rand.New(rand.NewPCG(chance.Seed(t), 5))}
	ok(t, c.allocMany(5))
	ok(t, c.editMany(5))
	settle(t, s)
	squeeze(t, s)
	ids := m.at[2].ids()
	r := &repairRun{crashRun: c, fsys: fsys}
	for _, id := range ids {
		r.damage(id, 1)
		out, err := s.RepairBlock(context.Background(), BlockRepair{Block: id})
		if err != nil || out.State != RepairLog || out.LSN != 2 || out.Found == "" {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	checkAll(t, s, m)
	ok(t, c.freeAll(1))
	settle(t, s)
	for _, id := range []block.ID{ids[4], 900} {
		if out, err := s.RepairBlock(context.Background(), BlockRepair{Block: id}); err != nil || out.State != RepairFree {
			t.Fatalf("a free block: %+v, %v", out, err)
		}
	}
	if _, err := s.RepairBlock(context.Background(), BlockRepair{Block: 1}); !errors.Is(err, ErrOptions) {
		t.Fatalf("a superblock: %v", err)
	}
	out, err := s.RepairBlock(context.Background(), BlockRepair{Block: offsetMap})
	if err != nil || out.State != RepairSound {
		t.Fatalf("a map block: %+v, %v", out, err)
	}
	r.damage(offsetMap, 0)
	if out, err = s.RepairBlock(context.Background(), BlockRepair{Block: offsetMap}); err != nil || out.State != RepairMap {
		t.Fatalf("a map block: %+v, %v", out, err)
	}
	if _, sound := onDisk(t, s, ids[0]); !sound {
		t.Fatal("the map block is damaged still")
	}
	tail.Close()
	mustClose(t, s)
}

func newDisk(t testing.TB) *simfs.FS {
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	ok(t, fsys.SyncDir("/"))
	return fsys
}

// L1, R4: an older version that only the data file has, and that a snapshot reads, is
// repaired as that version, not as the newest.
func TestL1_RepairOfAnOriginal(t *testing.T) {
	s, id := oneBlock(t, smallOptions(newDisk(t)))
	fsys := s.opts.FS.(*simfs.FS)
	tail := openTail(t, s, 0)
	settle(t, s)
	was, err := fsys.Bytes(fileData)
	ok(t, err)
	image := was[s.geo.offset(id):][:s.geo.size]
	r := inPlaceOriginal(t, s, id)
	ok(t, fsys.FlipBits(fileData, s.geo.offset(id)+7, 1))
	if _, err := r.Block(id); !errors.Is(err, block.ErrCorrupt) {
		t.Fatalf("the original is damaged: %v", err)
	}
	bad := bytes.Clone(image) // sound, and not that version
	block.Seal(bad, block.Trailer{Type: block.TypeUser, ID: id, LSN: 0}, s.data.seed)
	out, err := s.RepairBlock(context.Background(), BlockRepair{Block: id, Image: bad, AsOf: 0})
	ok(t, err)
	if out.LSN != 1 { // the log behind the image leads to it, or has it
		t.Fatalf("an image of commit 0 was taken for one of commit 1: %+v", out)
	}
	out, err = s.RepairBlock(context.Background(), BlockRepair{Block: id, Image: bytes.Clone(image), AsOf: 1})
	ok(t, err)
	for range 2 {
		if v := value(t, r, id); v != 1 {
			t.Fatalf("it reads %d", v)
		}
		squeeze(t, s) // whoever thinks that it is in place lets its frame go
	}
	settle(t, s)
	squeeze(t, s)
	if v := value(t, r, id); v != 1 {
		t.Fatalf("it reads %d", v)
	}
	now := beginRead(t, s)
	if v := value(t, now, id); v != 2 {
		t.Fatalf("it reads %d", v)
	}
	now.Close()
	r.Close()
	tail.Close()
	mustClose(t, s)
}

// A commit that comes while the log is read, and whose version is written, evicted and
// damaged as well, is not undone: the end of the log is read with the writer's lock.
func TestR8_RepairKnowsTheNewest(t *testing.T) {
	s, id := oneBlock(t, smallOptions(newDisk(t)))
	fsys := s.opts.FS.(*simfs.FS)
	tail := openTail(t, s, 0)
	lsn := set(t, s, id, 2)
	settle(t, s)
	m := mender{s: s, r: BlockRepair{Block: id}, buf: make([]byte, s.geo.size)}
	ok(t, m.begin(m.probe()))
	ok(t, m.read(context.Background()))
	if got := set(t, s, id, 3); got != lsn+1 {
		t.Fatal(got)
	}
	settle(t, s)
	squeeze(t, s)
	ok(t, fsys.FlipBits(fileData, s.geo.offset(id)+7, 1))
	frame, err := s.cache.NewFrame()
	ok(t, err)
	if left, again, err := m.settle(context.Background(), frame); err != nil || !again || left != nil {
		t.Fatalf("%+v, %v", m.out, err)
	}
	r := beginRead(t, s)
	if v := value(t, r, id); v != 3 || m.out.LSN != lsn+1 {
		t.Fatalf("it reads %d, %+v", v, m.out)
	}
	r.Close()
	tail.Close()
	mustClose(t, s)
}

// What is given is proven before anything is written: no image of another block, of
// another database, of a later commit, or one that the log does not go on from.
func TestRepair_RefusesWhatDoesNotFit(t *testing.T) {
	r := newRepairRun(t, chance.Seed(t))
	ok(t, r.editMany(200))
	settle(t, r.s)
	squeeze(t, r.s)
	id := r.notInLog()
	if _, used := r.m.at[r.m.newest()].blocks[id]; !used {
		t.Fatal("the block was freed")
	}
	r.damage(id, 1)
	before := r.file()
	good, at := r.backup.images[id], r.backup.b.info.LSN
	trailer, reason := block.Verify(good, id, r.s.data.seed)
	if reason != "" {
		t.Fatal(reason)
	}
	seal := func(tr block.Trailer, seed block.Seed) []byte {
		b := bytes.Clone(good)
		block.Seal(b, tr, seed)
		return b
	}
	stale, other := trailer, trailer
	stale.LSN--
	other.ID++
	late := trailer
	late.LSN = at + 1
	for what, q := range map[string]BlockRepair{
		"torn":              {Image: append(bytes.Clone(good[:100]), make([]byte, len(good)-100)...), AsOf: at},
		"short":             {Image: good[:100], AsOf: at},
		"another block":     {Image: seal(other, r.s.data.seed), AsOf: at},
		"another database":  {Image: seal(trailer, r.s.data.seed+1), AsOf: at},
		"of a later commit": {Image: seal(late, r.s.data.seed), AsOf: at},
		"from the future":   {Image: good, AsOf: r.s.newestLSN() + 1},
		"stale":             {Image: seal(stale, r.s.data.seed), AsOf: at},
	} {
		q.Block = id
		out, err := r.s.RepairBlock(context.Background(), q)
		if err == nil && out.State != RepairNoImage {
			t.Errorf("%s: %+v", what, out)
		}
		if !bytes.Equal(before, r.file()) {
			t.Fatalf("%s: something was written", what)
		}
	}
	if out, err := r.repair(id, false); err != nil || out.State != RepairImage {
		t.Fatalf("%+v, %v", out, err)
	}
	checkAll(t, r.s, r.m)
	r.tail.Close()
	mustClose(t, r.s)
}

// Repairs beside a writer, readers with old snapshots, and checkpoints: nobody sees a
// wrong version, and the writer meets nothing but the damage itself.
func TestConcurrent_Repair(t *testing.T) {
	r := newRepairRun(t, chance.Seed(t))
	var group sync.WaitGroup
	stop := make(chan struct{})
	var mu sync.Mutex // of the model
	changes := rand.New(rand.NewPCG(r.rng.Uint64(), 1))
	var repaired atomic.Int64
	group.Go(func() {
		rng := changes
		for n := 0; n < 150 || repaired.Load() == 0 && n < 15000; n++ {
			mu.Lock()
			w, err := begin(t, r.s, r.m, rng)
			if err == nil {
				if err = w.some(6, 120); err == nil {
					_, err = w.commit(r.m)
				} else {
					_ = w.tx.Rollback()
				}
			}
			mu.Unlock()
			if err != nil && !errors.Is(err, block.ErrCorrupt) {
				t.Errorf("writer: %v", err)
				break
			}
		}
		close(stop)
	})
	group.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			readSome(t, r, &mu)
		}
	})
	rng := rand.New(rand.NewPCG(r.rng.Uint64(), 2))
	for n := 0; ; n++ {
		select {
		case <-stop:
			group.Wait()
			if repaired.Load() == 0 {
				t.Fatal("nothing was repaired")
			}
			finishConcurrent(t, r)
			return
		default:
		}
		mu.Lock()
		ids := r.m.at[r.m.acked].ids()
		mu.Unlock()
		id := ids[rng.IntN(len(ids))]
		at := r.s.geo.offset(id)
		if at >= r.s.data.length() || r.fsys.FlipBits(fileData, at+rng.Int64N(4000), 4) != nil {
			continue // not written yet
		}
		out, err := r.repair(id, false)
		if err != nil {
			t.Fatalf("block %v: %v", id, err)
		}
		if out.State != RepairSound {
			repaired.Add(1)
		}
	}
}

// readSome compares a few blocks of a snapshot, of which some may be damaged now.
func readSome(t *testing.T, r *repairRun, mu *sync.Mutex) {
	tx, err := r.s.BeginRead()
	if err != nil {
		if !errors.Is(err, block.ErrCorrupt) {
			t.Error(err)
		}
		return
	}
	defer tx.Close()
	mu.Lock()
	im := r.m.at[tx.LSN()].clone()
	mu.Unlock()
	for id, want := range im.blocks {
		b, err := tx.Block(id)
		if errors.Is(err, block.ErrCorrupt) || errors.Is(err, ErrBroken) {
			continue
		}
		if err != nil {
			t.Errorf("block %v at %v: %v", id, tx.LSN(), err)
			return
		}
		if got := contentOf(b); got != want {
			t.Errorf("block %v at %v is %v, want %v", id, tx.LSN(), got, want)
		}
		b.Release()
	}
}

// finishConcurrent repairs what is left and compares.
func finishConcurrent(t *testing.T, r *repairRun) {
	for range 3 {
		res, err := r.s.Check(context.Background(), nil)
		ok(t, err)
		for _, d := range res.Damaged {
			_, err := r.repair(d.Block, false)
			ok(t, err)
		}
	}
	res, err := r.s.Check(context.Background(), nil)
	ok(t, err)
	if len(res.Problems) > 0 {
		t.Fatal(res.Problems)
	}
	checkAll(t, r.s, r.m)
	r.tail.Close()
	mustClose(t, r.s)
}

// repairAll opens a disk and repairs some blocks with the images of the backup, rolled
// forward as far as the log does not reach back.
func (r *repairRun) repairAll(t *testing.T, dog *watchdog, fsys *simfs.FS, ids []block.ID, archived []LogRecord) (*Store, error) {
	o := r.o
	o.FS = fsys
	s, err := Open(testDir, o)
	if err != nil {
		return nil, err
	}
	dog.watch(s)
	for _, id := range ids {
		q := BlockRepair{Block: id}
		out, err := s.RepairBlock(context.Background(), q)
		if err == nil && out.State == RepairNoImage {
			roller := NewRoller(s.geo.size, s.database)
			ok(t, roller.Track(id, bytes.Clone(r.backup.images[id]), 0))
			q.AsOf = max(r.backup.b.info.LSN, out.From)
			for _, rec := range archived {
				if rec.LSN <= q.AsOf {
					ok(t, roller.Apply(rec))
				}
			}
			q.Image, _, err = roller.Block(id)
			ok(t, err)
			_, err = s.RepairBlock(context.Background(), q)
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// A repair that is cut off at any event leaves the damage or the block, and nothing
// else has changed; begun again, it ends (L6, R8).
func TestCrash_RepairAtEveryEvent(t *testing.T) {
	r := newRepairRun(t, chance.Seed(t))
	ok(t, r.editMany(200))
	settle(t, r.s)
	ok(t, r.commits(2, 3, 120))
	images := r.backup.images
	archived := records(t, r.tail)
	r.tail.Close()
	mustClose(t, r.s)
	var ids []block.ID
	for _, id := range r.m.at[r.m.newest()].ids() {
		if images[id] != nil && len(ids) < 3 {
			ids = append(ids, id)
		}
	}
	for i, id := range ids {
		r.damage(id, i)
	}
	base, dog := r.fsys, newWatchdog(t)
	run := func(fsys *simfs.FS) (*Store, error) { return r.repairAll(t, dog, fsys, ids, archived) }
	whole := base.Crash(nil, simfs.KeepAll)
	s, err := run(whole)
	if err != nil {
		t.Fatal(err)
	}
	ok(t, s.Close())
	events := whole.Events()
	step := 1
	if testing.Short() {
		step = 7
	}
	for k := 1; k <= events; k += step {
		fsys := base.Crash(nil, simfs.KeepAll)
		fsys.CutAfter(k)
		if s, err := run(fsys); s != nil {
			_ = s.Close()
		} else if err == nil {
			t.Fatal("no store")
		}
		dog.pat()
		killed := fsys.Kill()
		crashes(killed, r.rng, 1, func(disk *simfs.FS, how string) {
			s, err := run(disk)
			if err != nil {
				t.Fatalf("cut after %d, %s: repair again: %v", k, how, err)
			}
			checkAll(t, s, r.m)
			res, err := s.Check(context.Background(), nil)
			ok(t, err)
			if len(res.Problems) > 0 {
				t.Fatalf("cut after %d, %s: %v", k, how, res.Problems)
			}
			ok(t, s.Close())
		})
	}
}

// A database that needs a damaged block to be opened is opened with an image of it: of
// the meta block, and of one that redo changes; without one, or with one that does
// not fit, it is refused. Then it is as any other: it takes commits.
func TestRepair_WhatOpeningNeeds(t *testing.T) {
	for _, meta := range []bool{true, false} {
		r := newRepairRun(t, chance.Seed(t))
		ok(t, r.commits(2, 4, 120))
		settle(t, r.s)
		id := metaBlock
		if !meta {
			ok(t, r.editMany(1))
			id = r.m.at[r.m.newest()].ids()[0]
		}
		disk := r.fsys.Crash(nil, simfs.KeepAll)
		image, at := r.backup.images[id], r.backup.b.info.LSN
		o := r.o
		r.tail.Close()
		mustClose(t, r.s)
		o.FS = disk
		ok(t, disk.FlipBits(fileData, r.s.geo.offset(id)+50, 1))
		if _, err := Open(testDir, o); !errors.Is(err, block.ErrCorrupt) {
			t.Fatalf("block %v: %v", id, err)
		}
		asked := 0
		o.Mend = func(n BlockNeed) (MendImage, error) {
			if asked++; n.Block != id || n.Database != r.s.database || n.Cause == nil {
				t.Fatalf("asked for %+v", n)
			}
			if asked == 1 {
				return MendImage{Image: make([]byte, len(image)), AsOf: at}, nil
			}
			if n.From > at || n.To < at {
				t.Fatalf("from %v to %v, the backup is of %v", n.From, n.To, at)
			}
			return MendImage{Image: bytes.Clone(image), AsOf: at}, nil
		}
		if _, err := Open(testDir, o); !errors.Is(err, block.ErrCorrupt) {
			t.Fatalf("zeros for block %v: %v", id, err)
		}
		s := mustOpen(t, o)
		if asked != 2 {
			t.Fatalf("asked %d times", asked)
		}
		checkAll(t, s, r.m)
		r.s = s
		ok(t, r.commits(2, 10, 120)) // the writer knows what the meta block says
		settle(t, s)
		checkAll(t, s, r.m)
		ok(t, s.Close())
		o.Mend = nil
		s = mustOpen(t, o)
		checkAll(t, s, r.m)
		ok(t, s.Close())
	}
}

// A block that is freed between its repair and the round that would have written it is
// left as it was: that is no damage.
func TestR9_RepairOfWhatIsFreedMeanwhile(t *testing.T) {
	s := mustOpen(t, smallOptions(newDisk(t)))
	id := someBlocks(t, s, 30)[3]
	settle(t, s)
	ok(t, s.opts.FS.(*simfs.FS).FlipBits(fileData, s.geo.offset(id)+7, 1))
	s.cleaner.turn.Lock()
	repaired := make(chan error, 1)
	go func() {
		_, err := s.RepairBlock(context.Background(), BlockRepair{Block: id})
		repaired <- err
	}()
	for installed := false; !installed; runtime.Gosched() {
		l := s.cache.Latch(id)
		h := l.Head(id)
		installed = h != nil && h.Dirty
		l.Unlock()
	}
	drop(t, s, id)
	s.cleaner.turn.Unlock()
	ok(t, <-repaired)
	mustClose(t, s)
}
