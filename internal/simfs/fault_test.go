package simfs_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

func TestCutStopsEverythingAfterTheEvent(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", "")
	before := fs.Events()
	fs.CutAfter(2)
	write(t, f, sectors("A"), 0)
	if _, err := f.ReadAt(make([]byte, 10), 0); err != nil {
		t.Errorf("a read counted as an event: %v", err)
	}
	write(t, f, sectors("B"), 512)
	_, readErr := f.ReadAt(make([]byte, 10), 0)
	_, writeErr := f.WriteAt([]byte("x"), 0)
	for _, err := range []error{readErr, writeErr, f.Sync(), fs.Remove("/a"), f.Close()} {
		if !errors.Is(err, simfs.ErrPowerCut) {
			t.Errorf("after the cut: %v", err)
		}
	}
	if !fs.IsCut() || fs.Events() != before+2 {
		t.Errorf("cut %t after %d events", fs.IsCut(), fs.Events()-before)
	}
	if got := state(t, fs.Crash(nil, simfs.KeepAll)); got != "/a=AB" {
		t.Errorf("on disk: %q", got)
	}
	if open := fs.OpenFiles(); len(open) > 0 {
		t.Errorf("closed after the cut, and still open: %q", open)
	}
}

func TestKillAfterCutIsTheProcessKilledThere(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", "")
	fs.CutAfter(1)
	write(t, f, sectors("A"), 0)
	_, err := f.WriteAt([]byte(sectors("B")), 0)
	if !errors.Is(err, simfs.ErrPowerCut) {
		t.Fatal(err)
	}
	if got := state(t, fs.Kill()); got != "/a=A" {
		t.Errorf("the next process finds %q", got)
	}
}

func TestFaultHitsTheChosenOperationOnly(t *testing.T) {
	fs := simfs.New()
	f, g := open(t, fs, "/log-1"), open(t, fs, "/data")
	fault := fs.Fail(simfs.Fault{Ops: simfs.OpWrite | simfs.OpSync, File: "log-*", Skip: 1})
	results := []error{}
	do := func(err error) { results = append(results, err) }
	_, err := f.WriteAt([]byte("x"), 0)
	do(err)
	do(g.Sync())
	do(f.Truncate(5))
	do(f.Sync())
	do(f.Sync())
	for i, err := range results {
		if failed := i == 3; failed != errors.Is(err, syscall.EIO) {
			t.Errorf("operation %d: %v", i, err)
		}
	}
	if fault.Seen() != 3 || fault.Fired() != 1 {
		t.Errorf("seen %d, fired %d", fault.Seen(), fault.Fired())
	}
}

func TestStickyFaultStaysUntilDisarmed(t *testing.T) {
	fs := simfs.New()
	f := open(t, fs, "/a")
	fault := fs.Fail(simfs.Fault{Ops: simfs.OpSync, Sticky: true, Err: syscall.ENOSPC})
	for range 3 {
		if err := f.Sync(); !errors.Is(err, syscall.ENOSPC) {
			t.Error(err)
		}
	}
	fault.Disarm()
	ok(t, f.Sync())
	if fault.Fired() != 3 {
		t.Errorf("fired %d", fault.Fired())
	}
}

func TestFaultInARange(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("ABCD"))
	fs.Fail(simfs.Fault{Ops: simfs.OpRead, Off: 512, Len: 512, Sticky: true})
	p := make([]byte, 512)
	for off, bad := range map[int64]bool{0: false, 1: true, 512: true, 1023: true, 1024: false} {
		if _, err := f.ReadAt(p, off); (err != nil) != bad {
			t.Errorf("read at %d: %v", off, err)
		}
	}
}

func TestShortReadsAndWrites(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("xx"))
	fs.Fail(simfs.Fault{Ops: simfs.OpWrite, Short: true, Err: syscall.ENOSPC})
	n, err := f.WriteAt([]byte(sectors("AB")), 0)
	if n != 512 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("short write: %d, %v", n, err)
	}
	fs.Fail(simfs.Fault{Ops: simfs.OpRead, Short: true, Err: io.ErrUnexpectedEOF})
	p := make([]byte, 1024)
	n, err = f.ReadAt(p, 0)
	if n != 512 || !errors.Is(err, io.ErrUnexpectedEOF) || brief(p) != "A." {
		t.Errorf("short read: %d, %v, %q", n, err, brief(p))
	}
	if got := state(t, fs); got != "/a=Ax" {
		t.Error(got)
	}
}

func TestLateFaultReportsWhatWasDone(t *testing.T) {
	fs := simfs.New()
	durable(t, fs, "/a", "")
	fs.Fail(simfs.Fault{Late: true, Sticky: true, Ops: simfs.OpLink | simfs.OpCreate})
	if err := fs.Link("/a", "/b"); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if _, err := fs.OpenFile("/c", 0x42, 0o600); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if got := state(t, fs); got != "/a= /b= /c=" {
		t.Error(got)
	}
	if open := fs.OpenFiles(); !slices.Equal(open, []string{"/a"}) {
		t.Errorf("open: %q", open)
	}
}

func TestFailedSyncCoversNothing(t *testing.T) {
	for _, test := range []struct {
		how     simfs.SyncFailure
		shows   string
		crashes []string
		later   string // on disk after a later Sync that succeeds
	}{
		{simfs.SyncPending, "/a=A", []string{"/a=A", "/a=x"}, "/a=A"},
		{simfs.SyncCacheNew, "/a=A", []string{"/a=x"}, "/a=x"},
		{simfs.SyncCacheOld, "/a=x", []string{"/a=x"}, "/a=x"},
	} {
		fs := simfs.New()
		f := durable(t, fs, "/a", sectors("x"))
		write(t, f, sectors("A"), 0)
		fs.Fail(simfs.Fault{Ops: simfs.OpSync, Sync: test.how})
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		if got := state(t, fs); got != test.shows {
			t.Errorf("%d: reads show %q", test.how, got)
		}
		exactly(t, fs, test.crashes...)
		ok(t, f.Sync())
		exactly(t, fs, test.later)
	}
}

func TestFailedSyncDirCoversNothing(t *testing.T) {
	fs := simfs.New()
	open(t, fs, "/a")
	fs.Fail(simfs.Fault{Ops: simfs.OpSyncDir})
	if err := fs.SyncDir("/"); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	exactly(t, fs, "", "/a=")
}

func TestTheDiskFills(t *testing.T) {
	fs := simfs.New()
	fs.SetCapacity(5 * 4096)
	f := open(t, fs, "/a")
	ok(t, f.Allocate(0, 2*4096))
	if err := f.Allocate(0, 6*4096); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("allocate more than there is: %v", err)
	}
	if err := f.Allocate(0, 1<<60); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("allocate far more than there is: %v", err)
	}
	g := open(t, fs, "/b")
	n, err := g.WriteAt(make([]byte, 4*4096), 100)
	if n != 3*4096-100 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote %d: %v", n, err)
	}
	write(t, f, strings.Repeat("x", 2*4096), 0) // reserved: R7
	if free, _ := fs.FreeBytes("/"); free != 0 || fs.UsedBytes() != 5*4096 {
		t.Errorf("%d bytes free, %d used", free, fs.UsedBytes())
	}
	fs.SetCapacity(4096)
	write(t, f, strings.Repeat("y", 2*4096), 0)
	if _, err := f.WriteAt([]byte("x"), 2*4096); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write to a disk that shrank: %v", err)
	}
}

func TestSpaceComesBack(t *testing.T) {
	fs := simfs.New()
	f := open(t, fs, "/a")
	used := func(pages int64) {
		t.Helper()
		if got := fs.UsedBytes(); got != pages*4096 {
			t.Errorf("%d pages are used, want %d", got/4096, pages)
		}
	}
	ok(t, f.Allocate(0, 200*4096))
	used(200)
	ok(t, f.PunchHole(100, 70*4096))
	used(200 - 69)
	ok(t, f.Truncate(100*4096))
	used(100 - 69)
	write(t, f, "x", 4096)
	used(100 - 68)
	ok(t, fs.Remove("/a"))
	used(100 - 68)
	ok(t, f.Close())
	used(0)
	temp, err := fs.OpenTemp("/")
	ok(t, err)
	write(t, temp, "x", 0)
	used(1)
	if names := fs.TempFiles(); !slices.Equal(names, []string{"/(temporary)"}) {
		t.Errorf("temporary files: %q", names)
	}
	ok(t, temp.Close())
	used(0)
	replaced := open(t, fs, "/b")
	write(t, replaced, "x", 0)
	ok(t, replaced.Close())
	open(t, fs, "/c")
	ok(t, fs.Rename("/c", "/b"))
	used(0)
}

func TestTraceShowsEverythingInOrder(t *testing.T) {
	fs := simfs.New()
	var seen []string
	fs.Trace(func(ev simfs.Event) {
		line := ev.Op.String() + " " + ev.File
		if ev.Err != nil {
			line += " failed"
		}
		if ev.Op == simfs.OpWrite {
			line += " " + string(ev.Data)
		}
		seen = append(seen, line)
	})
	f := open(t, fs, "/a")
	write(t, f, "data", 7)
	fs.Fail(simfs.Fault{Ops: simfs.OpSync})
	f.Sync()
	f.DropCache(0, 1)
	f.Close()
	fs.Rename("/a", "/b")
	want := []string{"create /a", "write /a data", "sync /a failed", "drop cache /a", "close /a", "rename /a"}
	if !slices.Equal(seen, want) {
		t.Errorf("trace is %q", seen)
	}
}

func TestBeforeCanHoldAnOperationBack(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", "")
	gate := make(chan struct{})
	fs.Before(func(ev simfs.Event) {
		if ev.Op == simfs.OpSync {
			<-gate
		}
	})
	done := make(chan error)
	go func() { done <- f.Sync() }()
	write(t, f, sectors("A"), 0)
	close(gate)
	ok(t, <-done)
	exactly(t, fs, "/a=A")
}

func TestFlipBitsIsRotOnDisk(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", "abc")
	write(t, f, "d", 3)
	ok(t, fs.FlipBits("/a", 1, 0x20))
	ok(t, fs.FlipBits("/a", 3, 0x20))
	for _, mode := range []simfs.Mode{simfs.KeepAll, simfs.DropAll} {
		got, err := fs.Crash(nil, mode).Bytes("/a")
		ok(t, err)
		if want := map[simfs.Mode]string{simfs.KeepAll: "aBcD", simfs.DropAll: "aBc"}[mode]; string(got) != want {
			t.Errorf("mode %d leaves %q, want %q", mode, got, want)
		}
	}
	if fs.FlipBits("/a", 4, 1) == nil || fs.FlipBits("/none", 0, 1) == nil {
		t.Error("flipped bits that are not there")
	}
}

// TestWriteThatIsLostIsToldOnce: the write succeeds, whoever syncs the file next is told,
// has all else made durable, and nobody is told again.
func TestWriteThatIsLostIsToldOnce(t *testing.T) {
	for _, test := range []struct {
		how   simfs.SyncFailure
		shows string // after it was told
	}{
		{simfs.SyncPending, "/a=AB"}, {simfs.SyncCacheNew, "/a=AB"}, {simfs.SyncCacheOld, "/a=xB"},
	} {
		fs := simfs.New()
		f := durable(t, fs, "/a", sectors("xx"))
		g := open(t, fs, "/a")
		fault := fs.Fail(simfs.Fault{WriteBack: true, Sync: test.how})
		write(t, f, sectors("A"), 0)
		write(t, f, sectors("B"), 512)
		if got := state(t, fs); fault.Fired() != 1 || got != "/a=AB" {
			t.Errorf("%d: %d fired, reads show %q", test.how, fault.Fired(), got)
		}
		exactly(t, fs, "/a=xx", "/a=xB")
		if err := g.Sync(); !errors.Is(err, syscall.EIO) {
			t.Errorf("somebody else's sync: %v", err)
		}
		if got := state(t, fs); got != test.shows {
			t.Errorf("%d: reads show %q", test.how, got)
		}
		exactly(t, fs, "/a=xB")
		ok(t, f.Sync())
		exactly(t, fs, "/a=xB")
		write(t, f, sectors("C"), 0)
		ok(t, f.Sync())
		exactly(t, fs, "/a=CB")
	}
}

// TestWriteThatIsLostKeepsItsSize: what it has added to the file reads as zeros or garbage.
func TestWriteThatIsLostKeepsItsSize(t *testing.T) {
	fs := simfs.New()
	f := durable(t, fs, "/a", sectors("x"))
	fs.Fail(simfs.Fault{WriteBack: true})
	write(t, f, sectors("A"), 512)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	exactly(t, fs, "/a=x.")
}

// TestWriteThatIsLostIsForgotten: if everybody closes the file before anybody syncs it,
// nobody is told, nor is the next process.
func TestWriteThatIsLostIsForgotten(t *testing.T) {
	for _, killed := range []bool{false, true} {
		fs := simfs.New()
		f := durable(t, fs, "/a", sectors("x"))
		fs.Fail(simfs.Fault{WriteBack: true})
		write(t, f, sectors("A"), 0)
		if killed {
			fs = fs.Kill()
		} else {
			ok(t, f.Close())
		}
		f = open(t, fs, "/a")
		ok(t, f.Sync())
		exactly(t, fs, "/a=x")
	}
}
