package mvcc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// setting is one way to configure a store.
type setting struct {
	name string
	set  func(*Options)
}

func ram(times int64) func(*Options) {
	return func(o *Options) { o.MaxRAM = times * blockcache.RAMBytesMin(o.BlockSize) }
}

func temp(n int64) func(*Options) {
	return func(o *Options) {
		if o.Temp = []TempDir{}; n > 0 {
			o.Temp = []TempDir{{Path: testDir, BytesMax: n}}
		}
	}
}

// settings are combined at random, one of each line.
var settings = [][]setting{
	{{"ram=min", ram(1)}, {"ram=2", ram(2)}, {"ram=20", ram(20)}},
	{{"temp=0", temp(0)}, {"temp=256K", temp(256 << 10)}, {"temp=64M", temp(64 << 20)}, {"temp=enc", func(o *Options) { temp(64 << 20)(o); o.EncryptTemp = true }}},
	{{"over=0", func(o *Options) { o.OverflowMax = -1 }}, {"over=1M", func(o *Options) { o.OverflowMax = 1 << 20 }}},
	{{"log=min", func(o *Options) { o.LogBytesMax = LogBytesMin }}, {"log=1M", func(o *Options) { o.LogBytesMax = 1 << 20 }}, {"log=default", func(o *Options) { o.LogBytesMax = 0 }}},
	{{"commit", func(o *Options) {}}, {"interval", func(o *Options) { o.Durability = DurableInterval; o.SyncInterval = 5 * time.Millisecond }}, {"never", func(o *Options) { o.Durability = DurableNever }}},
}

// mixture applies one setting of each line.
func mixture(rng *rand.Rand, o *Options) (name string) {
	for _, line := range settings {
		s := line[rng.IntN(len(line))]
		s.set(o)
		name += s.name + " "
	}
	return name
}

// play is one random history. Writers and readers have their own chance, so
// that the history does not depend on what happens to snapshots.
type play struct {
	t        testing.TB
	o        Options
	s        *Store
	m        *model
	wr, rd   *rand.Rand
	readers  []*ReadTx
	backups  []*backupPull
	target   int
	large    bool
	broken   int
	reads    int
	restored int
	dog      *watchdog
}

func newPlay(t testing.TB, o Options, seed uint64) *play {
	p := &play{
		t: t, o: o, m: newModel(), target: 200,
		wr: rand.New(rand.NewPCG(seed, 1)), rd: rand.New(rand.NewPCG(seed, 2)),
	}
	p.dog = newWatchdog(t)
	p.s = p.dog.watch(mustOpen(t, o))
	return p
}

// step is one turn of the writer and some of the readers.
func (p *play) step() {
	p.dog.pat()
	if p.rd.IntN(8) == 0 {
		wildHeat(p.s, p.rd)
	}
	p.write()
	for range p.rd.IntN(4) {
		p.read()
	}
}

func (p *play) write() {
	w, err := begin(p.t, p.s, p.m, p.wr)
	ok(p.t, err)
	n := p.wr.IntN(12)
	if p.wr.IntN(20) == 0 {
		n = 60
	}
	if p.wr.IntN(40) == 0 {
		p.target = []int{30, 200, 600}[p.wr.IntN(3)]
	}
	if p.large && p.wr.IntN(25) == 0 {
		n = 900
	}
	if err = w.some(n, p.target); p.tooLarge(n, err) {
		ok(p.t, w.tx.Rollback())
		return
	}
	ok(p.t, err)
	if p.wr.IntN(8) == 0 {
		ok(p.t, w.tx.Rollback())
		return
	}
	before := p.m.newest()
	if _, err = w.commit(p.m); p.tooLarge(n, err) { // the commit itself edits the meta block
		p.m.cutTo(before)
		return
	}
	ok(p.t, err)
}

// tooLarge reports whether n changes were refused, as they may be where there is
// little temporary storage.
func (p *play) tooLarge(n int, err error) bool {
	if !errors.Is(err, ErrTxTooLarge) {
		return false
	}
	if len(p.o.Temp) > 0 && p.o.Temp[0].BytesMax >= 16<<20 {
		p.t.Fatalf("%d changes are too large: %v", n, err)
	}
	return true
}

func (p *play) read() {
	switch roll := p.rd.IntN(100); {
	case roll < 12 && len(p.readers) < 12:
		r, err := p.s.BeginRead()
		if errors.Is(err, snapshot.ErrBroken) {
			return
		}
		ok(p.t, err)
		if p.o.Durability == DurableCommit && r.LSN() < p.m.acked || r.LSN() > p.m.newest() {
			p.t.Fatalf("reader begins at %v, acknowledged %v", r.LSN(), p.m.acked)
		}
		p.readers = append(p.readers, r)
	case roll < 20 && len(p.readers) > 0:
		i := p.rd.IntN(len(p.readers))
		p.readers[i].Close()
		p.readers = append(p.readers[:i], p.readers[i+1:]...)
	case roll < 23 && len(p.backups) < 3:
		p.backups = append(p.backups, openBackup(p.t, p.s))
	case roll < 55 && len(p.backups) > 0:
		p.pull(p.rd.IntN(len(p.backups)))
	case len(p.readers) > 0:
		p.readSome(p.readers[p.rd.IntN(len(p.readers))])
	}
}

func (p *play) readSome(r *ReadTx) {
	im := p.m.at[r.LSN()]
	ids := im.ids()
	for range 1 + p.rd.IntN(20) {
		if len(ids) == 0 {
			return
		}
		p.reads++
		if checkBlock(p.t, r.Block, im, r.LSN(), ids[p.rd.IntN(len(ids))]) != nil {
			p.broken++
			return
		}
	}
}

func (p *play) pull(i int) {
	b := p.backups[i]
	err := b.pull(p.t, 1+p.rd.IntN(20))
	switch {
	case errors.Is(err, snapshot.ErrBroken):
		p.broken++
	case err != nil:
		p.t.Fatal(err)
	case !b.done && p.rd.IntN(60) > 0:
		return
	}
	if b.done {
		b.restore(p.t, p.m)
		p.restored++
	}
	ok(p.t, b.b.Close())
	p.backups = append(p.backups[:i], p.backups[i+1:]...)
}

// end finishes what is open.
func (p *play) end() {
	for len(p.backups) > 0 {
		err := p.backups[0].rest(p.t)
		if err != nil && !errors.Is(err, snapshot.ErrBroken) {
			p.t.Fatal(err)
		}
		p.pull(0)
	}
	for _, r := range p.readers {
		checkRead(p.t, r, p.m)
		r.Close()
	}
	p.readers = nil
	checkAll(p.t, p.s, p.m)
	checkMarks(p.t, p.s, p.m)
	mustClose(p.t, p.s)
}

func (p *play) reopen() {
	p.end()
	p.s = p.dog.watch(mustOpen(p.t, p.o))
	checkAll(p.t, p.s, p.m)
}

// TestModel_L1_RandomHistories: whatever writers, readers and backups do, under
// whatever options, all that is read is what the model says.
func TestModel_L1_RandomHistories(t *testing.T) {
	seed := chance.Seed(t)
	rounds := max(2, 6**flagLong/slower)
	if testing.Short() {
		rounds = 3
	}
	for i := range rounds {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		o := smallOptions(simfs.New())
		o.BlockSize = 4096 << rng.IntN(2)
		name := mixture(rng, &o)
		t.Run(fmt.Sprintf("%d %s", i, name), func(t *testing.T) {
			p := newPlay(t, o, rng.Uint64())
			p.large = true
			for range 3 {
				for range 120 {
					p.step()
				}
				p.reopen()
			}
			p.end()
			t.Logf("%d commits, %d reads, %d broken, %d restored", p.m.newest(), p.reads, p.broken, p.restored)
		})
	}
}

// TestModel_Metamorphic: the same seed gives the same history under all options.
func TestModel_Metamorphic(t *testing.T) {
	seed := chance.Seed(t)
	runs := max(3, 6**flagLong/slower)
	if testing.Short() {
		runs = 4
	}
	var first *model
	for i := range runs {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		o := smallOptions(simfs.New())
		o.BlockSize = 4096
		name := mixture(rng, &o)
		p := newPlay(t, o, seed)
		for range 150 {
			p.step()
		}
		p.end()
		if first == nil {
			first = p.m
		}
		if got, want := fmt.Sprint(p.m.at), fmt.Sprint(first.at); got != want {
			t.Fatalf("the history under %s is another one", name)
		}
	}
}

// TestModel_OS runs a history on the real file system.
func TestModel_OS(t *testing.T) {
	dir := t.TempDir()
	o := smallOptions(vfs.OS)
	o.Temp = []TempDir{{Path: dir, BytesMax: 64 << 20}}
	o.AllowMemoryTemp = true
	p := &play{t: t, o: o, m: newModel(), target: 200, wr: rand.New(rand.NewPCG(chance.Seed(t), 1)), rd: rand.New(rand.NewPCG(0, 2)), large: true, dog: newWatchdog(t)}
	var err error
	p.s, err = Open(dir, o)
	ok(t, err)
	for range 60 {
		p.step()
	}
	p.end()
	if _, err := os.Stat(dir + "/data"); err != nil {
		t.Fatal(err)
	}
	p.s, err = Open(dir, o)
	ok(t, err)
	checkAll(t, p.s, p.m)
	mustClose(t, p.s)
}

var _ = block.LSN(0)
