package kv_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/kv"
)

var errUnexpectedEOF = io.ErrUnexpectedEOF

// failingReader gives n bytes and then an error.
type failingReader struct {
	n   int
	err error
}

func (r *failingReader) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, r.err
	}
	n := min(len(p), r.n)
	r.n -= n
	return n, nil
}

// patternReader is an endless stream in which every byte depends on its place.
type patternReader struct{ at int64 }

func patternAt(i int64) byte { return byte(i ^ i>>9 ^ i>>18) }

func (r *patternReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = patternAt(r.at)
		r.at++
	}
	return len(p), nil
}

// valueSizes are those at which something begins or ends: inline values, direct
// references, a full index block.
func valueSizes(blockSize int) []int64 {
	p := int64(blockSize - 24)
	per := (p - 16) / 8
	inline := int64(blockSize/4 - 64)
	most := int64(12 << 20)
	if raceEnabled {
		most = 3 << 20
	}
	var sizes []int64
	for _, edge := range []int64{1, inline, p, 2 * p, 8 * p, 9 * p, per * p, 2 * per * p} {
		if edge < most {
			sizes = append(sizes, edge-1, edge, edge+1)
		}
	}
	return sizes
}

func TestValuesOfEverySize(t *testing.T) {
	for _, bs := range []int{4 << 10, 64 << 10} {
		t.Run(fmt.Sprintf("block=%d", bs), func(t *testing.T) {
			db := openDB(t, blockSize(bs))
			sizes := valueSizes(bs)
			must(t, db.Update(func(tx *kv.Tx) error {
				b := bucket(t, tx, "b")
				for _, n := range sizes {
					must(t, b.PutReader(fmt.Appendf(nil, "%d", n), &patternReader{}, n))
				}
				return nil
			}))
			must(t, db.View(func(tx *kv.Tx) error {
				b := bucket(t, tx, "b")
				for _, n := range sizes {
					proveValue(t, b, fmt.Appendf(nil, "%d", n), n)
				}
				s, err := b.Stats()
				if s.Keys != uint64(len(sizes)) || s.LongValues == 0 {
					t.Errorf("stats are %+v", s)
				}
				return err
			}))
			must(t, db.Update(func(tx *kv.Tx) error {
				b := bucket(t, tx, "b")
				for i, n := range sizes {
					if i%2 == 0 {
						must(t, b.Put(fmt.Appendf(nil, "%d", n), nil))
					}
				}
				return tx.DeleteBucket([]byte("b"))
			}))
			if left := allocated(t, db); len(left) != 0 {
				t.Errorf("%d blocks are left of nothing", len(left))
			}
		})
	}
}

// proveValue reads a value by Get and by a reader, in pieces and at places.
func proveValue(t *testing.T, b *kv.Bucket, key []byte, n int64) {
	t.Helper()
	v, err := b.Get(key)
	must(t, err)
	want := make([]byte, n)
	_, _ = (&patternReader{}).Read(want)
	if v == nil || !bytes.Equal(v, want) {
		t.Fatalf("value of %d bytes is not right", n)
	}
	r, err := b.Reader(key)
	must(t, err)
	if r.Size() != n {
		t.Fatalf("reader of %d bytes says %d", n, r.Size())
	}
	var got bytes.Buffer
	_, err = io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{r}, make([]byte, 5000))
	must(t, err)
	if !bytes.Equal(got.Bytes(), want) {
		t.Fatalf("reader of %d bytes is not right", n)
	}
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	for range 5 {
		if n == 0 {
			break
		}
		off := rnd.Int64N(n)
		p := make([]byte, min(n-off, 9000))
		_, err := r.ReadAt(p, off)
		must(t, err)
		if !bytes.Equal(p, want[off:off+int64(len(p))]) {
			t.Fatalf("reader of %d bytes is not right at %d", n, off)
		}
	}
	if _, err := r.ReadAt(make([]byte, 1), n); err != io.EOF {
		t.Fatalf("reading behind the end is %v", err)
	}
}

func TestReaderOfAChangedValue(t *testing.T) {
	db := openDB(t, kv.Options{})
	must(t, db.Update(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		must(t, b.Put([]byte("k"), make([]byte, 100_000)))
		r, err := b.Reader([]byte("k"))
		must(t, err)
		p := make([]byte, 10)
		must(t, b.Put([]byte("other"), make([]byte, 50_000)))
		_, err = r.ReadAt(p, 50_000)
		must(t, err)
		must(t, b.Put([]byte("k"), make([]byte, 100_000)))
		_, err = r.ReadAt(p, 0)
		wantErr(t, err, kv.ErrValueChanged)
		r, err = b.Reader([]byte("k"))
		must(t, err)
		must(t, b.Delete([]byte("k")))
		_, err = r.ReadAt(p, 0)
		wantErr(t, err, kv.ErrValueChanged)
		r, err = b.Reader([]byte("k"))
		if r != nil || err != nil {
			t.Errorf("reader of nothing is %v, %v", r, err)
		}
		return nil
	}))
}

// A value that is deleted leaves its blocks to the next one: a reader of the old
// value must not go on in the new one, nor does one of another value notice.
func TestReaderOfAValueThatCameInItsPlace(t *testing.T) {
	db := openDB(t, kv.Options{})
	must(t, db.Update(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		other := bytes.Repeat([]byte("o"), 60_000)
		must(t, b.Put([]byte("other"), other))
		beside, err := b.Reader([]byte("other"))
		must(t, err)
		for _, size := range []int{5000, 20_000, 60_000} { // direct, direct, by index
			must(t, b.Put([]byte("k"), bytes.Repeat([]byte("1"), size)))
			first, err := b.Reader([]byte("k"))
			must(t, err)
			must(t, b.Delete([]byte("k")))
			must(t, b.Put([]byte("k"), bytes.Repeat([]byte("2"), size)))
			second, err := b.Reader([]byte("k"))
			must(t, err)
			_, err = first.Read(make([]byte, 10))
			wantErr(t, err, kv.ErrValueChanged)
			got, err := io.ReadAll(second)
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte("2"), size)) {
				t.Errorf("size %d: the new value reads as %d bytes, %v", size, len(got), err)
			}
		}
		got, err := io.ReadAll(beside)
		if err != nil || !bytes.Equal(got, other) {
			t.Errorf("the value beside reads as %d bytes, %v", len(got), err)
		}
		return nil
	}))
}

func TestAppend(t *testing.T) {
	db := openDB(t, kv.Options{})
	must(t, db.Update(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		long := bytes.Repeat([]byte("x"), 20_000)
		must(t, b.Put([]byte("short"), []byte("v")))
		must(t, b.Put([]byte("long"), long))
		for _, c := range []int{0, 3, 30_000} {
			dst := append(make([]byte, 0, c), "abc"...)
			v, found, err := b.Append(dst, []byte("short"))
			if string(v) != "abcv" || !found || err != nil {
				t.Errorf("short: %q, %v, %v", v, found, err)
			}
			v, found, err = b.Append(dst, []byte("long"))
			if string(v) != "abc"+string(long) || !found || err != nil {
				t.Errorf("long: %d bytes, %v, %v", len(v), found, err)
			}
			v, found, err = b.Append(dst, []byte("none"))
			if string(v) != "abc" || found || err != nil {
				t.Errorf("none: %q, %v, %v", v, found, err)
			}
		}
		return nil
	}))
}
