package mvcc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// Tests that bugs made by a tool have asked for: no other test found these (soak mutate).

// TestR8_RepairIsOnTheDiskBeforeItsCopyGoes: a sync of the data file failed, and the
// process ended. Who opens next finds a block as new as its second copy, and writes it
// again, since the system may show what the disk never got. That has to be synced before
// a second copy of something else takes the place of this one.
func TestR8_RepairIsOnTheDiskBeforeItsCopyGoes(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	s, id := oneBlock(t, o)
	other := anotherBlock(t, s)
	set(t, s, id, 2)
	fault := fsys.Fail(simfs.Fault{Ops: simfs.OpSync, File: fileData, Err: syscall.EIO, Sync: simfs.SyncCacheNew})
	if err := s.cleaner.round(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("the round: %v", err)
	}
	fault.Disarm()
	_ = s.fail(syscall.EIO) // as the cleaner's own goroutine does
	_ = s.Close()

	at := s.geo.offset(id)
	const (
		untouched = iota
		written
		synced
	)
	repair, early := untouched, false
	fsys.Trace(func(ev simfs.Event) {
		switch {
		case ev.Op == simfs.OpWrite && ev.File == fileData && ev.Off <= at && at < ev.Off+ev.Len && repair == untouched:
			repair = written
		case ev.Op == simfs.OpSync && ev.File == fileData && repair == written:
			repair = synced
		case ev.Op == simfs.OpWrite && ev.File == testDir+"/"+nameDoublewrite && repair == written:
			early = true
		}
	})
	s = mustOpen(t, o)
	fsys.Trace(nil)
	if repair == untouched {
		t.Fatal("the block was not written again")
	}
	if repair == written || early {
		t.Error("opened before the block is on the disk")
	}
	set(t, s, other, 2)
	settle(t, s)
	after := fsys.Crash(nil, simfs.DropAll)
	mustClose(t, s)
	s = mustOpen(t, smallOptions(after))
	r := beginRead(t, s)
	if value(t, r, id) != 2 || value(t, r, other) != 2 {
		t.Error("lost")
	}
	r.Close()
	mustClose(t, s)
}

// TestR8_OnlyTheCopyThatTheHeaderNames: an image that is not sound, or that is of another
// version or another block than its header says, repairs nothing.
func TestR8_OnlyTheCopyThatTheHeaderNames(t *testing.T) {
	fsys := simfs.New()
	s, id := oneBlock(t, smallOptions(fsys))
	defer func() { mustClose(t, s) }()
	image := func(id block.ID, lsn block.LSN) []byte {
		b := make([]byte, s.geo.size)
		block.Seal(b, block.Trailer{Type: block.TypeLeaf, ID: id, LSN: lsn}, s.data.seed)
		return b
	}
	damaged := image(id, 7)
	damaged[9] ^= 1
	for what, b := range map[string][]byte{
		"as named": image(id, 7), "damaged": damaged, "older": image(id, 6), "newer": image(id, 8), "of another block": image(id+1, 7),
	} {
		f, err := fsys.OpenFile(testDir+"/copies", os.O_RDWR|os.O_CREATE, 0o600)
		ok(t, err)
		d := &doublewrite{file: f, database: s.database, size: s.geo.size, capacity: 16}
		d.buf = make([]byte, d.halfBytes())
		ok(t, d.write(3, []place{{id, 7}}, [][]byte{b}))
		n := 0
		ok(t, d.each(3, s.data.seed, func(block.ID, []byte) error { n++; return nil }))
		if (n == 1) != (what == "as named") {
			t.Errorf("a copy that is %s counts %d times", what, n)
		}
		ok(t, errors.Join(f.Close(), fsys.Remove(testDir+"/copies")))
	}
}

// TestR8_StaleSecondCopyIsNoSource: a block is written in place with a second copy, then
// changed as a whole and written without one, since its image is in the log. After the
// checkpoint the copy is of an older version than the place. If the place rots, it must
// not be taken for what was there: nothing in the log would tell (R8, D5).
func TestR8_StaleSecondCopyIsNoSource(t *testing.T) {
	for _, closed := range []bool{true, false} {
		fsys := simfs.New()
		s, id := oneBlock(t, smallOptions(fsys))
		stale := set(t, s, id, 2)
		settle(t, s)
		fill(t, s, id, 1)
		settle(t, s)
		at := s.geo.offset(id)
		after := fsys
		if !closed {
			after = fsys.Crash(nil, simfs.DropAll)
		}
		mustClose(t, s)
		b, err := after.Bytes(testDir + "/" + nameDoublewrite)
		ok(t, err)
		there := false
		for half := range int64(2) {
			_, places := decodeDoublewrite(b[min(half*s.second.halfBytes(), int64(len(b))):], s.database)
			for _, p := range places {
				there = there || p == place{id, stale}
			}
		}
		if !there {
			t.Fatal("there is no stale copy")
		}
		ok(t, after.FlipBits(fileData, at+7, 1))
		s = mustOpen(t, smallOptions(after))
		r := beginRead(t, s)
		if b, err := r.Block(id); !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("closed: %v: the place rotted, and block %v is %d there", closed, id, b.Payload()[0])
			b.Release()
		}
		r.Close()
		ok(t, s.Close())
	}
}

// TestR8_ImageWhereThatIsSmaller: of a change that is large for its block the smaller of
// difference and whole image is logged.
func TestR8_ImageWhereThatIsSmaller(t *testing.T) {
	rng := rand.New(rand.NewPCG(chance.Seed(t), 0))
	const size = 2000
	images, diffs := 0, 0
	for range 500 {
		old, now := make([]byte, size), make([]byte, size)
		for _, b := range [][]byte{old, now} {
			for i := range b[:rng.IntN(size+1)] {
				b[i] = byte(rng.Uint32())
			}
		}
		copy(now[rng.IntN(size):], old[:rng.IntN(size)]) // some of it only moved
		n := rng.IntN(size + 1)
		copy(now[n:], old[n:]) // some of it is as it was
		proveDiff(t, old, now)
		var w, whole redoWriter
		zeros := make([]byte, size)
		image := w.diff(1, block.TypeLeaf, 1, old, now, zeros)
		whole.image(1, block.TypeLeaf, now, zeros)
		if len(w.buf) < size/2 && !image {
			continue
		}
		if len(w.buf) > len(whole.buf) {
			t.Fatalf("logged as %d bytes, the image takes %d", len(w.buf), len(whole.buf))
		}
		if image {
			images++
		} else {
			diffs++
		}
	}
	if images == 0 || diffs == 0 {
		t.Fatalf("%d images, %d differences", images, diffs)
	}
}

// TestCheckpoint_OfNothingWritesNothing: while nothing changes, a round writes and syncs
// no more than the first one behind the last change.
func TestCheckpoint_OfNothingWritesNothing(t *testing.T) {
	fsys := simfs.New()
	s, id := oneBlock(t, smallOptions(fsys))
	set(t, s, id, 2)
	settle(t, s)
	var wrote []string
	fsys.Trace(func(ev simfs.Event) {
		if ev.Op&simfs.OpWrite != 0 && !strings.HasSuffix(ev.File, ".new") { // a segment that the log makes ahead
			wrote = append(wrote, ev.File)
		}
	})
	settle(t, s)
	fsys.Trace(nil)
	if len(wrote) > 0 {
		t.Errorf("written: %v", wrote)
	}
	mustClose(t, s)
}

// TestR20_ReadOnlyNeedsNoMemoryForWhatIsInPlace: the power went before a checkpoint was
// recorded, and all that it is of is in place. Who may write nothing has nothing to redo,
// however many blocks that are.
func TestR20_ReadOnlyNeedsNoMemoryForWhatIsInPlace(t *testing.T) {
	c, fsys := newCrashRun(t, chance.Seed(t), func(o *Options) { o.MaxRAM, o.LogBytesMax = 8<<20, 64<<20 })
	g := newGates(fsys)
	ok(t, c.s.cleaner.awaitRound(c.s.cleaner.rounds()))
	record := g.next(simfs.OpWrite, fileData, superblocks)
	for range 4 {
		ok(t, c.allocMany(100))
	}
	ok(t, c.s.log.MarkIdle())
	cleaned := async(func() { settle(t, c.s) })
	<-record.reached
	disk := fsys.Crash(nil, simfs.KeepAll)
	record.open()
	<-cleaned
	mustClose(t, c.s)
	s := mustOpen(t, Options{FS: disk, MaxRAM: blockcache.RAMBytesMin(4096), CloseWait: -1, ReadOnly: true})
	checkAll(t, s, c.m)
	if n := s.cache.Frames(blockcache.ClassDirty); n > 100 {
		t.Errorf("%d dirty frames", n)
	}
	ok(t, s.Close())
}

// TestR20_ReadOnlyTakesTornBlocksFromSecondCopies: who may write nothing reads a torn block
// from its second copy, as who repairs it does, and leaves the place as it is.
func TestR20_ReadOnlyTakesTornBlocksFromSecondCopies(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	s, id := oneBlock(t, smallOptions(fsys))
	sound := anotherBlock(t, s)
	set(t, s, sound, 2)
	set(t, s, id, 2)
	ok(t, s.log.MarkIdle())
	record := g.next(simfs.OpWrite, fileData, superblocks)
	cleaned := async(func() { settle(t, s) })
	<-record.reached
	disk := fsys.Crash(nil, simfs.KeepAll)
	record.open()
	<-cleaned
	mustClose(t, s)
	ok(t, disk.FlipBits(fileData, s.geo.offset(id)+9, 1))
	before := everyByte(t, disk)
	for _, o := range []Options{{ReadOnly: true, MaxRAM: blockcache.RAMBytesMin(4096)}, smallOptions(nil)} {
		o.FS, o.CloseWait = disk, -1
		s = mustOpen(t, o)
		r := beginRead(t, s)
		if value(t, r, id) != 2 || value(t, r, sound) != 2 {
			t.Errorf("read-only %v: lost", o.ReadOnly)
		}
		l := s.cache.Latch(sound)
		if h := l.Head(sound); o.ReadOnly && h != nil && h.Dirty {
			t.Error("a block that is sound in place counts as changed")
		}
		l.Unlock()
		r.Close()
		for name, b := range everyByte(t, disk) {
			if o.ReadOnly && before[name] != b {
				t.Errorf("%s has changed", name)
			}
		}
		ok(t, s.Close())
	}
}

// TestR16_RedoMarksEachAtItsOwnCommit: what is redone is marked with the commit that it is
// of, so that an incremental behind a crash carries no more than one before it.
func TestR16_RedoMarksEachAtItsOwnCommit(t *testing.T) {
	fsys := simfs.New()
	s, id := oneBlock(t, smallOptions(fsys))
	far := farBlock(t, s)
	first := set(t, s, id, 2)
	second := set(t, s, far, 2)
	after := fsys.Crash(nil, simfs.DropAll)
	mustClose(t, s)
	s = mustOpen(t, smallOptions(after))
	if a, b := markOf(t, s, id), markOf(t, s, far); a != first || b != second {
		t.Errorf("marks %v and %v, want %v and %v", a, b, first, second)
	}
	mustClose(t, s)
}

// TestCheckpoint_WhoReadsCausesNoWrites: readers, backups and checks change nothing on the
// disk, neither while they are under way nor in the round behind them.
func TestCheckpoint_WhoReadsCausesNoWrites(t *testing.T) {
	c, fsys := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.commits(3, 20, 60))
	base := c.m.newest()
	ok(t, c.commits(2, 5, 60))
	settle(t, c.s)
	mustClose(t, c.s)
	s := mustOpen(t, c.o)
	settle(t, s)
	var wrote []string
	fsys.Trace(func(ev simfs.Event) {
		if ev.Op&simfs.OpWrite != 0 && !strings.HasSuffix(ev.File, ".new") { // a segment that the log makes ahead
			wrote = append(wrote, ev.File)
		}
	})
	checkAll(t, s, c.m)
	for _, p := range []*backupPull{openBackup(t, s), openIncremental(t, s, base, 4)} {
		ok(t, p.rest(t))
		ok(t, p.b.Close())
	}
	res, err := s.Check(context.Background(), nil)
	ok(t, err)
	settle(t, s)
	fsys.Trace(nil)
	if len(wrote) > 0 || len(res.Problems) > 0 {
		t.Errorf("written: %v; problems: %v", wrote, res.Problems)
	}
	mustClose(t, s)
}

// TestD11_RunsStayInTheirPayload: redo that is sound by its checksum and says nonsense is
// refused, exactly where a run begins or ends outside, or is moved from outside.
func TestD11_RunsStayInTheirPayload(t *testing.T) {
	const size = 6
	old := []byte("abcdef")
	for skip := range uint64(size + 3) {
		for n := uint64(1); n < size+3; n++ {
			for distance := int64(-size - 2); distance < size+3; distance++ {
				for again := range uint64(3) { // a run of one byte behind it
					runs := binary.AppendUvarint(nil, skip)
					at := skip
					want, sound := []byte("......"), skip+n <= size
					if distance == 0 {
						runs = append(binary.AppendUvarint(runs, n<<1), bytes.Repeat([]byte{'x'}, int(n))...)
					} else {
						runs = binary.AppendVarint(binary.AppendUvarint(runs, n<<1|1), distance)
						from := int64(at) - distance
						sound = sound && from >= 0 && from+int64(n) <= size
					}
					for i := at; sound && i < at+n; i++ {
						if want[i] = 'x'; distance != 0 {
							want[i] = old[int64(i)-distance]
						}
					}
					at += n + again
					runs = append(binary.AppendUvarint(runs, again), 1<<1, 'y', 0, 0)
					if sound = sound && at < size; sound {
						want[at] = 'y'
					}
					got := []byte("......")
					e := redoEntry{runs: runs, moves: true}
					err := e.apply(got, old)
					if (err == nil) != sound || err != nil && !errors.Is(err, errRedo) || sound && !bytes.Equal(got, want) {
						t.Fatalf("run of %d behind %d, moved by %d, then one behind %d: %q, want %q, sound: %v, %v", n, skip, distance, again, got, want, sound, err)
					}
				}
			}
		}
	}
}

// TestR7_FreesAreListedTogether: a transaction that frees much logs little more for each
// block than its number.
func TestR7_FreesAreListedTogether(t *testing.T) {
	const n = 1000
	s := mustOpen(t, smallOptions(simfs.New()))
	ids := someBlocks(t, s, n)
	settle(t, s)
	before := s.log.Stats().RecordBytes
	drop(t, s, ids...)
	if got := s.log.Stats().RecordBytes - before; got > 3*n {
		t.Errorf("%d frees are logged as %d bytes", n, got)
	}
	mustClose(t, s)
}
