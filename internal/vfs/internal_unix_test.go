//go:build unix

package vfs

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The fallback of OpenTemp leaves no name and no rights to others.
func TestOpenTempUnlinkedLeavesNoName(t *testing.T) {
	dir := t.TempDir()
	f, err := openTempUnlinked(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 100); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestLockEndsWithCloseBesideAProgramThatStarts: a process that is being started has copies
// of all descriptors of its parent for a moment. A database that was closed then can be
// opened again all the same.
func TestLockEndsWithCloseBesideAProgramThatStarts(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	open := func() *osFile {
		f, err := OS.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f.(*osFile)
	}
	first := open()
	if err := first.Lock(); err != nil {
		t.Fatal(err)
	}
	var copied int
	err := control(first.f, func(fd uintptr) (err error) {
		copied, err = unix.Dup(int(fd)) // as a child has it
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again := open()
	defer again.Close()
	if err := again.Lock(); err != nil {
		t.Errorf("lock of a closed file: %v", err)
	}
}

// The fallback of Allocate extends by zeros, keeps what is there and really
// takes the space.
func TestAllocateZerosReserves(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("data"); err != nil {
		t.Fatal(err)
	}
	const end = zerosBytes*2 + 7
	for _, r := range []struct{ off, n int64 }{{0, 3}, {2, 10}, {5, end - 5}} {
		if err := allocateZeros(f, r.off, r.n); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(f.Name())
	if err != nil || len(got) != end || string(got[:5]) != "data\x00" {
		t.Fatalf("%d bytes, %q: %v", len(got), got[:5], err)
	}
	if allocated := allocatedBytes(t, f); allocated < end {
		t.Errorf("%d bytes are allocated, want %d", allocated, end)
	}
}
