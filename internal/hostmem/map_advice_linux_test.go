package hostmem

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestSmallPages: what is said about large pages reaches the system, and the last
// word counts.
func TestSmallPages(t *testing.T) {
	b, err := Map(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = Unmap(b) }()
	before := flagsOf(t, b)
	if SmallPages(b); strings.Contains(before, " hg") && !strings.Contains(flagsOf(t, b), " nh") {
		t.Errorf("flags %q, then %q", before, flagsOf(t, b))
	}
}

// flagsOf is what the kernel has noted about the mapping that begins with b.
func flagsOf(t *testing.T, b []byte) string {
	data, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	_, rest, found := strings.Cut(string(data), fmt.Sprintf("%x-", uintptr(unsafe.Pointer(unsafe.SliceData(b)))))
	if !found {
		t.Skip("the mapping is part of a larger one")
	}
	_, flags, _ := strings.Cut(rest, "VmFlags:")
	flags, _, _ = strings.Cut(flags, "\n")
	return flags
}

// TestPopulate: the memory is there before it is touched.
func TestPopulate(t *testing.T) {
	b, err := Map(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = Unmap(b) }()
	Populate(b[:2<<20])
	there := make([]byte, len(b)/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(unsafe.Pointer(unsafe.SliceData(there)))); errno != 0 {
		t.Skip(errno)
	}
	n := bytes.Count(there, []byte{1})
	if n == 0 {
		t.Skip("the kernel takes no such advice")
	}
	if want := (2 << 20) / os.Getpagesize(); n != want {
		t.Errorf("%d pages are there, want %d", n, want)
	}
}
