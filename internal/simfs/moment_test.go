package simfs_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// enumerate runs three publishings once, and looks at every state of every moment.
func (p publisher) enumerate() (states int, err error) {
	fs := simfs.New()
	acknowledged := byte('A' - 1)
	type moment struct {
		m            *simfs.Moment
		acknowledged byte
	}
	var moments []moment
	fs.Moments(func(_ simfs.Event, m *simfs.Moment) { moments = append(moments, moment{m, acknowledged}) })
	for value := byte('A'); value <= 'C'; value++ {
		if err := p.publish(fs, value); err != nil {
			return 0, err
		}
		acknowledged = value
	}
	for i, m := range moments {
		for _, s := range m.m.States() {
			states++
			if err := kept(s.Disk(), m.acknowledged); err != nil {
				return states, fmt.Errorf("event %d, %v: %w", i, s, err)
			}
		}
	}
	return states, nil
}

// TestStates_FindEachMissingSync: the states of one run find what cutting many runs
// at random does, and nothing else.
func TestStates_FindEachMissingSync(t *testing.T) {
	states, err := publisher{}.enumerate()
	ok(t, err)
	t.Logf("a right program passes %d states", states)
	for _, wrong := range []publisher{{noFileSync: true}, {noDirSync: true}, {inPlace: true}} {
		_, err := wrong.enumerate()
		if err == nil {
			t.Errorf("%+v passes", wrong)
		}
		t.Logf("%+v: %v", wrong, err)
	}
}

// TestStates_AreTheDisksOwn: a moment stays what it was, whatever happens to the disk
// and to states of it; the first two states are those of Crash; equal checksums are
// equal disks, and only they.
func TestStates_AreTheDisksOwn(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	fs := simfs.New()
	f := durable(t, fs, "/a", "something")
	var last *simfs.Moment
	fs.Moments(func(_ simfs.Event, m *simfs.Moment) { last = m })
	var s simfs.Summer
	known := map[uint64]string{}
	for range 20 {
		_, err := f.WriteAt(repeat(byte('a'+rng.IntN(26)), 1+rng.IntN(3000)), rng.Int64N(20_000))
		ok(t, err)
		if rng.IntN(8) == 0 {
			ok(t, f.Truncate(rng.Int64N(30_000)))
		}
		m := last
		drop, keep := fs.Crash(nil, simfs.DropAll), fs.Crash(nil, simfs.KeepAll)
		if rng.IntN(2) == 0 {
			ok(t, f.Sync())
		}
		_, err = f.WriteAt(repeat('!', 2500), 0)
		ok(t, err)
		states := m.States()
		for i, want := range []*simfs.FS{drop, keep} {
			if s.Sum(states[i].Disk()) != s.Sum(want) {
				t.Fatalf("%v is another disk than that of Crash", states[i])
			}
		}
		for _, state := range states {
			disk := state.Disk()
			sum := s.Sum(disk)
			data, err := disk.Bytes("/a")
			ok(t, err)
			if before, seen := known[sum]; seen && before != string(data) {
				t.Fatalf("%v has the checksum of another disk", state)
			}
			known[sum] = string(data)
			g, err := disk.OpenFile("/a", os.O_RDWR, 0)
			ok(t, err)
			_, err = g.WriteAt(repeat('?', 100), rng.Int64N(20_000))
			ok(t, errors.Join(err, g.Close()))
			again, err := state.Disk().Bytes("/a")
			ok(t, err)
			if string(again) != string(data) {
				t.Fatalf("%v changed when a disk that was made of it did", state)
			}
		}
	}
	sums := map[string]uint64{}
	for sum, data := range known {
		if other, seen := sums[data]; seen && other != sum {
			t.Fatal("equal disks have two checksums")
		}
		sums[data] = sum
	}
	t.Logf("%d different disks", len(known))
}

// TestStates_AreLegal: at every moment of a random history each state is one that
// Crash could have drawn: its size is one that the file had since it was synced, each
// sector is one that a write since then, or the sync, left there.
func TestStates_AreLegal(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 8))
		fs := simfs.New()
		f := durable(t, fs, "/a", string(repeat('0', 4*sector)))
		var m *simfs.Moment
		fs.Moments(func(_ simfs.Event, now *simfs.Moment) { m = now })
		versions := [][]byte{repeat('0', 4*sector)}
		for i := range 3 {
			at, n := rng.IntN(3), 1+rng.IntN(2)
			_, err := f.WriteAt(repeat(byte('a'+i), n*sector), int64(at*sector))
			ok(t, err)
			now, err := fs.Bytes("/a")
			ok(t, err)
			versions = append(versions, now)
			for _, state := range m.States() {
				data, err := state.Disk().Bytes("/a")
				ok(t, err)
				for s := range len(data) / sector {
					if !oneOf(data[s*sector:(s+1)*sector], versions, s) {
						t.Fatalf("%v: sector %d is %q", state, s, data[s*sector])
					}
				}
			}
		}
	}
}

func oneOf(got []byte, versions [][]byte, s int) bool {
	for _, v := range versions {
		if string(v[s*sector:(s+1)*sector]) == string(got) {
			return true
		}
	}
	return false
}
