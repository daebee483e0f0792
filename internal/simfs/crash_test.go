package simfs_test

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

func TestSectorsAreKeptOrLostEachByItself(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("xyz"))
	write(t, f, sectors("AB"), 0)
	write(t, f, sectors("C"), 1024)
	exactly(t, fs, "/a=xyz", "/a=Ayz", "/a=xBz", "/a=xyC", "/a=ABz", "/a=AyC", "/a=xBC", "/a=ABC")
}

func TestASectorHoldsWhatItOnceHeld(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("x"))
	write(t, f, sectors("A"), 0)
	write(t, f, sectors("B"), 0)
	exactly(t, fs, "/a=x", "/a=A", "/a=B")

	// Half sectors: the second write cannot be there without the first.
	fs = simfs.New()
	f = durable(t, fs, "/a", sectors("x"))
	write(t, f, sectors("A")[:256], 0)
	write(t, f, sectors("A")[:256], 256)
	exactly(t, fs, "/a=x", "/a=#", "/a=A")
}

func TestSizeAndDataAreIndependent(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", "")
	write(t, f, sectors("AB"), 0)
	exactly(t, fs, "/a=", "/a=AB", "/a=A.", "/a=.B", "/a=..", // zeros
		"/a=A#", "/a=#B", "/a=##") // garbage
}

func TestReservedSpaceIsNeverGarbage(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", "")
	ok(t, f.Allocate(0, 1024))
	exactly(t, fs, "/a=", "/a=..")
	ok(t, f.Sync())
	write(t, f, sectors("A"), 512)
	exactly(t, fs, "/a=..", "/a=.A")
}

func TestSizesReachTheDiskInOrder(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", "")
	ok(t, f.Truncate(512))
	ok(t, f.Truncate(1024))
	ok(t, f.Truncate(0))
	ok(t, f.Truncate(1536))
	exactly(t, fs, "/a=", "/a=.", "/a=..", "/a=...")

	fs = simfs.New()
	f = durable(t, fs, "/a", sectors("xy"))
	ok(t, f.Truncate(0))
	ok(t, f.Truncate(1536))
	exactly(t, fs, "/a=xy", "/a=", "/a=...") // and not "/a=xy."
}

func TestGarbageIsOnlyWhereTheFileGrew(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("x"))
	write(t, f, sectors("AB"), 0)
	exactly(t, fs, "/a=x", "/a=A", "/a=xB", "/a=AB", "/a=x.", "/a=A.", "/a=x#", "/a=A#")
}

func TestDataBeyondALostSizeIsGone(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("x")[:100])
	write(t, f, sectors("AB"), 0)
	for seed := range uint64(500) {
		after := fs.Crash(rand.New(rand.NewPCG(seed, 0)), simfs.Random)
		data, err := after.Bytes("/a")
		ok(t, err)
		if len(data) == 100 {
			ok(t, open(t, after, "/a").Truncate(1024))
			if grown, _ := after.Bytes("/a"); brief(grown) != "#." || grown[100] != 0 {
				t.Fatalf("seed %d: what grew is %q", seed, grown)
			}
		}
	}
}

func TestLostTruncationBringsOldDataBack(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("xy"))
	ok(t, f.Truncate(0))
	ok(t, f.Truncate(1024))
	write(t, f, sectors("A"), 0)
	exactly(t, fs, "/a=xy", "/a=", "/a=..", "/a=A.")
}

func TestLostHoleBringsOldDataBack(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("xxxxxxxxy"))
	ok(t, f.PunchHole(0, 4096))
	write(t, f, sectors("A"), 0)
	exactly(t, fs, "/a=xxxxxxxxy", "/a=........y", "/a=A.......y")
}

func TestEdgesOfAHoleAreWritten(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("xyz"))
	ok(t, f.PunchHole(512, 5000))
	exactly(t, fs, "/a=xyz", "/a=x.z", "/a=xy.", "/a=x..")
}

func TestSyncCoversDataAndSizeButNoName(t *testing.T) {
	fs := simfs.New()
	f := open(t, fs, "/a")
	write(t, f, sectors("A"), 0)
	ok(t, f.Sync())
	exactly(t, fs, "", "/a=A")
	ok(t, fs.SyncDir("/"))
	exactly(t, fs, "/a=A")
}

func TestSyncDirCoversNamesButNoData(t *testing.T) {
	fs := simfs.New()
	f := open(t, fs, "/a")
	ok(t, f.Truncate(512))
	ok(t, fs.SyncDir("/"))
	exactly(t, fs, "/a=", "/a=.")
}

func TestNamesAreKeptOrLostEachByItself(t *testing.T) {
	fs := simfs.New()
	durable(t, fs, "/gone", "")
	ok(t, fs.Remove("/gone"))
	open(t, fs, "/new")
	exactly(t, fs, "", "/gone=", "/new=", "/gone= /new=")
}

func TestRenameIsAtomic(t *testing.T) {
	fs := simfs.New()
	durable(t, fs, "/old", sectors("A"))
	durable(t, fs, "/name", sectors("x"))
	ok(t, fs.Rename("/old", "/name"))
	exactly(t, fs, "/name=x /old=A", "/name=A")
}

func TestRenameBetweenDirectoriesIsNot(t *testing.T) {
	fs := simfs.New()
	ok(t, fs.Mkdir("/d", 0o700))
	durable(t, fs, "/a", sectors("A"))
	ok(t, fs.Rename("/a", "/d/a"))
	exactly(t, fs, "/a=A /d", "/d", "/a=A /d /d/a=A", "/d /d/a=A")
	ok(t, fs.SyncDir("/d"))
	exactly(t, fs, "/a=A /d /d/a=A", "/d /d/a=A")
	ok(t, fs.SyncDir("/"))
	exactly(t, fs, "/d /d/a=A")
}

func TestADirectoryTakesItsNamesAlong(t *testing.T) {
	fs := simfs.New()
	ok(t, fs.Mkdir("/d", 0o700))
	open(t, fs, "/d/a")
	ok(t, fs.SyncDir("/d"))
	exactly(t, fs, "", "/d /d/a=")
}

func TestLinkedFilesStayOneFile(t *testing.T) {
	fs := simfs.New()
	durable(t, fs, "/a", "")
	ok(t, fs.Link("/a", "/b"))
	ok(t, fs.SyncDir("/"))
	after := fs.Crash(nil, simfs.DropAll)
	write(t, open(t, after, "/a"), sectors("A"), 0)
	if got := state(t, after); got != "/a=A /b=A" {
		t.Errorf("after the crash: %q", got)
	}
	ok(t, after.Remove("/a"))
	if got := after.UsedBytes(); got != 4096 {
		t.Errorf("%d bytes are used", got)
	}
}

func TestKeepAllAndDropAll(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("xyz"))
	write(t, f, sectors("AB"), 1024)
	open(t, fs, "/b")
	if got := state(t, fs.Crash(nil, simfs.KeepAll)); got != "/a=xyAB /b=" {
		t.Errorf("KeepAll leaves %q", got)
	}
	if got := state(t, fs.Crash(nil, simfs.DropAll)); got != "/a=xyz" {
		t.Errorf("DropAll leaves %q", got)
	}
	if got := state(t, fs); got != "/a=xyAB /b=" {
		t.Errorf("crashes changed their origin: %q", got)
	}
}

// What a crash left is on disk: a second crash takes nothing of it.
func TestACrashLeavesNothingPending(t *testing.T) {
	fs := simfs.New()
	write(t, open(t, fs, "/a"), sectors("A"), 0)
	after := fs.Crash(nil, simfs.KeepAll)
	exactly(t, after, "/a=A")
}

func TestACrashClosesAndUnlocks(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", "")
	ok(t, f.Lock())
	temp, err := fs.OpenTemp("/")
	ok(t, err)
	write(t, temp, sectors("AAAA"), 0)
	after := fs.Crash(nil, simfs.KeepAll)
	if open := after.OpenFiles(); len(open) > 0 {
		t.Errorf("open after the crash: %q", open)
	}
	if used := after.UsedBytes(); used != 0 {
		t.Errorf("%d bytes are used after the crash", used)
	}
	ok(t, open(t, after, "/a").Lock())
}

func TestOneSeedOneCrash(t *testing.T) {
	run := func() (found []string) {
		fs := simfs.New()
		for _, name := range []string{"/a", "/b", "/c", "/d"} {
			write(t, open(t, fs, name), sectors("ABCDEFGH"), 0)
		}
		ok(t, fs.SyncDir("/"))
		ok(t, fs.Remove("/c"))
		ok(t, fs.Rename("/a", "/e"))
		for seed := range uint64(100) {
			found = append(found, state(t, fs.Crash(rand.New(rand.NewPCG(seed, 0)), simfs.Random)))
		}
		return found
	}
	first, second := run(), run()
	for i := range first {
		if first[i] != second[i] {
			t.Fatalf("seed %d leaves %q, then %q", i, first[i], second[i])
		}
	}
}

func TestKillKeepsTheCacheAndNothingMore(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("x"))
	ok(t, f.Lock())
	_, err := fs.OpenTemp("/")
	ok(t, err)
	write(t, f, sectors("A"), 0)
	open(t, fs, "/b")
	next := fs.Kill()
	if got := state(t, next); got != "/a=A /b=" {
		t.Errorf("the next process finds %q", got)
	}
	if open := next.OpenFiles(); len(open) > 0 {
		t.Errorf("open in the next process: %q", open)
	}
	exactly(t, next, "/a=x", "/a=A", "/a=x /b=", "/a=A /b=")
	if err := f.Sync(); err == nil {
		t.Error("a killed process synced")
	}
	again := open(t, next, "/a")
	ok(t, again.Lock())
	f.Close()
	ok(t, again.Sync())
	exactly(t, next, "/a=A", "/a=A /b=")
	ok(t, next.Remove("/a"))
	if used := next.UsedBytes(); used != 4096 {
		t.Errorf("a file that is open takes %d bytes", used)
	}
}

// Clones share memory and nothing else; the race detector watches.
func TestCrashesAreIndependent(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("xxxxxxxxxxxxxxxxxxxx"))
	for i := range 4 {
		t.Run("", func(t *testing.T) {
			after := fs.Crash(nil, simfs.DropAll)
			t.Parallel()
			g, err := after.OpenFile("/a", os.O_RDWR, 0)
			ok(t, err)
			for round := range int64(20) {
				write(t, g, sectors(string(rune('A'+i))), round*sector)
				ok(t, g.Sync())
				after = after.Crash(nil, simfs.DropAll)
				g = open(t, after, "/a")
			}
			write(t, f, sectors("y"), int64(i)*sector)
			want := sectors("xxxxxxxxxxxxxxxxxxxx")
			got, err := after.Bytes("/a")
			ok(t, err)
			if string(got) == want || brief(got) != string(repeat(byte('A'+i), 20)) {
				t.Errorf("file is %q", brief(got))
			}
		})
	}
}

func repeat(c byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = c
	}
	return b
}

func BenchmarkCrash(b *testing.B) {
	fs := simfs.New()
	log := durable(b, fs, "/log", "")
	ok(b, log.Allocate(0, 4<<20))
	ok(b, log.Sync())
	data := durable(b, fs, "/data", "")
	for i := range int64(16) {
		write(b, log, sectors("ABCDEFGH"), i*4096)
		write(b, data, sectors("ABCDEFGH"), i*65536)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		fs.Crash(rng, simfs.Random)
	}
}

func BenchmarkWriteSync(b *testing.B) {
	fs := simfs.New()
	f := durable(b, fs, "/a", "")
	page := []byte(sectors("ABCDEFGH"))
	for i := int64(0); b.Loop(); i++ {
		if _, err := f.WriteAt(page, i%1024*4096); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}
