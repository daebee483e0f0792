package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

const testDir = "/log"

var (
	testDatabase = block.DatabaseID{0xdb, 1, 2, 3}
	testTimeline = block.TimelineID{0x71, 4, 5, 6}
)

func testOptions(fs *simfs.FS) Options {
	return Options{
		FS: fs, Dir: testDir, Database: testDatabase, Timeline: testTimeline,
		SegmentBytes: SegmentBytesMin, LimitBytes: 8 * SegmentBytesMin, foreground: true,
	}
}

func newTestFS(t testing.TB) *simfs.FS {
	t.Helper()
	fs := simfs.New()
	if err := fs.Mkdir(testDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := fs.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	return fs
}

// commit is what the model knows of one commit.
type commit struct {
	nonce uint64
	sizes []int // of its records' bodies
}

func (c commit) body(lsn block.LSN, i int) []byte {
	b := make([]byte, c.sizes[i])
	rng := rand.New(rand.NewPCG(uint64(lsn)<<8|uint64(i), c.nonce))
	for n := 0; n+8 <= len(b); n += 8 {
		binary.LittleEndian.PutUint64(b[n:], rng.Uint64())
	}
	return b
}

// rig drives a log and remembers what must be true of it. After the first error
// its methods do nothing.
type rig struct {
	t       testing.TB
	fs      *simfs.FS
	o       Options
	l       *Log
	err     error
	created bool
	nonce   uint64
	hook    func()
	declare bool // a checkpoint says what was acknowledged

	model    map[block.LSN]commit
	appended block.LSN // last commit that may be there
	acked    block.LSN // last commit that must be there
	redo     block.LSN
}

// duringSync has fn called, once, when the next sync of a file begins.
func (r *rig) duringSync(fn func()) { r.hook = fn }

func newRig(t testing.TB, fs *simfs.FS) *rig {
	r := &rig{t: t, fs: fs, o: testOptions(fs), model: map[block.LSN]commit{}, redo: 1}
	fs.Before(func(e simfs.Event) {
		if fn := r.hook; fn != nil && e.Op == simfs.OpSync {
			r.hook = nil
			fn()
		}
	})
	return r
}

func (r *rig) keep(err error) bool {
	if r.err == nil {
		r.err = err
	}
	return r.err == nil
}

func (r *rig) create() *rig {
	l, err := Create(r.o, 0)
	if r.keep(err) {
		r.l, r.created = l, true
	}
	return r
}

// append appends one commit of records of these sizes.
func (r *rig) append(sizes ...int) {
	if r.err != nil {
		return
	}
	total := 0
	for _, n := range sizes {
		total += n
	}
	err := r.l.Reserve(int64(total))
	if errors.Is(err, ErrFull) {
		r.sync()
		r.release(r.acked + 1)
		err = r.l.Reserve(int64(total))
	}
	if !r.keep(err) {
		return
	}
	r.nonce++
	lsn := r.appended + 1
	c := commit{r.nonce, sizes}
	r.model[lsn] = c
	r.appended = lsn
	for i := range sizes {
		if !r.keep(r.l.Append(lsn, c.body(lsn, i), i == len(sizes)-1)) {
			return
		}
	}
}

func (r *rig) sync() {
	if r.err != nil {
		return
	}
	upto := r.appended // more may come while it syncs
	if r.keep(r.l.Sync(upto)) {
		r.acked = max(r.acked, upto)
	}
}

func (r *rig) commit(sizes ...int) {
	r.append(sizes...)
	r.sync()
}

func (r *rig) release(below block.LSN) {
	if r.err == nil {
		r.redo = max(r.redo, below)
		r.keep(r.l.Release(below))
	}
}

func (r *rig) idle() {
	if r.err == nil {
		r.keep(r.l.MarkIdle())
	}
}

func (r *rig) close() {
	if r.err == nil && r.keep(r.l.Close()) {
		r.acked = r.appended
	}
}

// reopen closes in good order and opens again.
func (r *rig) reopen() {
	r.close()
	if r.err != nil {
		return
	}
	l, err := Open(r.o, Start{Redo: r.redo, Durable: r.acked})
	if r.keep(err) {
		r.l = l
		if !l.Clean() {
			r.t.Error("closed in good order, and not clean")
		}
	}
}

// after is a rig that goes on in fs with what r knows.
func (r *rig) after(fs *simfs.FS) *rig {
	n := *r
	n.fs, n.o, n.l, n.err, n.hook = fs, r.o, nil, nil, nil
	n.o.FS = fs
	n.model = maps.Clone(r.model)
	return &n
}

// recover opens the log after a crash and checks all that must hold. Where
// Create had not returned it creates.
func (r *rig) recover() {
	if !r.created {
		r.create()
		return
	}
	s := Start{Redo: r.redo}
	if r.declare {
		s.Durable = r.acked
	}
	l, err := Open(r.o, s)
	if !r.keep(err) {
		return
	}
	r.l = l
	if r.check(); r.err == nil {
		r.appended, r.acked = l.End(), l.End()
	}
}

// recovered fails the test if the log does not recover.
func (r *rig) recovered() {
	r.t.Helper()
	r.recover()
	r.must()
}

// check compares the log with the model: every acknowledged commit is there,
// nothing that was never appended, no hole, all bodies right.
func (r *rig) check() {
	r.t.Helper()
	end := r.l.End()
	if end < r.acked || end > r.appended {
		r.t.Fatalf("log ends at %v; %v was acknowledged, %v appended", end, r.acked, r.appended)
	}
	if v := r.l.Durable(); v > end || v < r.acked {
		r.t.Fatalf("durable horizon is %v, end %v, acknowledged %v", v, end, r.acked)
	}
	r.checkRead(r.redo, r.l.Durable())
}

func (r *rig) checkRead(from, to block.LSN) {
	r.t.Helper()
	next, i := from, 0
	err := r.l.Read(from, func(lsn block.LSN, body []byte, last bool) error {
		c, ok := r.model[lsn]
		if lsn != next || !ok || i >= len(c.sizes) || last != (i == len(c.sizes)-1) {
			return fmt.Errorf("record %d of LSN %v (last=%v) where LSN %v is due", i, lsn, last, next)
		}
		if !bytes.Equal(body, c.body(lsn, i)) {
			return fmt.Errorf("record %d of LSN %v has another body", i, lsn)
		}
		i++
		if last {
			next, i = next+1, 0
		}
		return nil
	})
	if err == nil && (next != to+1 || i != 0) {
		err = fmt.Errorf("reading ended before record %d of LSN %v, durable is %v", i, next, to)
	}
	if err != nil && !r.fs.IsCut() {
		r.t.Fatal(err)
	}
	r.keep(err)
}

// damage flips one bit of the byte at off of a slot's file.
func (r *rig) damage(slot int, off int64) {
	r.t.Helper()
	if err := r.fs.FlipBits(testDir+"/"+slotName(slot), off, 0x10); err != nil {
		r.t.Fatal(err)
	}
}

// must fails the test on the rig's first error.
func (r *rig) must() *rig {
	r.t.Helper()
	if r.err != nil {
		r.t.Fatal(r.err)
	}
	return r
}

// crash returns a rig on what a power cut leaves.
func (r *rig) crash(mode simfs.Mode) *rig {
	return r.after(r.fs.Crash(rand.New(rand.NewPCG(1, 2)), mode))
}
