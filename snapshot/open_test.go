package snapshot

import (
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
)

// opening is the moment that R2 is about: the horizon is at 104, commit 105
// replaced block 7, which is from 90, and now becomes durable.
type opening struct {
	*naive
	seen *point // what a reader loaded before the horizon moved
	v    *blockcache.Version
}

func newOpening(t *testing.T) *opening {
	o := &opening{naive: newNaive(t, 1)}
	o.set.Advance(104)
	v, err := o.cache.NewVersion(7, block.TypeLeaf)
	ok(t, err)
	v.LSN = 90
	o.v, o.seen, o.lsn = v, o.set.newest.Load(), 105
	o.pend(v, 105)
	return o
}

// moveOn makes commit 105 visible, and the sweep follows. It reports whether
// block 7 was kept.
func (o *opening) moveOn() bool {
	o.set.Advance(105)
	o.replaced(o.v) // compares with what the open readers want
	return o.v.Role == blockcache.RoleOriginal
}

// open registers a reader. With stale it has loaded the horizon before it moved.
func (o *opening) open(stale bool, owner string) *Reader {
	now := o.set.newest.Load()
	if stale {
		o.set.newest.Store(o.seen)
	}
	r := &Reader{Owner: owner}
	o.set.OpenReader(r)
	o.set.newest.Store(now)
	o.readers = append(o.readers, r)
	return r
}

// mustSee proves that r sees the block as it was at its LSN.
func (o *opening) mustSee(r *Reader, lsn block.LSN) {
	o.t.Helper()
	if r.LSN() != lsn {
		o.t.Fatalf("the reader is at %v, want %v", r.LSN(), lsn)
	}
	v := o.found(7, lsn)
	if (v == o.v) != (lsn < 105) {
		o.t.Fatalf("at %v the original is %v", lsn, v)
	}
	o.compare()
}

// TestR2_OpeningExcludesTheSweep drives every order in which a reader can load
// the horizon, the horizon can move on, the sweep can drop what was replaced,
// and the reader can register.
func TestR2_OpeningExcludesTheSweep(t *testing.T) {
	for _, owner := range []string{"", "named"} {
		t.Run("registered before the sweep/"+owner, func(t *testing.T) {
			o := newOpening(t)
			r := o.open(false, owner)
			if !o.moveOn() {
				t.Fatal("dropped although a reader sees it")
			}
			o.mustSee(r, 104)
			o.end()
		})
		t.Run("registers behind the sweep/"+owner, func(t *testing.T) {
			o := newOpening(t)
			if o.moveOn() {
				t.Fatal("kept for nobody")
			}
			o.mustSee(o.open(true, owner), 105) // what it loaded has gone
			o.end()
		})
		t.Run("registers between horizon and sweep/"+owner, func(t *testing.T) {
			o := newOpening(t)
			o.set.Advance(105)
			r := o.open(true, owner)
			o.replaced(o.v)
			o.mustSee(r, 105)
			o.end()
		})
		t.Run("another one keeps the point/"+owner, func(t *testing.T) {
			o := newOpening(t)
			first := o.open(false, "")
			if !o.moveOn() {
				t.Fatal("dropped although a reader sees it")
			}
			second := o.open(true, owner) // may still join the first, if it has no name
			o.mustSee(first, 104)
			want := block.LSN(104)
			if owner != "" {
				want = 105
			}
			o.mustSee(second, want)
			o.set.CloseReader(first)
			o.readers = o.readers[1:]
			o.mustSee(second, want)
			o.end()
		})
		t.Run("the last one has left/"+owner, func(t *testing.T) {
			o := newOpening(t)
			r := o.open(false, owner)
			if !o.moveOn() {
				t.Fatal("dropped although a reader sees it")
			}
			o.set.CloseReader(r)
			o.readers = nil
			o.compare()
			o.mustSee(o.open(true, owner), 105)
			o.end()
		})
	}
}
