package kv_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// named is what stands behind a name: a bucket with a mark of its own, or a
// value. There are few names, so that each comes back often, and more paths of
// them than are remembered.
type named struct {
	mark string
	kids map[string]*named // nil: a value
}

var fewNames = []string{"a", "b", "c", "d"}

const (
	markKey  = "mark"
	depthMax = 3
)

func (n *named) clone() *named {
	c := &named{mark: n.mark}
	if n.kids != nil {
		c.kids = map[string]*named{}
		for name, kid := range n.kids {
			c.kids[name] = kid.clone()
		}
	}
	return c
}

// holder is a transaction or a bucket: what has names.
type holder interface {
	Bucket(name []byte) (*kv.Bucket, error)
	CreateBucket(name []byte) (*kv.Bucket, error)
	DeleteBucket(name []byte) error
}

// find looks every path up, in random order, and compares.
func (n *named) find(h holder, rng *rand.Rand, depth int) error {
	for _, i := range rng.Perm(len(fewNames)) {
		name := fewNames[i]
		want := n.kids[name]
		b, err := h.Bucket([]byte(name))
		switch {
		case want == nil && errors.Is(err, kv.ErrBucketNotFound):
			continue
		case want != nil && want.kids == nil && errors.Is(err, kv.ErrIncompatibleValue):
			continue
		case want == nil || want.kids == nil || err != nil:
			return fmt.Errorf("%q: found %v (%v), the model has %+v", name, b != nil, err, want)
		}
		mark, err := b.Get([]byte(markKey))
		if err != nil || string(mark) != want.mark {
			return fmt.Errorf("%q: mark is %q, %v, want %q", name, mark, err, want.mark)
		}
		if depth < depthMax {
			if err := want.find(b, rng, depth+1); err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
		}
	}
	return nil
}

// namer changes names in a transaction and its model at once.
type namer struct {
	rng   *rand.Rand
	marks int
}

// change does one random thing at a random place.
func (a *namer) change(tx *kv.Tx, top *named) error {
	var h holder = tx
	n, depth := top, 1
	var b *kv.Bucket // h, unless that is tx
	for depth < depthMax && a.rng.IntN(3) > 0 {
		name := fewNames[a.rng.IntN(len(fewNames))]
		kid := n.kids[name]
		if kid == nil || kid.kids == nil {
			break
		}
		var err error
		if b, err = h.Bucket([]byte(name)); err != nil {
			return err
		}
		h, n, depth = b, kid, depth+1
	}
	name := fewNames[a.rng.IntN(len(fewNames))]
	switch kid := n.kids[name]; {
	case kid == nil && b != nil && a.rng.IntN(3) == 0:
		n.kids[name] = &named{}
		return b.Put([]byte(name), []byte("value"))
	case kid == nil:
		return a.create(h, n, name)
	case kid.kids == nil && a.rng.IntN(2) == 0:
		delete(n.kids, name)
		return b.Delete([]byte(name))
	case kid.kids == nil:
		return wanted(h, name, kv.ErrIncompatibleValue)
	default:
		return a.changeBucket(h, n, name)
	}
}

func (a *namer) create(h holder, n *named, name string) error {
	b, err := h.CreateBucket([]byte(name))
	if err != nil {
		return err
	}
	n.kids[name] = &named{kids: map[string]*named{}}
	return a.mark(b, n.kids[name])
}

// mark gives a bucket a value that no other one has ever had.
func (a *namer) mark(b *kv.Bucket, n *named) error {
	a.marks++
	n.mark = fmt.Sprint(a.marks)
	return b.Put([]byte(markKey), []byte(n.mark))
}

func (a *namer) changeBucket(h holder, n *named, name string) error {
	switch a.rng.IntN(8) {
	case 0:
		return wanted(h, name, kv.ErrBucketExists)
	case 1, 2:
		b, err := h.Bucket([]byte(name))
		if err != nil {
			return err
		}
		return a.mark(b, n.kids[name])
	}
	if err := h.DeleteBucket([]byte(name)); err != nil {
		return err
	}
	delete(n.kids, name)
	if a.rng.IntN(2) == 0 {
		return a.create(h, n, name)
	}
	return nil
}

// wanted tries to create a bucket that cannot be created.
func wanted(h holder, name string, want error) error {
	if _, err := h.CreateBucket([]byte(name)); !errors.Is(err, want) {
		return fmt.Errorf("create %q: %v, want %v", name, err, want)
	}
	return nil
}

// namesDB is a database whose file system costs no time.
func namesDB(t *testing.T, d mvcc.Durability) *kv.DB {
	db, err := kv.Open("/db", kv.Options{Store: mvcc.Options{FS: simfs.New(), MaxRAM: 16 << 20, Durability: d, CloseWait: -1}})
	must(t, err)
	t.Cleanup(func() {
		if !t.Failed() {
			mustCheck(t, db)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// snapshotOf is a read transaction and what it must find.
type snapshotOf struct {
	tx  *kv.Tx
	top *named
}

// TestModel_L1_NamesOfBuckets: what a name stands for is remembered across
// transactions; after every step each open one finds what was there at its
// commit, and the same if it looks again.
func TestModel_L1_NamesOfBuckets(t *testing.T) {
	for _, d := range []mvcc.Durability{mvcc.DurableCommit, mvcc.DurableNever} {
		s := chance.Seed(t)
		p := &namesPlay{t: t, db: namesDB(t, d), top: &named{kids: map[string]*named{}}}
		p.rng = rand.New(rand.NewPCG(s, uint64(d)))
		p.namer = namer{rng: p.rng}
		steps := 700
		if raceEnabled {
			steps = 150
		}
		for range steps {
			p.step()
		}
		for _, r := range p.open {
			must(t, r.tx.Rollback())
		}
	}
}

type namesPlay struct {
	t     *testing.T
	db    *kv.DB
	rng   *rand.Rand
	namer namer
	top   *named // of the newest commit
	open  []snapshotOf
}

func (p *namesPlay) step() {
	p.write()
	switch n := len(p.open); {
	case n < 8 && p.rng.IntN(3) > 0:
		tx, err := p.db.Begin(false)
		must(p.t, err)
		p.open = append(p.open, snapshotOf{tx, p.top})
	case n > 0 && p.rng.IntN(3) == 0:
		i := p.rng.IntN(n)
		must(p.t, p.open[i].tx.Rollback())
		p.open = slices.Delete(p.open, i, i+1)
	}
	for _, i := range p.rng.Perm(len(p.open)) {
		r := p.open[i]
		if err := r.top.find(r.tx, p.rng, 1); err != nil {
			p.t.Fatalf("snapshot of commit %v, newest %v: %v", r.tx.LSN(), p.db.Store().Status().NewestLSN, err)
		}
	}
}

// write is a write transaction, committed or not.
func (p *namesPlay) write() {
	tx, err := p.db.Begin(true)
	must(p.t, err)
	defer tx.Rollback() // of no use but after a failure
	next := p.top.clone()
	for range p.rng.IntN(4) {
		must(p.t, p.namer.change(tx, next))
		if p.rng.IntN(4) == 0 {
			must(p.t, next.find(tx, p.rng, 1))
		}
	}
	if p.rng.IntN(3) == 0 {
		must(p.t, tx.Rollback())
		return
	}
	must(p.t, tx.Commit())
	p.top = next
}

// TestL1_NamesOfCommitsFromBelow: what a name stands for may also be changed by a
// commit that this front door has not made.
func TestL1_NamesOfCommitsFromBelow(t *testing.T) {
	db := namesDB(t, mvcc.DurableCommit)
	other := kv.Beside(db)
	name := []byte("b")
	for round := range 20 {
		mark := fmt.Appendf(nil, "%d", round)
		must(t, other.Update(func(tx *kv.Tx) error {
			if round > 0 {
				must(t, tx.DeleteBucket(name))
			}
			b, err := tx.CreateBucket(name)
			must(t, err)
			return b.Put([]byte(markKey), mark)
		}))
		for range 2 {
			must(t, db.View(func(tx *kv.Tx) error {
				v, err := bucket(t, tx, "b").Get([]byte(markKey))
				if string(v) != string(mark) {
					t.Errorf("round %d: the bucket has mark %q", round, v)
				}
				return err
			}))
		}
	}
}

// namesRace is a writer and readers of one database.
type namesRace struct {
	db      *kv.DB
	history sync.Map     // block.LSN to *named
	rounds  atomic.Int64 // of all readers
	done    atomic.Bool
}

// TestConcurrent_L1_NamesOfBuckets: three readers, each with snapshots of several
// ages, look names up while the writer changes what they stand for. It lets them
// look at each commit, so that the next one changes names that are known.
func TestConcurrent_L1_NamesOfBuckets(t *testing.T) {
	commits := 3000
	if raceEnabled {
		commits = 600
	}
	s := chance.Seed(t)
	r := &namesRace{db: namesDB(t, mvcc.DurableCommit)}
	r.history.Store(block.LSN(0), &named{kids: map[string]*named{}})
	var readers sync.WaitGroup
	for i := range uint64(3) {
		readers.Go(func() {
			if err := r.read(rand.New(rand.NewPCG(s, i))); err != nil {
				t.Error(err)
				r.done.Store(true)
			}
		})
	}
	a := namer{rng: rand.New(rand.NewPCG(s, 3))}
	for range commits {
		if err := r.db.Update(func(tx *kv.Tx) error { return r.write(tx, &a) }); err != nil {
			t.Error(err)
			break
		}
		for want := r.rounds.Load() + 3; r.rounds.Load() < want && !r.done.Load(); {
			runtime.Gosched()
		}
	}
	r.done.Store(true)
	readers.Wait()
}

// write changes a name or two, and says before the commit what it leaves.
func (r *namesRace) write(tx *kv.Tx, a *namer) error {
	top, _ := r.history.Load(tx.LSN())
	next := top.(*named).clone()
	for range 1 + a.rng.IntN(2) {
		if err := a.change(tx, next); err != nil {
			return err
		}
	}
	r.history.Store(tx.LSN()+1, next)
	return nil
}

// read opens one snapshot after the other, looks through each and through one
// of the older ones, of which it keeps a few.
func (r *namesRace) read(rng *rand.Rand) (err error) {
	var open []*kv.Tx
	defer func() {
		for _, tx := range open {
			err = errors.Join(err, tx.Rollback())
		}
	}()
	for !r.done.Load() {
		tx, err := r.db.Begin(false)
		if err != nil {
			return err
		}
		open = append(open, tx)
		i := rng.IntN(len(open))
		for _, tx := range []*kv.Tx{tx, open[i]} {
			top, _ := r.history.Load(tx.LSN())
			if err := top.(*named).find(tx, rng, 1); err != nil {
				return fmt.Errorf("snapshot of commit %v: %w", tx.LSN(), err)
			}
		}
		r.rounds.Add(1)
		runtime.Gosched() // on one core the writer would wait for a time slice
		if len(open) > 3 {
			if err := open[i].Rollback(); err != nil {
				return err
			}
			open = slices.Delete(open, i, i+1)
		}
	}
	return nil
}
