package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// model is what a bucket should hold: the deliberately dumb implementation.
type model struct {
	values   map[string][]byte
	buckets  map[string]*model
	sequence uint64
}

func newModel() *model {
	return &model{values: map[string][]byte{}, buckets: map[string]*model{}}
}

func (m *model) clone() *model {
	c := &model{values: maps.Clone(m.values), buckets: map[string]*model{}, sequence: m.sequence}
	for name, b := range m.buckets {
		c.buckets[name] = b.clone()
	}
	return c
}

// keys returns keys and bucket names in order.
func (m *model) keys() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for k := range m.values {
			if !yield(k) {
				return
			}
		}
		for k := range m.buckets {
			if !yield(k) {
				return
			}
		}
	})
}

// actor does random things to a transaction and its model at once.
type actor struct {
	t   *testing.T
	rnd *rand.Rand
	bs  int
	tx  *kv.Tx
	top *model
}

// place is a bucket and its model.
type modelPlace struct {
	b *kv.Bucket
	m *model
}

func (a *actor) value() []byte {
	var n int
	switch a.rnd.IntN(20) {
	case 0:
		n = 0
	case 1:
		n = a.rnd.IntN(a.bs * 3) // around the end of inline values
	case 2:
		n = a.rnd.IntN(a.bs * 12) // around the end of direct references
	case 3:
		n = a.bs/4 - 64 + a.rnd.IntN(3) - 1
	default:
		n = a.rnd.IntN(200)
	}
	v := make([]byte, n)
	for i := range v {
		v[i] = byte(a.rnd.Uint32())
	}
	return v
}

func (a *actor) key() []byte {
	switch a.rnd.IntN(12) {
	case 0: // long
		k := bytes.Repeat([]byte{byte(a.rnd.IntN(3))}, 1+a.rnd.IntN(a.bs/4-64))
		k[len(k)-1] = byte(a.rnd.IntN(3))
		return k
	case 1:
		return []byte{byte(a.rnd.Uint32())}
	case 2:
		return bytes.Repeat([]byte{0xff}, 1+a.rnd.IntN(4))
	case 3: // of few bytes, at both ends, so that many are the beginning of others
		k := make([]byte, 1+a.rnd.IntN(6))
		for i := range k {
			k[i] = "\x00\x01\xfe\xff"[a.rnd.IntN(4)]
		}
		return k
	default:
		return fmt.Appendf(nil, "key%05d", a.rnd.IntN(3000))
	}
}

// anyKey prefers keys that exist.
func (a *actor) anyKey(m *model) []byte {
	if ks := m.keys(); len(ks) > 0 && a.rnd.IntN(3) > 0 {
		return []byte(ks[a.rnd.IntN(len(ks))])
	}
	return a.key()
}

// place picks a bucket, at the top or nested.
func (a *actor) place() (p modelPlace, ok bool) {
	m := a.top
	for depth := 0; ; depth++ {
		names := slices.Sorted(maps.Keys(m.buckets))
		if len(names) == 0 || depth > 0 && a.rnd.IntN(2) == 0 {
			return p, depth > 0
		}
		name := names[a.rnd.IntN(len(names))]
		m = m.buckets[name]
		var err error
		if depth == 0 {
			p.b, err = a.tx.Bucket([]byte(name))
		} else {
			p.b, err = p.b.Bucket([]byte(name))
		}
		must(a.t, err)
		p.m = m
	}
}

func (a *actor) step() {
	if a.rnd.IntN(60) == 0 {
		a.topBuckets()
	}
	p, ok := a.place()
	if !ok {
		a.topBuckets()
		return
	}
	switch n := a.rnd.IntN(100); {
	case n < 40:
		a.put(p)
	case n < 62:
		a.remove(p)
	case n < 70:
		a.get(p)
	case n < 74:
		a.sequence(p)
	case n < 79:
		a.nested(p)
	case n < 80:
		a.rangeOf(p)
	case n < 96:
		a.walk(p)
	case n < 97:
		a.tower(p)
	case n < 98:
		a.bulk(p)
	default:
		a.sweep(p)
	}
}

func (a *actor) topBuckets() {
	name := fmt.Sprintf("top%d", a.rnd.IntN(4))
	_, exists := a.top.buckets[name]
	if exists && a.rnd.IntN(4) == 0 {
		must(a.t, a.tx.DeleteBucket([]byte(name)))
		delete(a.top.buckets, name)
		return
	}
	_, err := a.tx.CreateBucket([]byte(name))
	if exists {
		wantErr(a.t, err, kv.ErrBucketExists)
		return
	}
	must(a.t, err)
	a.top.buckets[name] = newModel()
}

func (a *actor) put(p modelPlace) {
	k, v := a.anyKey(p.m), a.value()
	err := p.b.Put(k, v)
	if p.m.buckets[string(k)] != nil {
		wantErr(a.t, err, kv.ErrIncompatibleValue)
		return
	}
	must(a.t, err)
	p.m.values[string(k)] = v
}

func (a *actor) remove(p modelPlace) {
	k := a.anyKey(p.m)
	err := p.b.Delete(k)
	if p.m.buckets[string(k)] != nil {
		wantErr(a.t, err, kv.ErrIncompatibleValue)
		return
	}
	must(a.t, err)
	delete(p.m.values, string(k))
}

func (a *actor) get(p modelPlace) {
	k := a.anyKey(p.m)
	v, err := p.b.Get(k)
	if p.m.buckets[string(k)] != nil {
		wantErr(a.t, err, kv.ErrIncompatibleValue)
		return
	}
	must(a.t, err)
	want, ok := p.m.values[string(k)]
	if (v != nil) != ok || !bytes.Equal(v, want) {
		a.t.Fatalf("Get(%q) is %d bytes, want %d (%v)", k, len(v), len(want), ok)
	}
}

func (a *actor) sequence(p modelPlace) {
	if a.rnd.IntN(2) == 0 {
		p.m.sequence = a.rnd.Uint64N(1 << 40)
		must(a.t, p.b.SetSequence(p.m.sequence))
	}
	v, err := p.b.NextSequence()
	must(a.t, err)
	p.m.sequence++
	if v != p.m.sequence {
		a.t.Fatalf("sequence is %d, want %d", v, p.m.sequence)
	}
}

func (a *actor) nested(p modelPlace) {
	k := a.anyKey(p.m)
	if a.rnd.IntN(3) == 0 {
		err := p.b.DeleteBucket(k)
		switch {
		case p.m.buckets[string(k)] != nil:
			must(a.t, err)
			delete(p.m.buckets, string(k))
		case p.m.values[string(k)] != nil:
			wantErr(a.t, err, kv.ErrIncompatibleValue)
		default:
			wantErr(a.t, err, kv.ErrBucketNotFound)
		}
		return
	}
	_, err := p.b.CreateBucketIfNotExists(k)
	if p.m.values[string(k)] != nil {
		wantErr(a.t, err, kv.ErrIncompatibleValue)
		return
	}
	must(a.t, err)
	if p.m.buckets[string(k)] == nil {
		p.m.buckets[string(k)] = newModel()
	}
}

// rangeOf compares iteration over a part in both directions, and Scan.
func (a *actor) rangeOf(p modelPlace) {
	from, to := a.key(), a.key()
	if a.rnd.IntN(4) == 0 {
		to = kv.PrefixEnd(from)
	}
	var want []string
	for _, k := range p.m.keys() {
		if k >= string(from) && (to == nil || k < string(to)) {
			want = append(want, k)
		}
	}
	var up, down, lent []string
	for e, err := range p.b.Range(from, to) {
		must(a.t, err)
		up = append(up, string(e.Key))
	}
	for e, err := range p.b.RangeBackward(from, to) {
		must(a.t, err)
		down = append(down, string(e.Key))
	}
	must(a.t, p.b.Scan(from, to, func(k, v []byte) error {
		lent = append(lent, string(k))
		return nil
	}))
	slices.Reverse(down)
	if !slices.Equal(up, want) || !slices.Equal(down, want) || !slices.Equal(lent, want) {
		a.t.Fatalf("[%q, %q): %d up, %d down, %d lent, want %d", from, to, len(up), len(down), len(lent), len(want))
	}
}

// walk moves a cursor at random while the bucket changes under it.
func (a *actor) walk(p modelPlace) {
	c := p.b.Cursor()
	m := newCursorModel(p.m)
	for range 1 + a.rnd.IntN(12) {
		var k, v []byte
		switch n := a.rnd.IntN(22); {
		case n == 0:
			k, v = c.First()
			m.first()
		case n == 1:
			k, v = c.Last()
			m.last()
		case n < 5:
			at := a.anyKey(p.m)
			k, v = c.Seek(at)
			m.seek(string(at))
		case n < 13:
			k, v = c.Next()
			m.next()
		case n < 18:
			k, v = c.Prev()
			m.prev()
		case n < 20:
			a.deleteAt(c, m)
			continue
		default:
			a.put(p)
			continue
		}
		must(a.t, c.Err())
		m.compare(a.t, k, v)
	}
}

func (a *actor) deleteAt(c *kv.Cursor, m *cursorModel) {
	err := c.Delete()
	switch {
	case !m.on:
		wantErr(a.t, err, kv.ErrCursorUnset)
	case m.m.buckets[m.key] != nil:
		wantErr(a.t, err, kv.ErrIncompatibleValue)
	default:
		must(a.t, err)
		delete(m.m.values, m.key)
	}
}

// bulk puts a run of ascending or descending keys.
func (a *actor) bulk(p modelPlace) {
	n := a.rnd.IntN(300)
	for i := range n {
		j := i
		if a.rnd.IntN(2) == 0 {
			j = n - i
		}
		k := fmt.Sprintf("run%d-%04d", n%5, j)
		if p.m.buckets[k] != nil {
			continue
		}
		v := make([]byte, 40)
		must(a.t, p.b.Put([]byte(k), v))
		p.m.values[k] = v
	}
}

// tower puts keys so long that a branch has few children and the tree many levels.
func (a *actor) tower(p modelPlace) {
	if a.bs > 8<<10 {
		return
	}
	for range a.rnd.IntN(300) {
		k := bytes.Repeat([]byte{'t'}, a.bs/4-64)
		k[len(k)-1], k[len(k)-2] = byte(a.rnd.Uint32()), byte(a.rnd.IntN(4))
		if p.m.buckets[string(k)] == nil {
			must(a.t, p.b.Put(k, nil))
			p.m.values[string(k)] = []byte{}
		}
	}
}

// sweep deletes a range of keys with a cursor.
func (a *actor) sweep(p modelPlace) {
	c := p.b.Cursor()
	n := a.rnd.IntN(400)
	for k, v := c.Seek(a.key()); k != nil && n > 0; k, v = c.Next() {
		n--
		if v == nil {
			continue
		}
		must(a.t, c.Delete())
		delete(p.m.values, string(k))
	}
	must(a.t, c.Err())
}

// compare proves that a bucket is what the model says, all of it.
func compare(t testing.TB, b *kv.Bucket, m *model, path string) {
	t.Helper()
	keys := m.keys()
	i := 0
	for e, err := range b.All() {
		must(t, err)
		if i >= len(keys) || keys[i] != string(e.Key) {
			t.Fatalf("%s: entry %d is %q, want another", path, i, e.Key)
		}
		i++
		if child := m.buckets[string(e.Key)]; child != nil {
			if !e.Bucket {
				t.Fatalf("%s: %q is no bucket", path, e.Key)
			}
			nested, err := b.Bucket(e.Key)
			must(t, err)
			compare(t, nested, child, path+"/"+string(e.Key))
		} else if e.Value == nil || !bytes.Equal(e.Value, m.values[string(e.Key)]) {
			t.Fatalf("%s: value of %q is not right", path, e.Key)
		}
	}
	if i != len(keys) {
		t.Fatalf("%s: %d entries, want %d", path, i, len(keys))
	}
	if s, err := b.Sequence(); err != nil || s != m.sequence {
		t.Fatalf("%s: sequence is %d (%v), want %d", path, s, err, m.sequence)
	}
}

func compareTx(t testing.TB, tx *kv.Tx, top *model) {
	t.Helper()
	var names []string
	for name, err := range tx.Buckets() {
		must(t, err)
		names = append(names, string(name))
	}
	if want := slices.Sorted(maps.Keys(top.buckets)); !slices.Equal(names, want) {
		t.Fatalf("top-level buckets are %q, want %q", names, want)
	}
	for _, name := range names {
		b, err := tx.Bucket([]byte(name))
		must(t, err)
		compare(t, b, top.buckets[name], name)
	}
}

var errRollback = errors.New("roll back")

// TestModel does random things in random transactions and compares the database
// with maps of maps; a part of the transactions is rolled back.
func TestModel(t *testing.T) {
	s := chance.Seed(t)
	for _, bs := range []int{4 << 10, 8 << 10, 16 << 10, 64 << 10} {
		t.Run(fmt.Sprintf("block=%d", bs), func(t *testing.T) {
			rounds := 40
			if testing.Short() || raceEnabled {
				rounds = 12
			}
			play(t, rand.New(rand.NewPCG(s, uint64(bs))), openDB(t, unsynced(bs)), bs, rounds)
		})
	}
}

// FuzzOperations is TestModel with chance that the fuzzer chooses.
func FuzzOperations(f *testing.F) {
	f.Add([]byte("spillway"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var key [32]byte
		copy(key[:], data)
		o := unsynced(4 << 10)
		o.Store.FS = simfs.New() // a disk would take most of the time
		play(t, rand.New(&fuzzSource{data: data, then: rand.NewChaCha8(key)}), openDB(t, o), 4<<10, 2)
	})
}

// fuzzSource takes its numbers from data while there are any.
type fuzzSource struct {
	data []byte
	then rand.Source
}

func (s *fuzzSource) Uint64() uint64 {
	if len(s.data) < 2 {
		return s.then.Uint64()
	}
	v := uint64(s.data[0]) | uint64(s.data[1])<<8
	s.data = s.data[2:]
	return v<<48 | v<<16 | v // IntN looks at the high or at the low bits
}

// unsynced is for what is not about durability.
func unsynced(bs int) kv.Options {
	o := blockSize(bs)
	o.Store.Durability = mvcc.DurableNever
	return o
}

// play runs rounds of transactions.
func play(t *testing.T, rnd *rand.Rand, db *kv.DB, bs, rounds int) {
	a := &actor{t: t, rnd: rnd, bs: bs}
	committed := newModel()
	for range rounds {
		a.top = committed.clone()
		undo := a.rnd.IntN(4) == 0
		err := db.Update(func(tx *kv.Tx) error {
			a.tx = tx
			for range a.rnd.IntN(200) {
				a.step()
			}
			compareTx(t, tx, a.top)
			checkTx(t, tx)
			if undo {
				return errRollback
			}
			return nil
		})
		if undo {
			wantErr(t, err, errRollback)
		} else {
			must(t, err)
			committed = a.top
		}
		must(t, db.View(func(tx *kv.Tx) error {
			compareTx(t, tx, committed)
			return nil
		}))
		if t.Failed() {
			t.FailNow()
		}
	}
}
