package simfs_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// publisher is a small program with a promise to keep: a value that it
// acknowledged is found after a power cut, whole, and never an older one. The
// sweeps below show that the rig sees it when any one of its syncs is left out.
type publisher struct {
	noFileSync, noDirSync, inPlace bool
}

func (p publisher) publish(fs *simfs.FS, value byte) error {
	name := "/temporary"
	if p.inPlace {
		name = "/value"
	}
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(repeat(value, 3*sector), 0); err != nil {
		return err
	}
	if !p.noFileSync {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if !p.inPlace {
		if err := fs.Rename(name, "/value"); err != nil {
			return err
		}
	}
	if p.noDirSync {
		return nil
	}
	return fs.SyncDir("/")
}

// sweep cuts the power at every event of three publishings and returns the
// first broken promise.
func (p publisher) sweep() error {
	for k := 1; ; k++ {
		fs := simfs.New()
		fs.CutAfter(k)
		acknowledged := byte('A' - 1)
		for value := byte('A'); value <= 'C'; value++ {
			err := p.publish(fs, value)
			if errors.Is(err, simfs.ErrPowerCut) {
				break
			}
			if err != nil {
				return err
			}
			acknowledged = value
		}
		for seed := range uint64(100) {
			after := fs.Crash(rand.New(rand.NewPCG(seed, 0)), simfs.Random)
			if err := kept(after, acknowledged); err != nil {
				return fmt.Errorf("cut after %d events, seed %d: %w", k, seed, err)
			}
		}
		if !fs.IsCut() || acknowledged == 'C' {
			return nil
		}
	}
}

func kept(fs *simfs.FS, acknowledged byte) error {
	got, err := fs.Bytes("/value")
	switch {
	case err != nil && acknowledged < 'A':
		return nil
	case err != nil:
		return err
	case len(got) != 3*sector || !slices.Equal(got, repeat(got[0], len(got))):
		return fmt.Errorf("value is torn: %q", brief(got))
	case got[0] < acknowledged:
		return fmt.Errorf("value is %c, but %c was acknowledged", got[0], acknowledged)
	}
	return nil
}

func TestSweepPassesARightProgram(t *testing.T) { ok(t, publisher{}.sweep()) }

func TestSweepFindsEachMissingSync(t *testing.T) {
	for _, wrong := range []publisher{{noFileSync: true}, {noDirSync: true}, {inPlace: true}} {
		err := wrong.sweep()
		if err == nil {
			t.Errorf("%+v passes", wrong)
		}
		t.Logf("%+v: %v", wrong, err)
	}
}

// A sweep over faults ends when nothing was left to fail.
func TestFaultSweepKnowsItsEnd(t *testing.T) {
	failed := 0
	for skip := 0; ; skip++ {
		fs := simfs.New()
		fault := fs.Fail(simfs.Fault{Skip: skip})
		err := publisher{}.publish(fs, 'A')
		if fault.Seen() <= skip {
			ok(t, err)
			break
		}
		if err == nil {
			t.Errorf("operation %d failed and nobody told", skip)
		}
		failed++
	}
	if failed != 5 { // create, write, sync, rename, sync of the directory
		t.Errorf("%d operations failed, want 5", failed)
	}
}

// TestRandomHistories compares crashes with what random operations on one file
// left in the cache and at its last sync.
func TestRandomHistories(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 2))
	for range 30 {
		fs := simfs.New()
		f := durable(t, fs, "/a", "")
		synced := []byte{}
		sizes := []int{0}
		for range 40 {
			off, n := rng.Int64N(20000), rng.Int64N(6000)+1
			switch rng.IntN(6) {
			case 0:
				ok(t, f.Truncate(off))
			case 1:
				ok(t, f.Allocate(off, n))
			case 2:
				ok(t, f.PunchHole(off, n))
			case 3:
				ok(t, f.Sync())
				synced, _ = fs.Bytes("/a")
				sizes = nil
			default:
				_, err := f.WriteAt(repeat(byte('a'+rng.IntN(26)), int(n)), off)
				ok(t, err)
			}
			cached, _ := fs.Bytes("/a")
			sizes = append(sizes, len(cached))
			same(t, fs.Crash(nil, simfs.KeepAll), cached)
			same(t, fs.Crash(nil, simfs.DropAll), synced)
			after, err := fs.Crash(rng, simfs.Random).Bytes("/a")
			ok(t, err)
			if len(after) != len(synced) && !slices.Contains(sizes, len(after)) {
				t.Fatalf("size is %d, and was %v", len(after), sizes)
			}
		}
	}
}

func same(t *testing.T, fs *simfs.FS, want []byte) {
	t.Helper()
	got, err := fs.Bytes("/a")
	ok(t, err)
	if !slices.Equal(got, want) {
		t.Fatalf("crash leaves %q, want %q", brief(got), brief(want))
	}
}
