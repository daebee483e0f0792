package livebackup

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

var _ mvcc.Image = (*Image)(nil)

func openedImage(t *testing.T, repo *Repository, id BackupID, o ImageOptions) *Image {
	t.Helper()
	img, err := OpenBackup(t.Context(), repo, id, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

// Each member of a chain opens as a database that can be read, and is the state that
// it was taken of.
func TestImage_OpensAsAStore(t *testing.T) {
	h, repo, ids := chainOfThree(t, 21)
	for _, id := range ids {
		img := openedImage(t, repo, id, ImageOptions{})
		store, err := mvcc.OpenImage(img, mvcc.Options{FS: simfs.New(), MaxRAM: 16 << 20, Temp: []mvcc.TempDir{}})
		if err != nil {
			t.Fatal(err)
		}
		wantStore(t, store, h.kept[img.Info().LSN])
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Who walks through a backup gets each group decoded once, however small the cache
// is, and though all the members of a chain are asked for each block.
func TestImage_ScanDecodesEachGroupOnce(t *testing.T) {
	h, repo, ids := chainOfThree(t, 11)
	fs := h.fs.(*simfs.FS)
	groups := 0
	for _, e := range mustList(t, repo) {
		groups += int(e.Manifest.Groups)
	}
	for _, cache := range []int64{1, 0} {
		img := openedImage(t, repo, ids[2], ImageOptions{CacheBytes: cache})
		img.cache.often.Close() // which may refuse anything
		var reads atomic.Int64
		fs.Trace(func(e simfs.Event) {
			if e.Op == simfs.OpRead && strings.Contains(e.File, ".blocks-") && e.Len > objectHeaderSize {
				reads.Add(1)
			}
		})
		dst := make([]byte, img.Info().BlockSize)
		blocks := 0
		for id := range img.Info().HighWater {
			if err := img.ReadBlock(id, dst); err == nil {
				blocks++
			} else if !errors.Is(err, mvcc.ErrNotInUse) {
				t.Fatal(err)
			}
		}
		fs.Trace(nil)
		if blocks != int(img.Info().Blocks) {
			t.Fatalf("%d blocks, want %d", blocks, img.Info().Blocks)
		}
		if n := int(reads.Load()); n > groups {
			t.Errorf("cache of %d bytes: %d reads for %d groups", cache, n, groups)
		}
	}
}

// The cache gives what was loaded under a key, loads it once for all who ask at the
// same time, keeps no more than it may, and remembers no failure.
func TestImageCache(t *testing.T) {
	const bytesMax = 1 << 20
	c, err := newImageCache(bytesMax)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	var loads atomic.Int64
	var askers sync.WaitGroup
	for n := range uint64(4) {
		askers.Go(func() {
			rng := rand.New(rand.NewPCG(n, 1))
			for range 3000 {
				key := imageKey{uint8(rng.IntN(3)), uint16(rng.IntN(3)), uint64(rng.IntN(20))}
				v, err := c.get(key, func() (any, int64, error) {
					loads.Add(1)
					return key, int64(10_000 + rng.IntN(30_000)), nil
				})
				if err != nil || v != any(key) {
					t.Errorf("%v: %v, %v", key, v, err)
					return
				}
			}
		})
	}
	askers.Wait()
	sum := int64(0)
	for e := c.last.Front(); e != nil; e = e.Next() {
		sum += e.Value.(imageItem).bytes
	}
	if sum != c.bytes || c.bytes > c.bytesMax || len(c.at) != c.last.Len() || len(c.loading) > 0 {
		t.Errorf("%d bytes in %d items, it says %d, of %d", sum, c.last.Len(), c.bytes, c.bytesMax)
	}
	if c.bytesMax+c.often.MaxCost() > bytesMax || loads.Load() == 12000 {
		t.Errorf("%d and %d bytes, %d loads", c.bytesMax, c.often.MaxCost(), loads.Load())
	}
	loads.Store(0)
	asked := make(chan struct{}, 8)
	for range 8 {
		askers.Go(func() {
			asked <- struct{}{}
			c.get(imageKey{8, 8, 8}, func() (any, int64, error) {
				for len(asked) < 8 {
					runtime.Gosched() // the others come: this ends
				}
				return loads.Add(1), 1, nil
			})
		})
	}
	askers.Wait()
	if loads.Load() != 1 {
		t.Errorf("%d loads at once", loads.Load())
	}
	for i := range 3 {
		v, err := c.get(imageKey{9, 9, 9}, func() (any, int64, error) { return i, 1, []error{errStopped, nil, nil}[i] })
		if (err != nil) != (i == 0) || err == nil && v != any(1) {
			t.Errorf("call %d: %v, %v", i, v, err)
		}
	}
}

// Many read one image at once, close it meanwhile, and see what is in the backup or
// that it is closed.
func TestImage_Concurrent(t *testing.T) {
	_, repo, ids := chainOfThree(t, 12)
	want := contents(t, repo, ids[2])
	for _, cache := range []int64{1, 256 << 10, 0} {
		img := openedImage(t, repo, ids[2], ImageOptions{CacheBytes: cache})
		var readers sync.WaitGroup
		var done atomic.Int64
		for n := range uint64(4) {
			readers.Go(func() {
				rng := rand.New(rand.NewPCG(n, 1))
				dst := make([]byte, img.Info().BlockSize)
				for range 500 {
					id := block.ID(rng.Uint64N(uint64(img.Info().HighWater)))
					err := img.ReadBlock(id, dst)
					image, there := want[id]
					switch {
					case errors.Is(err, ErrImageClosed):
						return
					case there && (err != nil || string(image) != string(dst)), !there && !errors.Is(err, mvcc.ErrNotInUse):
						t.Errorf("block %v (in use: %v): %v", id, there, err)
						return
					}
					if done.Add(1) == 1500 {
						img.Close()
					}
				}
			})
		}
		readers.Wait()
		if err := img.ReadBlock(2, make([]byte, img.Info().BlockSize)); !errors.Is(err, ErrImageClosed) {
			t.Error(err)
		}
	}
}

// Whatever byte of a chain is changed, what is read in place is an error or the right
// bytes.
func TestImage_DamageIsNeverRead(t *testing.T) {
	_, repo, ids := chainOfThree(t, 13)
	want := contents(t, repo, ids[2])
	found := 0
	for name, data := range objectsOf(t, repo) {
		_, k, _, _, _ := parseObjectName(name)
		if k != kindBlocks && k != kindIndex {
			continue
		}
		for at := 0; at < len(data); at += 1 + len(data)/12 {
			rewrite(t, repo, name, flipped(data, at))
			img, err := OpenBackup(t.Context(), repo, ids[2], ImageOptions{})
			if err != nil {
				found++
				if !errors.Is(err, block.ErrCorrupt) {
					t.Fatalf("%s, byte %d: %v", name, at, err)
				}
				continue
			}
			dst := make([]byte, img.Info().BlockSize)
			for id, image := range want {
				err := img.ReadBlock(id, dst)
				if err != nil && !errors.Is(err, block.ErrCorrupt) || err == nil && string(dst) != string(image) {
					t.Fatalf("%s, byte %d, block %v: %v", name, at, id, err)
				}
				if err != nil {
					found++
				}
			}
			img.Close()
		}
		rewrite(t, repo, name, data)
	}
	if found == 0 {
		t.Fatal("nothing was found")
	}
}

// What the bitmap says is in use and no member has is damage, not "free".
func TestImage_AbsenceIsDamage(t *testing.T) {
	repo := newRepo(t)
	craft(t, repo, newDense(), BackupID{1, 1}, [][]block.ID{{2, 3}, {13}}, says(3))
	img := openedImage(t, repo, BackupID{1, 1}, ImageOptions{})
	dst := make([]byte, 4096)
	for id, want := range map[block.ID]error{2: nil, 3: nil, 13: nil, 14: block.ErrCorrupt, 15: mvcc.ErrNotInUse, 4: mvcc.ErrNotInUse, 0: mvcc.ErrNotInUse, 16: mvcc.ErrNotInUse, 1 << 60: mvcc.ErrNotInUse} {
		if err := img.ReadBlock(id, dst); !errors.Is(err, want) {
			t.Errorf("block %v: %v", id, err)
		}
	}
	if err := img.ReadBlock(2, dst[:100]); err == nil {
		t.Error("read into a small buffer")
	}
}

// An image that is open keeps a prune away, and no longer (L13).
func TestL13_ImageIsLeased(t *testing.T) {
	_, repo, ids := chainOfThree(t, 14)
	img := openedImage(t, repo, ids[1], ImageOptions{})
	h, err := repo.leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false} {
		if _, held := h.of(ids[i]); held != want {
			t.Errorf("backup %d is held: %v", i, held)
		}
	}
	img.Close()
	if h, err = repo.leases(t.Context()); err != nil || len(h.by) > 0 {
		t.Fatalf("%v, %v", h, err)
	}
	if _, err := OpenBackup(t.Context(), repo, ids[1], ImageOptions{CacheBytes: -1}); !errors.Is(err, ErrOptions) {
		t.Fatal(err)
	}
}

// More objects than may be open are opened again and closed at the end.
func TestImage_FewObjectsStayOpen(t *testing.T) {
	fs := simfs.New()
	h := newHistory(t, rand.New(rand.NewPCG(15, 1)), simfs.New(), "/db")
	repo := openRepo(t, fs, "/repo")
	h.commit(300, 0, 0)
	o := smallGroups(TypeFull)
	o.GroupBytes, o.ObjectBytes = 4096, 1 // an object for each block
	m := h.backup(repo, o)
	img := openedImage(t, repo, m.ID, ImageOptions{CacheBytes: 1})
	dst := make([]byte, 4096)
	for id := range m.HighWater {
		if err := img.ReadBlock(id, dst); err != nil && !errors.Is(err, mvcc.ErrNotInUse) {
			t.Fatal(err)
		}
	}
	if n := len(fs.OpenFiles()); n > imageObjectsMax+1 { // and the lease
		t.Errorf("%d files are open", n)
	}
	img.Close()
	if open := fs.OpenFiles(); len(open) > 0 {
		t.Errorf("left open: %v", open)
	}
}
