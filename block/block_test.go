package block

import (
	"strings"
	"testing"
)

func TestValidSize(t *testing.T) {
	valid := map[int]bool{4096: true, 8192: true, 16384: true, 32768: true, 65536: true}
	for _, n := range []int{-4096, 0, 1, 2048, 4095, 4096, 4097, 6144, 8192, 16384, 32768, 65535, 65536, 131072} {
		if ValidSize(n) != valid[n] {
			t.Errorf("ValidSize(%d) is %v", n, !valid[n])
		}
	}
	if !ValidSize(SizeDefault) {
		t.Error("the default is not valid")
	}
}

// TestTypesKeepTheirNumbers: they are on disk.
func TestTypesKeepTheirNumbers(t *testing.T) {
	want := []string{"free", "meta", "bitmap", "map", "branch", "leaf", "overflow", "index", "user(8)"}
	for n, name := range want {
		if got := Type(n).String(); got != name {
			t.Errorf("type %d is %q, not %q", n, got, name)
		}
	}
	if got := Type(255).String(); got != "user(255)" {
		t.Errorf("type 255 is %q", got)
	}
}

func TestTextOfQuantities(t *testing.T) {
	for want, got := range map[string]string{
		"0x2a":                             ID(42).String(),
		"42":                               LSN(42).String(),
		"000102030405060708090a0b0c0d0e0f": ourDatabase.String(),
		"ff" + strings.Repeat("00", 15):    TimelineID{0xff}.String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestNewIDsDiffer(t *testing.T) {
	if a, b := NewDatabaseID(), NewDatabaseID(); a == b {
		t.Fatal("a database's id was drawn twice")
	}
	if a, b := NewTimelineID(), NewTimelineID(); a == b {
		t.Fatal("a timeline's id was drawn twice")
	}
}
