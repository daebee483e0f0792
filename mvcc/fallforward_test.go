package mvcc

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// forwardPull is a backup being taken that may fall forward.
type forwardPull struct {
	b      *Backup
	images map[block.ID][]byte
	now    map[block.ID]bool // handed out in this phase
	fell   *FellForwardError
	redo   []LogRecord
	newest block.LSN // of what was handed out behind F
	done   bool
}

func openForward(t testing.TB, s *Store, o BackupOptions) *forwardPull {
	t.Helper()
	b, err := s.OpenBackup(context.Background(), o)
	ok(t, err)
	return &forwardPull{b: b, images: map[block.ID][]byte{}, now: map[block.ID]bool{}}
}

// pull takes at most n blocks, and the redo that there is.
func (p *forwardPull) pull(t testing.TB, n int) error {
	t.Helper()
	size := p.b.info.BlockSize
	buf, ids := make([]byte, n*size), make([]block.ID, n)
	got, err := p.b.Next(context.Background(), buf, ids)
	var fell *FellForwardError
	switch {
	case errors.As(err, &fell):
		if p.fell != nil {
			t.Fatal("it says twice that it fell forward")
		}
		p.fell, p.now = fell, map[block.ID]bool{}
		return nil
	case errors.Is(err, io.EOF):
		p.done = true
		if end, v := p.b.Final().LSN, p.b.s.log.Durable(); p.fell != nil && (end > v || end < p.newest || end < p.fell.LSN) {
			t.Fatalf("F = %v, E = %v with %v durable, and a block of LSN %v", p.fell.LSN, end, v, p.newest)
		}
	case err != nil:
		return err
	}
	for i, id := range ids[:got] {
		if p.now[id] {
			t.Fatalf("backup of LSN %v hands out block %v twice", p.b.info.LSN, id)
		}
		p.now[id] = true
		if p.fell != nil {
			p.wantDurable(t, id, buf[i*size:(i+1)*size])
		}
		p.images[id] = slices.Clone(buf[i*size : (i+1)*size])
	}
	if p.fell != nil {
		return p.pullRedo(1 << 12)
	}
	return nil
}

// wantDurable proves that a block that was handed out is durable (R6).
func (p *forwardPull) wantDurable(t testing.TB, id block.ID, image []byte) {
	t.Helper()
	tr, reason := block.Verify(image, id, p.b.s.data.seed)
	if v := p.b.s.log.Durable(); reason != "" || tr.LSN > v {
		t.Fatalf("block %v of LSN %v was handed out with %v durable: %s", id, tr.LSN, v, reason)
	}
	p.newest = max(p.newest, tr.LSN)
}

func (p *forwardPull) pullRedo(bytesMax int64) error {
	_, err := p.b.Redo(bytesMax, func(r LogRecord) error {
		r.Body = slices.Clone(r.Body)
		p.redo = append(p.redo, r)
		return nil
	})
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// rest takes all that is left.
func (p *forwardPull) rest(t testing.TB) error {
	for !p.done {
		if err := p.pull(t, 16); err != nil {
			return err
		}
	}
	for p.fell != nil {
		if n := len(p.redo); n > 0 && p.redo[n-1].LSN == p.b.Final().LSN && p.redo[n-1].Last || p.b.Final().LSN == p.fell.LSN {
			break
		}
		if err := p.pullRedo(1 << 20); err != nil {
			return err
		}
	}
	return nil
}

// inUse tells which blocks a state of the model consists of.
func (im image) inUse(g geometry) func(block.ID) bool {
	return func(id block.ID) bool {
		_, there := im.blocks[id]
		return there || g.isReserved(id) && g.isVersioned(id)
	}
}

// build makes a database of what was taken, laid over base, and compares it with the
// model at E.
func (p *forwardPull) build(t testing.TB, m *model, base map[block.ID][]byte) error {
	t.Helper()
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	ok(t, fsys.SyncDir("/"))
	end := p.b.Final()
	if p.fell != nil && (p.fell.LSN < p.b.info.LSN || end.LSN < p.fell.LSN) {
		t.Fatalf("S = %v, F = %v, E = %v", p.b.info.LSN, p.fell.LSN, end.LSN)
	}
	bl, err := NewBuilder(testDir, end, BuildOptions{FS: fsys})
	ok(t, err)
	redo := NewRedo(end.BlockSize, end.LSN, end.LSN)
	if p.fell != nil {
		redo = NewRedo(end.BlockSize, p.fell.LSN, end.LSN)
		for _, r := range p.redo {
			ok(t, redo.Survey(r))
		}
		ok(t, redo.Surveyed())
		bl.Follow(redo)
	}
	inUse := m.at[end.LSN].inUse(bl.geo)
	images := maps2(base, p.images)
	for id, im := range images {
		if id < end.HighWater && inUse(id) {
			ok(t, bl.Write(id, im))
		}
	}
	for _, r := range p.redo {
		if err := bl.Redo(redo, r, inUse); err != nil {
			return err
		}
	}
	if err := bl.Finish(); err != nil {
		return err
	}
	o := smallOptions(fsys.Crash(nil, simfs.DropAll))
	s := mustOpen(t, o)
	if got := s.newestLSN(); got != end.LSN {
		t.Fatalf("restored at LSN %v, want %v", got, end.LSN)
	}
	checkAll(t, s, m)
	res, err := s.Check(context.Background(), nil)
	ok(t, err)
	if len(res.Problems) > 0 {
		t.Fatalf("restored store is damaged: %v", res.Problems)
	}
	ok(t, s.Close())
	return nil
}

func maps2(a, b map[block.ID][]byte) map[block.ID][]byte {
	out := map[block.ID][]byte{}
	for id, im := range a {
		out[id] = im
	}
	for id, im := range b {
		out[id] = im
	}
	return out
}

// randomCommit changes some blocks; now and then most are freed, so that the file
// shrinks.
func randomCommit(t testing.TB, s *Store, m *model, rng *rand.Rand) {
	t.Helper()
	w, err := begin(t, s, m, rng)
	ok(t, err)
	target := 120
	if rng.IntN(6) == 0 {
		target = 10
	}
	ok(t, w.some(1+rng.IntN(40), target))
	if target == 10 {
		for _, id := range slices.Backward(slices.Clone(w.held)) {
			if len(w.held) > target {
				ok(t, w.free(id))
			}
		}
	}
	_, err = w.commit(m)
	ok(t, err)
}

// forwardCase is one random history with a backup that falls forward at some moment.
func forwardCase(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 12))
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	o := smallOptions(fsys)
	o.Durability = Durability(rng.IntN(3))
	s := mustOpen(t, o)
	m := newModel()
	m.spread = rng.IntN(2) == 0
	for range 3 + rng.IntN(10) {
		randomCommit(t, s, m, rng)
	}
	var base map[block.ID][]byte
	bo := BackupOptions{}
	if rng.IntN(2) == 0 {
		b := openForward(t, s, bo)
		ok(t, b.rest(t))
		ok(t, b.b.Close())
		base, bo.Base, bo.AuditBlocks = b.images, b.b.info.LSN, rng.IntN(4)
		for range rng.IntN(6) {
			randomCommit(t, s, m, rng)
		}
	}
	p := openForward(t, s, bo)
	at := rng.IntN(12)
	for i := 0; i < 24; i++ {
		if rng.IntN(3) > 0 {
			randomCommit(t, s, m, rng)
		}
		if rng.IntN(3) == 0 {
			settle(t, s)
		}
		if i >= at && p.fell == nil {
			s.snapshots.BreakVictim() // if it holds nothing, the next time
		}
		if rng.IntN(3) == 0 && !p.done {
			ok(t, p.pull(t, 1+rng.IntN(20)))
		}
	}
	if err := p.rest(t); err != nil {
		t.Fatal(err)
	}
	if err := p.build(t, m, base); err != nil {
		t.Fatalf("seed %d, S = %v, fell %v, E = %v: %v", seed, p.b.info.LSN, p.fell, p.b.Final().LSN, err)
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR12_FallForwardIsExactAtE falls forward at random moments of random histories,
// in which blocks are made and freed and the file grows and shrinks, and compares
// what comes out with the model at E.
func TestR12_FallForwardIsExactAtE(t *testing.T) {
	seed := chance.Seed(t)
	for i := range uint64(16 * *flagLong) {
		forwardCase(t, seed+i)
	}
}

// TestR12_FallsForwardForWantOfRoom fills RAM and temporary storage for real.
func TestR12_FallsForwardForWantOfRoom(t *testing.T) {
	rng := rand.New(rand.NewPCG(chance.Seed(t), 1))
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	o := smallOptions(fsys)
	o.Temp, o.OverflowMax = []TempDir{}, -1
	events := make(chan Event, 1000)
	o.OnEvent = func(e Event) { events <- e }
	s := mustOpen(t, o)
	m := newModel()
	n := 3 * int(blockcache.RAMBytesMin(4096)) / 4096
	for len(m.at[m.newest()].blocks) < n {
		w, err := begin(t, s, m, rng)
		ok(t, err)
		for range 64 {
			ok(t, w.alloc())
		}
		_, err = w.commit(m)
		ok(t, err)
	}
	settle(t, s)
	abort := openForward(t, s, BackupOptions{OnExhaustion: ExhaustionAbort})
	wantNext(t, s, false, RungBreak)
	ok(t, abort.b.Close())
	p := openForward(t, s, BackupOptions{Owner: "me"})
	wantNext(t, s, false, RungFallForward)
	ok(t, p.pull(t, 32))
	for ids := range slices.Chunk(m.at[m.newest()].ids(), 8) {
		w, err := begin(t, s, m, rng)
		ok(t, err)
		for _, id := range ids {
			ok(t, w.edit(id))
		}
		_, err = w.commit(m)
		ok(t, err)
	}
	settle(t, s)
	ok(t, p.rest(t))
	if p.fell == nil {
		t.Fatal("it did not fall forward")
	}
	wantNext(t, s, true, "")
	ok(t, p.build(t, m, nil))
	ok(t, p.b.Close())
	mustClose(t, s)
	close(events)
	told := 0
	for e := range events {
		if e.Kind == EventFellForward && e.Of.Owner == "me" && e.Forward == p.fell.LSN && e.Bytes > 0 {
			told++
		}
	}
	if told != 1 {
		t.Fatalf("%d events tell that it fell forward", told)
	}
}

// TestR12_AbortBreaks has the backup broken where that was asked for.
func TestR12_AbortBreaks(t *testing.T) {
	rng := rand.New(rand.NewPCG(chance.Seed(t), 1))
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	s := mustOpen(t, smallOptions(fsys))
	m := newModel()
	randomCommit(t, s, m, rng)
	if _, err := s.OpenBackup(context.Background(), BackupOptions{OnExhaustion: "no"}); !errors.Is(err, ErrOptions) {
		t.Fatalf("no such thing to do: %v", err)
	}
	p := openForward(t, s, BackupOptions{OnExhaustion: ExhaustionAbort})
	for range 4 {
		randomCommit(t, s, m, rng)
	}
	if !s.snapshots.BreakVictim() {
		t.Fatal("nothing to break")
	}
	var broken *snapshot.BrokenError
	if err := p.rest(t); !errors.As(err, &broken) || broken.Reason != snapshot.ReasonExhausted {
		t.Fatalf("aborted, and: %v", err)
	}
	ok(t, p.b.Close())
	mustClose(t, s)
}

// TestR12_WritersWhileFallingForward lets a writer go on at full speed while a backup
// falls forward for want of room, in every mode.
func TestR12_WritersWhileFallingForward(t *testing.T) {
	seed := chance.Seed(t)
	for mode := range Durability(3) {
		rng := rand.New(rand.NewPCG(seed, uint64(mode)))
		fsys := simfs.New()
		ok(t, fsys.Mkdir(testDir, 0o700))
		o := smallOptions(fsys)
		o.Temp, o.OverflowMax, o.Durability = []TempDir{}, -1, mode
		s := mustOpen(t, o)
		m := newModel()
		for len(m.at[m.newest()].blocks) < 900 {
			w, err := begin(t, s, m, rng)
			ok(t, err)
			for range 64 {
				ok(t, w.alloc())
			}
			_, err = w.commit(m)
			ok(t, err)
		}
		p := openForward(t, s, BackupOptions{FullSpeed: true})
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for n := 0; ; n++ {
				select {
				case <-stop:
					if n > 60 {
						return
					}
				default:
				}
				w, err := begin(t, s, m, rng)
				if err != nil {
					return
				}
				if w.some(20, 900) != nil {
					return
				}
				if _, err := w.commit(m); err != nil {
					return
				}
			}
		}()
		for range 3 {
			ok(t, p.pull(t, 8))
		}
		for !p.b.live.FellForward() && !s.snapshots.BreakVictim() { // until the writer has made an original, or too many
			runtime.Gosched()
		}
		for !p.done {
			ok(t, p.pull(t, 8))
		}
		ok(t, p.rest(t))
		close(stop)
		<-stopped
		if p.fell == nil {
			t.Fatal("it did not fall forward")
		}
		ok(t, p.build(t, m, nil))
		ok(t, p.b.Close())
		mustClose(t, s)
	}
}

// wantNext wants what the status tells of the only backup.
func wantNext(t *testing.T, s *Store, fell bool, next Rung) {
	t.Helper()
	if list := s.Status().Backups; len(list) != 1 || list[0].FellForward != fell || list[0].Next != next {
		t.Errorf("%+v, want %v, %q", list, fell, next)
	}
}
