package simfs_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// naive is a file as the package comment describes it, with nothing shared.
type naive struct {
	live, durable plain
	pending       []func(*plain)
}

type plain struct {
	bytes [1 << 16]byte
	size  int
}

func (p *plain) resize(size int) {
	if size < p.size {
		clear(p.bytes[size:])
	}
	p.size = size
}

func (p *plain) shown() []byte { return bytes.Clone(p.bytes[:p.size]) }

func (n *naive) change(f func(*plain)) {
	f(&n.live)
	n.pending = append(n.pending, f)
}

// write changes the cache, and of the disk whole sectors as the cache shows them then.
func (n *naive) write(p []byte, off int) {
	end := off + len(p)
	grows := end > n.live.size
	copy(n.live.bytes[off:], p)
	n.live.size = max(n.live.size, end)
	first := off / sector * sector
	now := bytes.Clone(n.live.bytes[first : (end+sector-1)/sector*sector])
	n.pending = append(n.pending, func(d *plain) {
		copy(d.bytes[first:], now)
		if grows { // else a sync that failed has lost who made it so long
			d.size = end
		}
	})
}

func (n *naive) sync() {
	for _, f := range n.pending {
		f(&n.durable)
	}
	n.pending = nil
}

// TestContents_AreTheFilesOwn: however much a file, its disk and the disks made of it
// share, the cache shows what was written, and a cut that keeps nothing leaves what was
// synced: also behind syncs that failed, and lost what they should have covered.
func TestContents_AreTheFilesOwn(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 21))
		fs := simfs.New()
		f := durable(t, fs, "/a", "")
		var n naive
		type kept struct {
			disk *simfs.FS
			want []byte
		}
		var disks []kept
		for range 120 {
			switch rng.IntN(9) {
			case 0, 1, 2:
				p, off := repeat(byte('a'+rng.IntN(26)), 1+rng.IntN(9000)), rng.IntN(30_000)
				_, err := f.WriteAt(p, int64(off))
				ok(t, err)
				n.write(p, off)
			case 3:
				off := rng.IntN(60) * sector
				_, err := f.WriteAt(repeat('A', 2*sector), int64(off))
				ok(t, err)
				n.write(repeat('A', 2*sector), off)
			case 4:
				size := rng.IntN(50_000)
				ok(t, f.Truncate(int64(size)))
				n.change(func(d *plain) { d.resize(size) })
			case 5:
				first := rng.IntN(5) * 4096
				ok(t, f.PunchHole(int64(first), 4096))
				n.change(func(d *plain) { clear(d.bytes[first : first+4096]) })
			case 6:
				ok(t, f.Sync())
				n.sync()
			case 7:
				armed := fs.Fail(simfs.Fault{Ops: simfs.OpSync, Sync: simfs.SyncCacheNew})
				if err := f.Sync(); err == nil {
					t.Fatal("the sync did not fail")
				}
				armed.Disarm()
				n.pending = nil
			case 8:
				disks = append(disks, kept{fs.Crash(nil, simfs.DropAll), n.durable.shown()})
			}
			got, err := fs.Bytes("/a")
			ok(t, err)
			if !bytes.Equal(got, n.live.shown()) {
				t.Fatalf("seed %d: the cache shows other bytes than were written", seed)
			}
		}
		for _, k := range disks {
			got, err := k.disk.Bytes("/a")
			ok(t, err)
			if !bytes.Equal(got, k.want) {
				t.Fatalf("seed %d: a cut leaves other bytes than were synced", seed)
			}
			g, err := k.disk.OpenFile("/a", os.O_RDWR, 0)
			ok(t, err)
			_, err = g.WriteAt(repeat('?', 9000), 100) // is seen by nobody else
			ok(t, err)
		}
	}
}
