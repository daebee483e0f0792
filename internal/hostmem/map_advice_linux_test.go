package hostmem

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"
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
