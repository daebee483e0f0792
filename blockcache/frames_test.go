package blockcache

import "testing"

// TestL9_TheNextChunkIsWithinTheLimit: memory is made ready ahead of its use, but not
// more than frames may have.
func TestL9_TheNextChunkIsWithinTheLimit(t *testing.T) {
	const chunk = chunkBytes / size
	for name, c := range map[string]struct {
		limit, overflow int64
		taken, chunks   int
	}{
		"half a chunk":         {4 * chunk, 0, chunk / 2, 2},
		"less":                 {4 * chunk, 0, chunk/2 - 1, 1},
		"a chunk and a half":   {4 * chunk, 0, chunk * 3 / 2, 3},
		"no room for it":       {2*chunk - 1, 0, chunk, 1},
		"room in the overflow": {2*chunk - 1, 1, chunk, 2},
	} {
		t.Run(name, func(t *testing.T) {
			f := frames{limit: c.limit}
			f.init(size)
			f.overflow.Store(c.overflow)
			seen := map[*byte]bool{}
			for range c.taken {
				d, _, err := f.take(0, 0)
				ok(t, err)
				if len(d) != size || seen[&d[0]] {
					t.Fatal("no frame, or one of another")
				}
				seen[&d[0]] = true
				f.prepared.Wait()
			}
			if len(f.chunks) != c.chunks {
				t.Errorf("%d chunks, want %d", len(f.chunks), c.chunks)
			}
			ok(t, f.close())
		})
	}
}

// TestR13_AFrameThatCameFreeIsNoOverflow: who resorts to overflow, and finds that a frame
// under MaxRAM has come free meanwhile, has not used it: nothing is told of a rung that
// was not reached.
func TestR13_AFrameThatCameFreeIsNoOverflow(t *testing.T) {
	f := &frames{limit: 2}
	f.init(size)
	var taken [][]byte
	for i, want := range []struct {
		overflow int64
		over     bool
		full     bool
	}{{overflow: 1}, {overflow: 1}, {overflow: 1, over: true}, {overflow: 1, full: true}, {overflow: 0, full: true}} {
		d, over, err := f.take(0, want.overflow)
		if err != nil || over != want.over || (d == nil) != want.full {
			t.Fatalf("take %d: %d bytes, %v, %v", i, len(d), over, err)
		}
		if d != nil {
			taken = append(taken, d)
		}
	}
	f.give(taken[2])
	f.give(taken[1])
	if d, over, err := f.take(0, 1); d == nil || over || err != nil {
		t.Fatalf("of a frame under MaxRAM: %d bytes, %v, %v", len(d), over, err)
	}
	ok(t, f.close())
}
