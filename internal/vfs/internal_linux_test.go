package vfs

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func allocatedBytes(t *testing.T, f *os.File) int64 {
	t.Helper()
	if err := f.Sync(); err != nil { // allocation may be delayed until then
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks * 512
}

func TestAllocateReservesHolesToo(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := allocate(f, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if allocated := allocatedBytes(t, f); allocated < 1<<20 {
		t.Errorf("%d bytes are allocated, want %d", allocated, 1<<20)
	}
	if err := punchHole(f, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if allocated := allocatedBytes(t, f); allocated > 1<<16 {
		t.Errorf("%d bytes are allocated after the hole was punched", allocated)
	}
}

func TestProductSaturates(t *testing.T) {
	for _, test := range []struct{ a, b, want uint64 }{
		{3, 4, 12}, {1 << 32, 1 << 31, math.MaxInt64}, {math.MaxUint64, math.MaxUint64, math.MaxInt64}, {0, 5, 0},
	} {
		if got := product(test.a, test.b); got != int64(test.want) {
			t.Errorf("product(%d, %d) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

// A descriptor of a file must not reach a child process: it would keep the
// lock alive.
func TestDescriptorsCloseOnExec(t *testing.T) {
	dir := t.TempDir()
	f, err := OS.OpenFile(filepath.Join(dir, "a"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	temp, err := OS.OpenTemp(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer temp.Close()
	for _, file := range []File{f, temp} {
		flags, err := unix.FcntlInt(file.(*osFile).f.Fd(), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: descriptor flags %#x, %v", file.Name(), flags, err)
		}
	}
}

// A process that closed its standard input must not get a database for it.
func TestStandardDescriptorsAreRefused(t *testing.T) {
	const role = "VFS_TEST_CLOSED_STDIN"
	if name := os.Getenv(role); name != "" {
		os.Stdin.Close()
		_, err := OS.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if !errors.Is(err, ErrStandardDescriptor) {
			t.Fatalf("OpenFile: %v", err)
		}
		if _, err := OS.OpenTemp(filepath.Dir(name)); !errors.Is(err, ErrStandardDescriptor) {
			t.Fatalf("OpenTemp: %v", err)
		}
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^TestStandardDescriptorsAreRefused$")
	child.Env = append(os.Environ(), role+"="+filepath.Join(t.TempDir(), "a"))
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
