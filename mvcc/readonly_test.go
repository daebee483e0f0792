package mvcc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/wal"
)

// writes are the operations that a read-only store never tries.
const writes = simfs.Events &^ simfs.OpSync

// everyByte is what is in the files of a disk.
func everyByte(t testing.TB, fsys *simfs.FS) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range fsys.Names() {
		b, err := fsys.Bytes(name)
		if err != nil {
			continue // a directory
		}
		all[name] = string(b)
	}
	return all
}

// readOnly opens what is on the disk, uses it in every way, with every write
// refused, and proves that none was tried. It returns the LSN that it found.
func (c *crashRun) readOnly(disk *simfs.FS, what string) block.LSN {
	lsn, shown := c.mayReadOnly(disk, what)
	if !shown {
		c.t.Fatalf("%s: refused", what)
	}
	return lsn
}

// mayReadOnly is readOnly for a disk whose last commits may be in doubt: then shown is
// false.
func (c *crashRun) mayReadOnly(disk *simfs.FS, what string) (lsn block.LSN, shown bool) {
	t := c.t
	t.Helper()
	before := everyByte(t, disk)
	refused := disk.Fail(simfs.Fault{Ops: writes, Sticky: true, Err: fs.ErrPermission})
	defer refused.Disarm()
	o := Options{FS: disk, MaxRAM: c.o.MaxRAM, CloseWait: -1, ReadOnly: true}
	s, err := Open(testDir, o)
	if errors.Is(err, ErrNeedsRecovery) && errors.Is(err, wal.ErrInDoubt) {
		if n, now := refused.Seen(), everyByte(t, disk); n > 0 || !maps.Equal(before, now) {
			t.Fatalf("%s: refused, and %d writes were tried", what, n)
		}
		return 0, false
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if _, err := s.BeginWrite(); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("%s: a write transaction: %v", what, err)
	}
	if _, err := s.Mark("x"); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("%s: a mark: %v", what, err)
	}
	if err := s.RememberHead(numbered(1), Head{}); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("%s: a head: %v", what, err)
	}
	if err := s.Apply(LogRecord{}); !errors.Is(err, ErrReadOnly) && !errors.Is(err, ErrNotStandby) {
		t.Fatalf("%s: apply: %v", what, err)
	}
	if _, err := Open(testDir, o); !errors.Is(err, ErrLocked) {
		t.Fatalf("%s: opened twice: %v", what, err)
	}
	checkAll(t, s, c.m)
	res, err := s.Check(context.Background(), nil)
	ok(t, err)
	if len(res.Problems) > 0 {
		t.Fatalf("%s: %v", what, res.Problems)
	}
	p := openBackup(t, s)
	ok(t, p.rest(t))
	p.restore(t, c.m)
	ok(t, p.b.Close())
	checkMarks(t, s, c.m)
	if lsn := s.newestLSN(); lsn > 1 {
		checkIncremental(t, s, c.m, lsn/2)
	}
	q, err := s.Quiesce()
	ok(t, err)
	q.Release()
	_ = s.Status()
	lsn = s.newestLSN()
	ok(t, s.Close())
	if n := refused.Seen(); n > 0 {
		t.Fatalf("%s: %d writes were tried", what, n)
	}
	if open := disk.OpenFiles(); len(open) > 0 {
		t.Fatalf("%s: left open: %v", what, open)
	}
	for name, b := range everyByte(t, disk) {
		if before[name] != b {
			t.Fatalf("%s: %s has changed", what, name)
		}
	}
	return lsn, true
}

// R20: a read-only store shows what an opening for writing would show, after a
// clean close and after any cut, and writes nothing; its backups are whole
// (offline backup).
func TestR20_ReadOnlyWritesNothing(t *testing.T) {
	seed := chance.Seed(t)
	for _, sc := range scripts()[2:5] {
		t.Run(sc.name, func(t *testing.T) {
			dog := newWatchdog(t)
			rng := rand.New(rand.NewPCG(seed, 11))
			whole, c, _ := cutAt(t, dog, sc, seed, 1<<30)
			if lsn := c.readOnly(whole, "closed"); lsn != c.m.newest() {
				t.Fatalf("at %v, committed was %v", lsn, c.m.newest())
			}
			cuts := 8 * *flagLong / slower
			if testing.Short() {
				cuts = 3
			}
			for range cuts {
				k := 1 + rng.IntN(whole.Events())
				dog.pat()
				fsys, c, _ := cutAt(t, dog, sc, seed, k)
				c.o.MaxRAM *= 2 // all the redo of a script fits
				killed := fsys.Kill()
				disks := map[string]*simfs.FS{"killed": killed, "cut": killed.Crash(rng, simfs.Random)}
				for how, disk := range disks {
					what := fmt.Sprintf("%s after %d, seed %d", how, k, seed)
					if f, err := disk.Bytes(testDir + "/data"); err != nil || len(bytes.Trim(f[:min(len(f), superblockSize)], "\x00")) == 0 {
						continue // cut while it was created
					}
					lsn, shown := c.mayReadOnly(disk, what)
					c.checkAfter(disk, what, func(s *Store, m *model) {
						if !shown {
							return
						}
						if s.newestLSN() != lsn {
							t.Fatalf("%s: LSN %v, read-only it was %v", what, s.newestLSN(), lsn)
						}
					})
					if !shown { // it was opened for writing once
						c.readOnly(disk, what)
					}
				}
			}
		})
	}
}

// R20: redo that does not fit into memory is refused, typed, and nothing is
// written; with more memory it is opened.
func TestR20_ReadOnlyRefusesRedoBeyondMemory(t *testing.T) {
	c, fsys := newCrashRun(t, chance.Seed(t), func(o *Options) { o.MaxRAM, o.LogBytesMax = 8<<20, 64<<20 })
	for range 4 {
		ok(t, c.allocMany(100))
	}
	ok(t, c.s.log.MarkIdle())
	disk := fsys.Crash(nil, simfs.KeepAll)
	mustClose(t, c.s)
	o := Options{FS: disk, MaxRAM: blockcache.RAMBytesMin(4096), CloseWait: -1, ReadOnly: true}
	before := everyByte(t, disk)
	if _, err := Open(testDir, o); !errors.Is(err, ErrNeedsRecovery) {
		t.Fatalf("redo of 400 blocks in %d bytes: %v", o.MaxRAM, err)
	}
	if open := disk.OpenFiles(); len(open) > 0 {
		t.Fatalf("left open: %v", open)
	}
	for name, b := range everyByte(t, disk) {
		if before[name] != b {
			t.Fatalf("%s has changed", name)
		}
	}
	c.readOnly(disk, "with enough memory")
}

// L7, R5, R20: what a read-only store shows no power cut takes back. A sync of the log
// fails, the process dies, and the system may call clean what the medium never got: it is
// shown only if the log says that a sync covered it, else refused. Opened for writing, it
// is written again.
func TestR20_ReadOnlyShowsWhatIsDurable(t *testing.T) {
	outcomes := map[bool]int{}
	for _, how := range []simfs.SyncFailure{simfs.SyncPending, simfs.SyncCacheNew, simfs.SyncCacheOld} {
		for skip := range 12 {
			c, fsys := newCrashRun(t, chance.Seed(t), nil)
			ok(t, c.commits(2, 5, 20))
			fault := fsys.Fail(simfs.Fault{Ops: simfs.OpSync, Skip: skip, Sticky: true, Sync: how})
			for range 6 {
				if c.allocMany(3) != nil {
					break
				}
				if skip%2 == 0 {
					_ = c.s.log.MarkIdle()
				}
			}
			fault.Disarm()
			disk := fsys.Kill()
			_ = c.s.Close()
			s, err := Open(testDir, Options{FS: disk, MaxRAM: c.o.MaxRAM, CloseWait: -1, ReadOnly: true})
			lsn := block.LSN(0)
			if err == nil {
				lsn = s.newestLSN()
				ok(t, s.Close())
			} else if !errors.Is(err, ErrNeedsRecovery) || !errors.Is(err, wal.ErrInDoubt) {
				t.Fatalf("after %d syncs: %v", skip, err)
			}
			outcomes[err == nil]++
			after := mustOpen(t, smallOptions(disk.Crash(nil, simfs.DropAll)))
			if after.newestLSN() < lsn || after.newestLSN() < c.m.acked {
				t.Fatalf("after %d syncs, %v: readers saw %v, %v was acknowledged, the power cut left %v", skip, how, lsn, c.m.acked, after.newestLSN())
			}
			checkAll(t, after, c.m)
			ok(t, after.Close())
			writer := mustOpen(t, smallOptions(disk))
			ok(t, writer.Close())
			c.m.cutTo(writer.newestLSN())
			if lsn := c.readOnly(disk, "after a writer"); lsn != writer.newestLSN() {
				t.Fatalf("at %v, it was %v", lsn, writer.newestLSN())
			}
		}
	}
	if outcomes[true] == 0 || outcomes[false] == 0 {
		t.Fatalf("opened or not: %v", outcomes)
	}
}

// R20: what is no database is none, and does not become one.
func TestR20_ReadOnlyMakesNothing(t *testing.T) {
	fsys := simfs.New()
	o := Options{FS: fsys, ReadOnly: true}
	for _, prepare := range []func(){
		func() {},
		func() { ok(t, fsys.Mkdir(testDir, 0o700)) },
		func() { // a creation that was cut short
			fsys.CutAfter(3)
			_, err := Open(testDir, smallOptions(fsys))
			if err == nil {
				t.Fatal("not cut")
			}
			fsys = fsys.Kill()
			o.FS = fsys
		},
	} {
		prepare()
		names := fmt.Sprint(fsys.Names())
		if _, err := Open(testDir, o); !errors.Is(err, ErrNotDatabase) {
			t.Fatalf("opened: %v", err)
		}
		if now := fmt.Sprint(fsys.Names()); now != names {
			t.Fatalf("made %s of %s", now, names)
		}
	}
}

// pulledImage is a backup in memory.
type pulledImage struct {
	info   BackupInfo
	images map[block.ID][]byte
}

func (p pulledImage) Info() BackupInfo { return p.info }

func (p pulledImage) ReadBlock(id block.ID, dst []byte) error {
	im, ok := p.images[id]
	if !ok {
		return fmt.Errorf("block %v: %w", id, ErrNotInUse)
	}
	copy(dst, im)
	return nil
}

// An image is read as the database that it is of, with little memory, checked,
// and backed up again, byte for byte.
func TestOpenImage_IsTheStateOfItsBackup(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.commits(5, 30, 500))
	for range 5 {
		ok(t, c.allocMany(100))
	}
	p := openBackup(t, c.s)
	ok(t, p.rest(t))
	ok(t, p.b.Close())
	ok(t, c.commits(3, 30, 500))
	img := pulledImage{p.b.Info(), p.images}
	s, err := OpenImage(img, Options{MaxRAM: blockcache.RAMBytesMin(4096), CloseWait: -1})
	ok(t, err)
	if s.newestLSN() != img.info.LSN || s.Timeline() != c.s.Timeline() || s.Database() != c.s.Database() || !s.lastCommitTime().Equal(img.info.Time) {
		t.Fatalf("image of LSN %v at %v", s.newestLSN(), s.lastCommitTime())
	}
	checkAll(t, s, c.m)
	res, err := s.Check(context.Background(), nil)
	ok(t, err)
	if len(res.Problems) > 0 {
		t.Fatal(res.Problems)
	}
	if _, err := s.BeginWrite(); !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
	r, err := s.BeginRead()
	ok(t, err)
	if _, err := r.Block(20000); !errors.Is(err, ErrNotInUse) {
		t.Fatalf("a block that was never used: %v", err)
	}
	r.Close()
	again := openBackup(t, s)
	ok(t, again.rest(t))
	if len(again.images) != len(p.images) {
		t.Fatalf("%d blocks of %d", len(again.images), len(p.images))
	}
	for id, im := range again.images {
		if !bytes.Equal(im, p.images[id]) {
			t.Fatalf("block %v differs", id)
		}
	}
	ok(t, again.b.Close())
	ok(t, s.Close())
	mustClose(t, c.s)
	// Damage is found, and told as what it is.
	img.images[c.m.at[img.info.LSN].ids()[3]][100] ^= 1
	s, err = OpenImage(img, Options{CloseWait: -1})
	ok(t, err)
	res, err = s.Check(context.Background(), nil)
	ok(t, err)
	if len(res.Problems) != 1 {
		t.Fatalf("one block is damaged: %v", res.Problems)
	}
	ok(t, s.Close())
	if _, err := OpenImage(pulledImage{info: BackupInfo{BlockSize: 5}}, Options{}); !errors.Is(err, ErrOptions) {
		t.Fatal(err)
	}
}
