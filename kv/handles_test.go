package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// heldCursor, heldReader and modelPlace are handles that live as long as their
// transaction, whatever it does meanwhile.
type heldCursor struct {
	c *kv.Cursor
	m *cursorModel
}

type heldReader struct {
	r     *kv.ValueReader
	m     *model
	key   string
	value []byte // as it was
	short bool   // it was copied
}

// handles does random things through handles that were taken long ago.
type handles struct {
	actor
	gone    map[*model]bool // buckets that were deleted
	places  []modelPlace
	cursors []heldCursor
	readers []heldReader
}

// TestModel_HeldHandles: buckets, cursors and readers go on to say what is so
// while everything under them is changed, merged, deleted and made again.
func TestModel_HeldHandles(t *testing.T) {
	s := chance.Seed(t)
	rounds := 6
	if raceEnabled || testing.Short() {
		rounds = 2
	}
	o := kv.Options{Store: mvcc.Options{Durability: mvcc.DurableNever}}
	db := openDB(t, o)
	committed := newModel()
	for round := range rounds {
		h := &handles{gone: map[*model]bool{}}
		h.actor = actor{t: t, rnd: rand.New(rand.NewPCG(s, uint64(round))), bs: 4 << 10, top: committed.clone()}
		must(t, db.Update(func(tx *kv.Tx) error {
			h.tx = tx
			for range 600 {
				h.step()
			}
			checkTx(t, tx)
			return nil
		}))
		committed = h.top
		must(t, db.View(func(tx *kv.Tx) error {
			compareTx(t, tx, committed)
			return nil
		}))
	}
}

func (h *handles) step() {
	if len(h.places) < 12 {
		h.topBuckets()
		if p, ok := h.place(); ok {
			h.places = append(h.places, p)
		}
		return
	}
	i := h.rnd.IntN(len(h.places))
	p := h.places[i]
	h.noteGone()
	if h.gone[p.m] {
		h.useGone(p)
		if h.rnd.IntN(4) == 0 {
			h.places = append(h.places[:i], h.places[i+1:]...)
		}
		return
	}
	switch n := h.rnd.IntN(100); {
	case n < 25:
		h.put(p)
	case n < 30:
		h.bulk(p)
	case n < 33:
		h.sweep(p)
	case n < 36:
		h.scanAndChange(p)
	case n < 40:
		h.nested(p)
	case n < 41:
		h.topBuckets()
	case n < 46:
		h.holdReader(p)
	case n < 52:
		c := p.b.Cursor()
		h.cursors = append(h.cursors, heldCursor{c, newCursorModel(p.m)})
	case n < 75 && len(h.cursors) > 0:
		h.moveCursor(h.cursors[h.rnd.IntN(len(h.cursors))])
	case len(h.readers) > 0:
		h.useReader(h.readers[h.rnd.IntN(len(h.readers))])
	}
}

// noteGone notes which of the buckets that handles know are no longer there.
func (h *handles) noteGone() {
	there := map[*model]bool{}
	var walk func(m *model)
	walk = func(m *model) {
		there[m] = true
		for _, b := range m.buckets {
			walk(b)
		}
	}
	walk(h.top)
	for _, p := range h.places {
		h.gone[p.m] = !there[p.m]
	}
	for _, c := range h.cursors {
		h.gone[c.m.m] = !there[c.m.m]
	}
	for _, r := range h.readers {
		h.gone[r.m] = !there[r.m]
	}
}

func (h *handles) useGone(p modelPlace) {
	_, err := p.b.Get([]byte("k"))
	wantErr(h.t, err, kv.ErrBucketNotFound)
	wantErr(h.t, p.b.Put([]byte("k"), nil), kv.ErrBucketNotFound)
	_, err = p.b.CreateBucket([]byte("k"))
	wantErr(h.t, err, kv.ErrBucketNotFound)
	_, err = p.b.NextSequence()
	wantErr(h.t, err, kv.ErrBucketNotFound)
}

func (h *handles) moveCursor(c heldCursor) {
	if h.gone[c.m.m] {
		if k, _ := c.c.Next(); k != nil {
			h.t.Fatalf("a cursor in a deleted bucket finds %q", k)
		}
		if c.m.on || c.m.side <= 0 { // otherwise it need not look
			wantErr(h.t, c.c.Err(), kv.ErrBucketNotFound)
		}
		c.m.on, c.m.side = false, 0
		return
	}
	var k, v []byte
	switch n := h.rnd.IntN(10); {
	case n == 0:
		at := h.anyKey(c.m.m)
		k, v = c.c.Seek(at)
		c.m.seek(string(at))
	case n < 5:
		k, v = c.c.Next()
		c.m.next()
	case n < 8:
		k, v = c.c.Prev()
		c.m.prev()
	default:
		h.deleteAt(c.c, c.m)
		return
	}
	must(h.t, c.c.Err())
	c.m.compare(h.t, k, v)
}

func (h *handles) holdReader(p modelPlace) {
	for k, v := range p.m.values {
		if len(v) < 900 && h.rnd.IntN(50) > 0 {
			continue
		}
		r, err := p.b.Reader([]byte(k))
		must(h.t, err)
		h.readers = append(h.readers, heldReader{r, p.m, k, v, len(v) <= 4<<10/4-64})
		return
	}
}

// useReader: values in the model are replaced, not changed, so that the identity
// of the slice says whether it is still the same value.
func (h *handles) useReader(r heldReader) {
	if len(r.value) == 0 {
		return
	}
	off := h.rnd.IntN(len(r.value))
	p := make([]byte, min(len(r.value)-off, 5000))
	_, err := r.r.ReadAt(p, int64(off))
	now, there := r.m.values[r.key]
	switch {
	case r.short || !h.gone[r.m] && there && len(now) > 0 && &now[0] == &r.value[0]:
		must(h.t, err)
		if !bytes.Equal(p, r.value[off:off+len(p)]) {
			h.t.Fatalf("a reader of %q reads something else at %d", r.key, off)
		}
	case h.gone[r.m]:
		wantErr(h.t, err, kv.ErrBucketNotFound)
	default:
		wantErr(h.t, err, kv.ErrValueChanged)
	}
}

// scanAndChange changes the bucket from within a scan. What the scan has not come
// to yet it must find as it is by then, each key once, to the end.
func (h *handles) scanAndChange(p modelPlace) {
	last, n, stopped := "", 0, false
	err := p.b.Scan(nil, nil, func(k, v []byte) error {
		keys := p.m.keys()
		i := 0
		for i < len(keys) && keys[i] <= last {
			i++
		}
		if n > 0 && string(k) <= last || i == len(keys) || keys[i] != string(k) || !bytes.Equal(v, p.m.values[string(k)]) {
			return fmt.Errorf("scan is at %q behind %q", k, last)
		}
		last = string(k)
		if n++; n > 80 {
			stopped = true
			return kv.ErrStop
		}
		switch h.rnd.IntN(6) {
		case 0:
			h.remove(p)
		case 1:
			if v != nil {
				must(h.t, p.b.Delete(k))
				delete(p.m.values, last)
			}
		case 2:
			h.put(p)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if ks := p.m.keys(); !stopped && len(ks) > 0 && ks[len(ks)-1] > last {
		h.t.Fatalf("a scan ends behind %q, and %q is there", last, ks[len(ks)-1])
	}
}

// A scan whose function changes the bucket goes on to the end: behind the bucket's
// last leaf, in which it was searched again, and in a leaf that other buckets share.
func TestScanGoesOnBehindAChange(t *testing.T) {
	db := openDB(t, unsynced(4<<10))
	change := map[string]func(b, beside *kv.Bucket, k []byte) error{
		"deletes":       func(b, _ *kv.Bucket, k []byte) error { return b.Delete(k) },
		"puts":          func(b, _ *kv.Bucket, k []byte) error { return b.Put(k, k) },
		"puts long":     func(b, _ *kv.Bucket, k []byte) error { return b.Put(k, make([]byte, 5000)) },
		"writes beside": func(_, beside *kv.Bucket, k []byte) error { return beside.Put(k, k) },
	}
	for name, change := range change {
		for _, n := range []int{1, 2, 10, 500} {
			must(t, db.Update(func(tx *kv.Tx) error {
				b, beside := bucket(t, tx, "b"), bucket(t, tx, "c")
				must(t, beside.Put([]byte("last"), nil))
				for i := range n {
					must(t, b.Put(fmt.Appendf(nil, "%05d", i), nil))
				}
				seen := 0
				must(t, b.Scan(nil, fmt.Appendf(nil, "%05d", n-1), func(k, _ []byte) error {
					seen++
					return change(b, beside, k)
				}))
				must(t, b.Scan(fmt.Appendf(nil, "%05d", n-1), nil, func(k, _ []byte) error {
					seen++
					return change(b, beside, k)
				}))
				if seen != n {
					t.Errorf("a scan that %s comes to %d keys of %d", name, seen, n)
				}
				must(t, tx.DeleteBucket([]byte("b")))
				return tx.DeleteBucket([]byte("c"))
			}))
		}
	}
}

// What the function of a scan has deleted, failed or ended, the scan says, also
// from the last leaf.
func TestScanOfWhatItsFunctionEnds(t *testing.T) {
	db := openDB(t, unsynced(4<<10))
	boom := errors.New("boom")
	for want, end := range map[error]func(tx *kv.Tx) error{
		kv.ErrBucketNotFound: func(tx *kv.Tx) error { return tx.DeleteBucket([]byte("b")) },
		kv.ErrTxClosed:       (*kv.Tx).Rollback,
		boom:                 func(tx *kv.Tx) error { kv.FailTx(tx, boom); return nil },
	} {
		tx, err := db.Begin(true)
		must(t, err)
		b := bucket(t, tx, "b")
		for i := range 3 {
			must(t, b.Put([]byte{byte(i)}, nil))
		}
		n := 0
		wantErr(t, b.Scan(nil, nil, func(k, v []byte) error {
			if n++; n == 1 {
				return end(tx)
			}
			return nil
		}), want)
		_ = tx.Rollback()
	}
}
