package mvcc

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// commitTimes is what the log says of one commit.
type commitTimes struct{ at, raw time.Time }

// timesInLog reads the times of the commits from an LSN on.
func timesInLog(t testing.TB, s *Store, from block.LSN) map[block.LSN]commitTimes {
	t.Helper()
	found := map[block.LSN]commitTimes{}
	ok(t, s.log.Read(from, func(lsn block.LSN, body []byte, _ bool) error {
		return eachEntry(lsn, body, func(e *redoEntry) error {
			if e.kind == entryCommit {
				found[lsn] = commitTimes{e.at, e.raw}
			}
			return nil
		})
	}))
	return found
}

// clockRun commits into one block, and knows what time each commit must have.
// It runs in a bubble, where the clock stands still unless it is told to move.
type clockRun struct {
	t    *testing.T
	o    Options
	s    *Store
	id   block.ID
	last time.Time // of the newest commit
	log  map[block.LSN]commitTimes
}

// commits makes n commits: each is later than the one before, as little as can
// be while the clock is behind, and carries what the clock says.
func (c *clockRun) commits(n int) {
	c.t.Helper()
	for range n {
		raw := time.Now()
		want := raw
		if !want.After(c.last) {
			want = c.last.Add(1)
		}
		lsn := set(c.t, c.s, c.id, byte(n))
		got := timesInLog(c.t, c.s, lsn)[lsn]
		if !got.at.Equal(want) || !got.raw.Equal(raw) {
			c.t.Fatalf("commit %v has time %v and raw clock %v, want %v and %v", lsn, got.at, got.raw, want, raw)
		}
		if st := c.s.Status().LastCommit; !st.Equal(want) {
			c.t.Fatalf("status has %v as the last commit's time, want %v", st, want)
		}
		c.last, c.log[lsn] = want, got
	}
}

// ahead has the newest commit's time in the future, as if the clock had been
// set back since.
func (c *clockRun) ahead(by time.Duration) {
	c.s.writer.Lock()
	defer c.s.writer.Unlock()
	c.last = time.Now().Add(by)
	c.s.lastTime = c.last
}

// reopenings are the ways on which a store's past comes to its successor.
var reopenings = map[string]func(*clockRun){
	"closed": func(c *clockRun) {
		mustClose(c.t, c.s)
	},
	"killed": func(c *clockRun) {
		c.o.FS = c.o.FS.(*simfs.FS).Kill()
		_ = c.s.Close() // has no file system any more
	},
	"power cut": func(c *clockRun) {
		c.o.FS = c.o.FS.(*simfs.FS).Crash(nil, simfs.DropAll)
		ok(c.t, c.s.Close())
	},
	"power cut behind a checkpoint": func(c *clockRun) {
		settle(c.t, c.s)
		c.o.FS = c.o.FS.(*simfs.FS).Crash(nil, simfs.DropAll)
		ok(c.t, c.s.Close())
	},
	"restored": func(c *clockRun) {
		p := openBackup(c.t, c.s)
		if got := p.b.Info().Time; !got.Equal(c.last) {
			c.t.Fatalf("backup is of %v, want %v", got, c.last)
		}
		ok(c.t, p.rest(c.t))
		fsys := simfs.New()
		ok(c.t, fsys.Mkdir(testDir, 0o700))
		bl, err := NewBuilder(testDir, p.b.Info(), BuildOptions{FS: fsys})
		ok(c.t, err)
		for id, im := range p.images {
			ok(c.t, bl.Write(id, im))
		}
		ok(c.t, bl.Finish())
		ok(c.t, p.b.Close())
		mustClose(c.t, c.s)
		c.o.FS = fsys
	},
}

// TestR19_TimeNeverStepsBack: the clock is set back by seconds under the store,
// which is then opened again while the clock is still behind.
func TestR19_TimeNeverStepsBack(t *testing.T) {
	for name, end := range reopenings {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &clockRun{t: t, o: smallOptions(simfs.New()), log: map[block.LSN]commitTimes{}}
				c.s, c.id = oneBlock(t, c.o)
				t.Cleanup(func() { // or a failure is told as a deadlock of the bubble
					if t.Failed() {
						_ = c.s.Close()
					}
				})
				c.last = c.s.lastCommitTime()
				c.commits(2)
				time.Sleep(10 * time.Millisecond)
				c.commits(2)
				c.ahead(4 * time.Second)
				c.commits(3)
				time.Sleep(time.Second)
				c.commits(2)
				end(c)
				c.s = mustOpen(t, c.o)
				if name == "killed" || name == "power cut" { // the log is still there
					for lsn, got := range timesInLog(t, c.s, 2) {
						if want := c.log[lsn]; !got.at.Equal(want.at) || !got.raw.Equal(want.raw) {
							t.Errorf("commit %v has times %v after opening again, had %v", lsn, got, want)
						}
					}
				}
				c.commits(2)
				time.Sleep(5 * time.Second) // the clock has caught up
				c.commits(2)
				mustClose(t, c.s)
			})
		})
	}
}

// footprint is the size of a database after a commit.
type footprint struct {
	highWater block.ID
	file      int64 // bytes; of settled stores only
}

// footprints runs a history that grows and shrinks and returns the sizes on the
// way. With readers there is a reader at the first commit and one at a later
// one, and a backup that takes a block now and then.
func footprints(t *testing.T, seed uint64, readers bool) (sizes []footprint) {
	o := smallOptions(simfs.New())
	o.MaxRAM *= 20 // rounds come when the test asks for them
	o.LogBytesMax = 0
	s, m := mustOpen(t, o), newModel()
	rng := rand.New(rand.NewPCG(seed, 11))
	var open []*ReadTx
	var backup *backupPull
	const phase = 60 / ((slower + 1) / 2)
	for i := range 4 * phase {
		if readers && (i == phase/3 || i == phase+phase/3) {
			open = append(open, beginRead(t, s))
		}
		if readers && i == phase-10 {
			backup = openBackup(t, s)
		}
		if backup != nil && i%20 == 0 {
			ok(t, backup.pull(t, 1))
		}
		w, err := begin(t, s, m, rng)
		ok(t, err)
		ok(t, w.some(1+rng.IntN(60), []int{300, 100, 400, 20}[i/phase]))
		_, err = w.commit(m)
		ok(t, err)
		size := footprint{highWater: s.meta.highWater}
		if i%10 == 9 {
			settle(t, s)
			size.file = s.data.length()
		}
		sizes = append(sizes, size)
	}
	for _, r := range open {
		checkRead(t, r, m)
		ok(t, r.reader.Err())
		r.Close()
	}
	if readers {
		ok(t, backup.rest(t))
		backup.restore(t, m)
		ok(t, backup.b.Close())
	}
	checkAll(t, s, m)
	mustClose(t, s)
	return sizes
}

// TestL11_ReadersDoNotGrowTheDatabase: a history of updates, deletions and
// allocations takes the same places in the file, and a file of the same size,
// whether there are long readers and a backup or not.
func TestL11_ReadersDoNotGrowTheDatabase(t *testing.T) {
	seed := chance.Seed(t)
	alone, read := footprints(t, seed, false), footprints(t, seed, true)
	shrunk := false
	for i := range alone {
		if read[i] != alone[i] {
			t.Fatalf("after commit %d: %+v with readers, %+v without", i+1, read[i], alone[i])
		}
		shrunk = shrunk || i > 9 && i%10 == 9 && alone[i].file < alone[i-10].file
	}
	if !shrunk && slower == 1 { // else the history may be too short for it
		t.Fatal("the file never got smaller: nothing was tried")
	}
}

// commitCost is what a commit of a few blocks allocates on the heap, and how many
// originals it makes, while so many readers are open, each at an LSN of its own.
func commitCost(t *testing.T, readers int) (allocs float64, originals uint64) {
	const blocks, windows, runs = 16, 5, 20
	o := smallOptions(simfs.New())
	o.MaxRAM *= 50 // all frames stay
	o.LogBytesMax = 0
	s := mustOpen(t, o)
	ids := make([]block.ID, blocks)
	tx, err := s.BeginWrite()
	ok(t, err)
	for i := range ids {
		b, err := tx.Alloc(block.TypeLeaf)
		ok(t, err)
		ids[i] = b.ID()
		b.Release()
	}
	_, err = tx.Commit()
	ok(t, err)
	open := make([]*ReadTx, 0, readers+windows*(runs+1))
	for i := range 1000 { // also without readers: a store that is warm
		r := beginRead(t, s)
		set(t, s, ids[i%blocks], byte(i))
		if i >= 1000-readers {
			open = append(open, r)
		} else {
			r.Close()
		}
	}
	before := s.snapshots.Counters().OriginalsMade
	commit := func() {
		open = append(open, beginRead(t, s)) // wants all that the commit replaces
		tx, err := s.BeginWrite()
		ok(t, err)
		for _, id := range ids {
			b, err := tx.Edit(id)
			ok(t, err)
			b.Payload()[1]++
			b.Release()
		}
		_, err = tx.Commit()
		ok(t, err)
	}
	allocs = math.Inf(1)
	for range windows { // in one of them the background has rested
		allocs = min(allocs, testing.AllocsPerRun(runs, commit))
	}
	const commits = windows * (runs + 1)
	originals = s.snapshots.Counters().OriginalsMade - before
	if originals%commits != 0 {
		t.Fatalf("%d originals in %d equal commits", originals, commits)
	}
	for _, r := range open {
		r.Close()
	}
	mustClose(t, s)
	return allocs, originals / commits
}

// TestL2_CommitCostDoesNotGrowWithReaders: with a thousand readers at as many
// LSNs a commit makes as many originals as with one, and allocates as much.
// That it looks at few of the readers is proven in package snapshot.
func TestL2_CommitCostDoesNotGrowWithReaders(t *testing.T) {
	one, oneMade := commitCost(t, 1)
	many, manyMade := commitCost(t, 1000)
	t.Logf("allocations of a commit: %v with 1 reader, %v with 1000; originals: %d and %d", one, many, oneMade, manyMade)
	if oneMade != 16 || manyMade != 16 {
		t.Errorf("commits of 16 blocks make %d originals with one reader, %d with 1000", oneMade, manyMade)
	}
	if many > one*1.1+5 {
		t.Errorf("a commit allocates %v times with 1000 readers, %v times with one", many, one)
	}
}

// TestR2_OpeningRacesTheSweep: every commit writes its number into all blocks,
// and readers come and go as fast as they can. A snapshot that is registered
// when the sweep has gone past it finds blocks of a later commit, or none. The
// interleaving itself is proven in package snapshot.
func TestR2_OpeningRacesTheSweep(t *testing.T) {
	commits := 3000 * *flagLong / slower
	s := mustOpen(t, smallOptions(simfs.New()))
	ids := make([]block.ID, 4)
	write := func(get func(*WriteTx, int) (Block, error)) {
		tx, err := s.BeginWrite()
		ok(t, err)
		for i := range ids {
			b, err := get(tx, i)
			ok(t, err)
			copy(b.Payload(), fmt.Sprintf("%016d", uint64(tx.Base()+1)))
			b.Release()
		}
		_, err = tx.Commit()
		ok(t, err)
	}
	write(func(tx *WriteTx, i int) (Block, error) {
		b, err := tx.Alloc(block.TypeLeaf)
		if err == nil {
			ids[i] = b.ID()
		}
		return b, err
	})
	var done atomic.Bool
	var readers sync.WaitGroup
	for i := range 4 {
		var o SnapshotOptions
		if i == 3 {
			o.Owner = "named" // is registered in another way
		}
		readers.Go(func() {
			for !done.Load() {
				if err := readNumbers(s, o, ids); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range commits {
		write(func(tx *WriteTx, i int) (Block, error) { return tx.Edit(ids[i]) })
		runtime.Gosched()
		if t.Failed() {
			break
		}
	}
	done.Store(true)
	readers.Wait()
	mustClose(t, s)
}

// readNumbers opens a snapshot and proves that all blocks have its number.
func readNumbers(s *Store, o SnapshotOptions, ids []block.ID) error {
	r, err := s.BeginSnapshot(o)
	if err != nil {
		return err
	}
	defer r.Close()
	want := fmt.Sprintf("%016d", uint64(r.LSN()))
	for _, id := range ids {
		b, err := r.Block(id)
		if err != nil {
			return err
		}
		got := string(b.Payload()[:16])
		b.Release()
		if got != want {
			return fmt.Errorf("block %v at LSN %v has number %s", id, r.LSN(), got)
		}
		runtime.Gosched()
	}
	return nil
}
