package mvcc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc64"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/snapshot"
)

var flagLong = flag.Int("long", 1, "how many times longer the random tests run")

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content is what the model knows of a block.
type content struct {
	typ  block.Type
	hash uint64
}

var crcTable = crc64.MakeTable(crc64.ECMA)

func contentOf(b Block) content { return content{b.Type(), crc64.Checksum(b.Payload(), crcTable)} }

// image is the store as the model has it at one LSN.
type image struct {
	blocks map[block.ID]content
	root   Root
}

func (im image) clone() image { return image{maps.Clone(im.blocks), im.root} }

func (im image) ids() []block.ID { return slices.Sorted(maps.Keys(im.blocks)) }

// model is what every commit left, by LSN.
type model struct {
	at     []image
	acked  block.LSN
	spread bool // blocks are allocated all over several groups
}

func newModel() *model { return &model{at: []image{{blocks: map[block.ID]content{}}}} }

func (m *model) newest() block.LSN { return block.LSN(len(m.at) - 1) }

// cutTo forgets commits that were lost, legally, with the power.
func (m *model) cutTo(lsn block.LSN) { m.at = m.at[:lsn+1] }

const testDir = "/db"

func smallOptions(fsys vfs.FS) Options {
	return Options{
		FS: fsys, MaxRAM: blockcache.RAMBytesMin(4096), LogBytesMax: 8 * LogBytesMin,
		Temp: []TempDir{{Path: testDir, BytesMax: 64 << 20}}, CloseWait: -1,
	}
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(testDir, o)
	ok(t, err)
	return s
}

// writeOp is a write transaction that keeps the model's next image.
type writeOp struct {
	t      testing.TB
	rng    *rand.Rand
	tx     *WriteTx
	next   image
	held   []block.ID // in a fixed order
	spread bool
}

func begin(t testing.TB, s *Store, m *model, rng *rand.Rand) (*writeOp, error) {
	tx, err := s.BeginWrite()
	if err != nil {
		return nil, err
	}
	base := m.at[tx.Base()]
	return &writeOp{t: t, rng: rng, tx: tx, next: base.clone(), held: base.ids(), spread: m.spread}, nil
}

// groupsSpread is how many groups a spread store has at most.
const groupsSpread = 3

// lead has the next block allocated somewhere in the groups that there are, or in
// a new one.
func (w *writeOp) lead() {
	s := w.tx.s
	groups := s.geo.groups(w.tx.meta.highWater)
	s.firstGroup = w.rng.Uint64N(min(groups+1, groupsSpread))
	if s.firstGroup < groups {
		s.hints[s.firstGroup] = reserved + w.rng.Uint64N(s.geo.group-reserved-100)
	}
}

// alloc takes a block and fills it.
func (w *writeOp) alloc() error {
	if w.spread && w.rng.IntN(2) == 0 {
		w.lead()
	}
	typ := block.Type(4 + w.rng.IntN(5))
	b, err := w.tx.Alloc(typ)
	if err != nil {
		return err
	}
	defer b.Release()
	if _, used := w.next.blocks[b.ID()]; used {
		w.t.Fatalf("block %v is handed out, and is in use", b.ID())
	}
	if len(bytes.Trim(b.Payload(), "\x00")) != 0 {
		w.t.Fatalf("block %v is new and not zeros", b.ID())
	}
	w.scribble(b.Payload())
	w.note(b)
	return nil
}

func (w *writeOp) note(b Block) {
	if _, had := w.next.blocks[b.ID()]; !had {
		w.held = append(w.held, b.ID())
	}
	w.next.blocks[b.ID()] = contentOf(b)
}

// scribble changes a payload a little, half, or wholly, or moves a part of it.
func (w *writeOp) scribble(p []byte) {
	if w.rng.IntN(4) == 0 {
		w.shift(p)
	}
	n := [...]int{1, 9, 300, len(p) / 2, len(p)}[w.rng.IntN(5)]
	at := w.rng.IntN(len(p) - n + 1)
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], w.rng.Uint64()|1)
	for i := range n {
		p[at+i] = word[i%8] + byte(i/8)
	}
	if n == 1 {
		p[at] ^= 0x55
	}
}

// shift does to a part of a payload what putting something into an array does, or
// taking it out.
func (w *writeOp) shift(p []byte) {
	n := 8 * w.rng.IntN(40)
	from, to := 4*w.rng.IntN(500), 4*w.rng.IntN(500)
	if w.rng.IntN(2) == 0 {
		to = max(0, from+8*(w.rng.IntN(9)-4))
	}
	copy(p[to:to+n], p[from:from+n])
}

func (w *writeOp) pick() (block.ID, bool) {
	if len(w.held) == 0 {
		return 0, false
	}
	return w.held[w.rng.IntN(len(w.held))], true
}

func (w *writeOp) edit(id block.ID) error {
	b, err := w.tx.Edit(id)
	if err != nil {
		return err
	}
	defer b.Release()
	if got, want := contentOf(b), w.next.blocks[id]; got != want {
		w.t.Fatalf("transaction on %v edits block %v and finds %v, want %v", w.tx.Base(), id, got, want)
	}
	w.scribble(b.Payload())
	w.note(b)
	return nil
}

func (w *writeOp) free(id block.ID) error {
	if err := w.tx.Free(id); err != nil {
		return err
	}
	delete(w.next.blocks, id)
	w.held = slices.DeleteFunc(w.held, func(h block.ID) bool { return h == id })
	return nil
}

func (w *writeOp) setRoot() {
	binary.LittleEndian.PutUint64(w.next.root[8:], w.rng.Uint64())
	w.tx.SetRoot(w.next.root)
}

// some does n random changes. growth over 100 allocates more than it frees.
func (w *writeOp) some(n, target int) error {
	for range n {
		id, any := w.pick()
		var err error
		switch roll := w.rng.IntN(100); {
		case !any || roll < 30 && len(w.held) < target:
			err = w.alloc()
		case roll < 35 && len(w.held) >= target, roll >= 85:
			err = w.free(id)
		case roll == 35:
			w.setRoot()
		default:
			err = w.edit(id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// commit tells the model before the store, so that a commit whose outcome is
// unknown is known to the model.
func (w *writeOp) commit(m *model) (block.LSN, error) {
	base := w.tx.Base()
	changed := !w.tx.unchanged()
	if changed {
		m.at = append(m.at[:base+1:base+1], w.next)
	}
	lsn, err := w.tx.Commit()
	if err != nil {
		return 0, err
	}
	if want := base + map[bool]block.LSN{true: 1}[changed]; lsn != want {
		w.t.Fatalf("commit on %v has LSN %v, want %v", base, lsn, want)
	}
	m.acked = max(m.acked, lsn)
	return lsn, nil
}

// checkBlock reads one block of a snapshot and compares. A broken snapshot is
// the only excuse (L1, L10).
func checkBlock(t testing.TB, read func(block.ID) (Block, error), im image, lsn block.LSN, id block.ID) error {
	t.Helper()
	b, err := read(id)
	if err != nil {
		if errors.Is(err, snapshot.ErrBroken) {
			var broken *snapshot.BrokenError
			if !errors.As(err, &broken) || broken.Reason == "" || broken.LSN != lsn {
				t.Fatalf("broken, but does not say how: %v", err)
			}
			return err
		}
		t.Fatalf("block %v at LSN %v: %v", id, lsn, err)
	}
	defer b.Release()
	if got, want := contentOf(b), im.blocks[id]; got != want || b.ID() != id {
		t.Fatalf("block %v at LSN %v is %v, want %v", id, lsn, got, want)
	}
	return nil
}

// checkAll compares everything a snapshot at lsn sees: blocks, bitmaps, counts.
func checkAll(t testing.TB, s *Store, m *model) {
	t.Helper()
	r, err := s.BeginRead()
	ok(t, err)
	defer r.Close()
	checkRead(t, r, m)
}

func checkRead(t testing.TB, r *ReadTx, m *model) {
	t.Helper()
	if r.LSN() > m.newest() {
		t.Fatalf("LSN %v was never given", r.LSN())
	}
	im := m.at[r.LSN()]
	if r.Root() != im.root {
		t.Fatalf("root at LSN %v is %x, want %x", r.LSN(), r.Root(), im.root)
	}
	for _, id := range im.ids() {
		if checkBlock(t, r.Block, im, r.LSN(), id) != nil {
			return
		}
	}
	checkBitmaps(t, r, im)
}

// checkBitmaps proves that exactly the model's blocks are allocated.
func checkBitmaps(t testing.TB, r *ReadTx, im image) {
	t.Helper()
	g := r.s.geo
	var got []block.ID
	for group := range g.groups(r.meta.highWater) {
		b, err := r.Block(g.bitmapOf(group))
		if errors.Is(err, snapshot.ErrBroken) {
			return
		}
		ok(t, err)
		if b.Type() != block.TypeBitmap {
			t.Fatalf("bitmap %d has type %v", group, b.Type())
		}
		g.eachInUse(group, b.Payload(), func(id block.ID) { got = append(got, id) })
		b.Release()
	}
	if want := im.ids(); !slices.Equal(got, want) {
		t.Fatalf("allocated at LSN %v: %v\nwant %v", r.LSN(), got, want)
	}
	if int(r.meta.inUse) != len(got) {
		t.Fatalf("meta block at LSN %v counts %d blocks in use of %d", r.LSN(), r.meta.inUse, len(got))
	}
	if n := len(got); n > 0 && r.meta.highWater <= got[n-1] {
		t.Fatalf("high-water mark %v at LSN %v, but %v is in use", r.meta.highWater, r.LSN(), got[n-1])
	}
}

// settle waits until everything is in place.
func settle(t testing.TB, s *Store) {
	t.Helper()
	for range 2 {
		ok(t, s.cleaner.awaitRound(s.cleaner.rounds()))
	}
}

// checkLeaks is for a store in which nothing is open: all counters are at zero
// (L2, L9).
func checkLeaks(t testing.TB, s *Store) {
	t.Helper()
	ok(t, s.log.Sync(s.log.End()))
	settle(t, s)
	s.writer.Lock() // whoever committed has swept
	//lint:ignore SA2001 only who holds it is waited for
	s.writer.Unlock()
	eventually(t, func() string {
		for _, c := range []blockcache.Class{blockcache.ClassOriginal, blockcache.ClassPrivate, blockcache.ClassReserve, blockcache.ClassDead, blockcache.ClassDirty} {
			if n := s.cache.Frames(c); n != 0 {
				return fmt.Sprintf("%d frames of class %v are left", n, c)
			}
		}
		st := s.cache.Stats()
		if n := st.Temporary.UsedBytes; n != 0 {
			return fmt.Sprintf("%d bytes of temporary storage are left", n)
		}
		if n := heads(s); n > st.Clean {
			return fmt.Sprintf("%d heads and %d clean frames: some stand for nothing", n, st.Clean)
		}
		if st.FramesInUse != st.Clean {
			return fmt.Sprintf("%d frames in use, %d of them clean", st.FramesInUse, st.Clean)
		}
		if st.Index != 0 || st.LentBytes != 0 {
			return fmt.Sprintf("%d pages of entries and %d bytes of what leads to them are left", st.Index, st.LentBytes)
		}
		if n := s.snapshots.Len(); n != 0 {
			return fmt.Sprintf("%d originals are left", n)
		}
		if n := s.state.users.Load(); n != 0 {
			return fmt.Sprintf("%d users are left", n)
		}
		return ""
	})
}

// heads counts the entries of the table.
func heads(s *Store) (n int64) {
	s.cache.EachLatch(func(l *blockcache.Latch) { l.Heads(func(*blockcache.Version) { n++ }) })
	return n
}

// eventually waits for the background: the spiller may hold a pin for a moment.
func eventually(t testing.TB, wrong func() string) {
	t.Helper()
	var why string
	for range 60_000 { // far more than what the slowest machine needs
		if why = wrong(); why == "" {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal(why)
}

func mustClose(t testing.TB, s *Store) {
	t.Helper()
	checkLeaks(t, s)
	ok(t, s.Close())
	if f, sim := s.opts.FS.(*simfs.FS); sim {
		if open := f.OpenFiles(); len(open) != 0 {
			t.Fatalf("open after Close: %v", open)
		}
	}
}

// backupPull is a backup being taken.
type backupPull struct {
	b      *Backup
	images map[block.ID][]byte
	done   bool
}

func openBackup(t testing.TB, s *Store) *backupPull {
	t.Helper()
	b, err := s.OpenBackup(context.Background(), BackupOptions{Owner: "test", OnExhaustion: ExhaustionAbort}) // the state at its LSN, or broken
	ok(t, err)
	return &backupPull{b: b, images: map[block.ID][]byte{}}
}

// pull takes at most n blocks.
func (p *backupPull) pull(t testing.TB, n int) error {
	t.Helper()
	size := p.b.info.BlockSize
	buf, ids := make([]byte, n*size), make([]block.ID, n)
	got, err := p.b.Next(context.Background(), buf, ids)
	if errors.Is(err, io.EOF) {
		p.done = true
		return nil
	}
	if err != nil {
		return err
	}
	for i, id := range ids[:got] {
		if _, twice := p.images[id]; twice {
			t.Fatalf("backup of LSN %v hands out block %v twice", p.b.info.LSN, id)
		}
		p.images[id] = buf[i*size : (i+1)*size : (i+1)*size]
	}
	return nil
}

func (p *backupPull) rest(t testing.TB) error {
	for !p.done {
		if err := p.pull(t, 64); err != nil {
			return err
		}
	}
	return nil
}

// restore builds a database from the backup and compares it with the model.
func (p *backupPull) restore(t testing.TB, m *model) {
	t.Helper()
	fsys := simfs.New()
	ok(t, fsys.Mkdir(testDir, 0o700))
	ok(t, fsys.SyncDir("/")) // the directory is its caller's
	bl, err := NewBuilder(testDir, p.b.Info(), BuildOptions{FS: fsys})
	ok(t, err)
	for id, im := range p.images {
		ok(t, bl.Write(id, im))
	}
	ok(t, bl.Finish())
	o := smallOptions(fsys.Crash(nil, simfs.DropAll)) // Finish made it durable
	o.MaxRAM = blockcache.RAMBytesMin(p.b.info.BlockSize)
	s := mustOpen(t, o)
	if got := s.newestLSN(); got != p.b.info.LSN {
		t.Fatalf("restored at LSN %v, want %v", got, p.b.info.LSN)
	}
	checkAll(t, s, m)
	res, err := s.Check(context.Background(), nil)
	ok(t, err)
	if len(res.Problems) > 0 {
		t.Fatalf("restored store is damaged: %v", res.Problems)
	}
	ok(t, s.Close())
}
