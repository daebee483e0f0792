package bench

import (
	"errors"
	"os"
	"testing"
)

func TestMemoryGroupIsMadeAndRemoved(t *testing.T) {
	g, err := NewMemoryGroup(64 << 20)
	if errors.Is(err, ErrNoMemoryGroup) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(g.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", g.Dir, err)
	}
}
