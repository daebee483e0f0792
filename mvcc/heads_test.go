package mvcc

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

func headAt(t testing.TB, s *Store, lsn block.LSN) Head {
	t.Helper()
	sum, err := s.log.Checksum(lsn)
	ok(t, err)
	return Head{lsn, sum}
}

// checkHead wants what CheckHead says.
func checkHead(t testing.TB, s *Store, repo [16]byte, h Head, want error) {
	t.Helper()
	err := s.CheckHead(repo, h)
	if want == nil {
		ok(t, err)
		return
	}
	var he *HistoryError
	if !errors.Is(err, want) || !errors.Is(err, ErrHistory) || !errors.As(err, &he) || he.Head != h {
		t.Fatalf("head %v: %v, want %v", h, err, want)
	}
}

// A log that could not be read for a moment while a backup began left the backup without
// a name for its state; to remember that was then refused as the history of another
// database, though nothing was wrong with either.
func TestR18_UnknownSumIsNoOtherHistory(t *testing.T) {
	c, fsys := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.commits(3, 5, 20))
	fsys = fsys.Crash(nil, simfs.KeepAll)
	mustClose(t, c.s)
	c.o.FS = fsys
	c.s = mustOpen(t, c.o) // which has to read it: who has committed knows it
	fault := fsys.Fail(simfs.Fault{Ops: simfs.OpOpen, File: filesLog, Err: syscall.EMFILE, Sticky: true})
	b, err := c.s.OpenBackup(t.Context(), BackupOptions{})
	ok(t, err)
	fault.Disarm()
	if b.Info().RecordSum != 0 || fault.Fired() == 0 {
		t.Fatalf("checksum %08x, %d faults", b.Info().RecordSum, fault.Fired())
	}
	ok(t, c.s.RememberHead(numbered(1), Head{b.Info().LSN, b.Info().RecordSum}))
	ok(t, b.Close())
	mustClose(t, c.s)
}

// R18: a head is ours if the log has it with that checksum, or if it is
// remembered once the log has let it go: the newest, and the one before.
func TestR18_HeadInLogOrRemembered(t *testing.T) {
	a, b := numbered(1), numbered(2)
	c, fsys := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.commits(6, 5, 20))
	heads := map[block.LSN]Head{}
	for lsn := block.LSN(1); lsn <= 6; lsn++ {
		heads[lsn] = headAt(t, c.s, lsn)
		checkHead(t, c.s, a, heads[lsn], nil)
		checkHead(t, c.s, a, Head{lsn, heads[lsn].Sum + 1}, ErrHistory)
	}
	checkHead(t, c.s, a, Head{7, 1}, ErrBehind)
	for _, lsn := range []block.LSN{2, 4, 5} {
		ok(t, c.s.RememberHead(a, heads[lsn]))
	}
	ok(t, c.s.RememberHead(b, heads[3]))
	if err := c.s.RememberHead(a, Head{6, 1}); !errors.Is(err, ErrHistory) {
		t.Fatalf("a head that is not ours is remembered: %v", err)
	}
	if err := c.s.RememberHead(a, Head{7, 1}); !errors.Is(err, ErrBehind) {
		t.Fatalf("a head that is to come is remembered: %v", err)
	}
	if err := c.s.RememberHead([16]byte{}, heads[6]); !errors.Is(err, ErrOptions) {
		t.Fatalf("a head of no repository: %v", err)
	}
	check := func(s *Store) {
		t.Helper()
		checkHead(t, s, a, heads[4], nil)
		checkHead(t, s, a, heads[2], ErrHistory)
		checkHead(t, s, a, heads[3], ErrHistory)
		checkHead(t, s, b, heads[3], nil)
		checkHead(t, s, numbered(3), heads[3], ErrHistory)
		checkHead(t, s, a, Head{}, ErrHistory)
		checkHead(t, s, a, Head{5, heads[5].Sum + 1}, ErrHistory)
	}
	for c.s.log.Oldest() <= 6 { // the log lets them go
		ok(t, c.allocMany(30))
		ok(t, c.freeAll(3))
		ok(t, c.checkpoint())
	}
	check(c.s)
	killed := mustOpen(t, smallOptions(fsys.Crash(nil, simfs.DropAll)))
	check(killed)
	mustClose(t, killed)
	checkHead(t, c.s, a, heads[5], nil) // seen: the one before is not needed
	checkHead(t, c.s, a, heads[4], ErrHistory)
	mustClose(t, c.s)
}

// R18: four repositories are remembered; the one that was remembered longest
// ago goes.
func TestR18_RememberedRepositories(t *testing.T) {
	var heads [headsMax]repositoryHead
	for i := range 6 {
		heads = remembered(heads, numbered(byte(1+i)), Head{LSN: block.LSN(10 + i), Sum: 1})
	}
	heads = remembered(heads, numbered(4), Head{LSN: 20, Sum: 2})
	heads = remembered(heads, numbered(4), Head{LSN: 20, Sum: 2}) // again, after a crash
	want := [headsMax]repositoryHead{
		{numbered(4), Head{20, 2}, Head{13, 1}}, {repo: numbered(6), now: Head{15, 1}},
		{repo: numbered(5), now: Head{14, 1}}, {repo: numbered(3), now: Head{12, 1}},
	}
	if heads != want {
		t.Fatalf("%+v", heads)
	}
}

// R18, R8: heads are remembered while the cleaner writes in place, and the power
// is cut: blocks that only second copies protect are repaired, the heads that
// RememberHead returned for are there, and so are all commits.
func TestR18_RememberWhileCleaning(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 8))
	rounds := 12 * *flagLong
	if testing.Short() {
		rounds = 4
	}
	for range rounds {
		c, fsys := newCrashRun(t, rng.Uint64(), nil)
		g := newGates(fsys)
		ok(t, c.allocMany(60))
		ok(t, c.checkpoint())
		for range 3 {
			ok(t, c.editMany(40))
		}
		inPlace := g.next(simfs.OpWrite, testDir+"/data", func(ev simfs.Event) bool { return ev.Off >= 3*4096 })
		round := async(func() { _ = c.s.cleaner.awaitRound(c.s.cleaner.rounds()) })
		<-inPlace.reached // the second copies are durable
		h := headAt(t, c.s, c.s.newestLSN())
		for range 1 + rng.IntN(3) {
			ok(t, c.s.RememberHead(numbered(byte(rng.IntN(9))), h))
		}
		ok(t, c.s.RememberHead(numbered(77), h))
		synced := g.next(simfs.OpSync, testDir+"/data")
		inPlace.open()
		<-synced.reached // written, and in doubt
		for range 3 {
			after := fsys.Crash(rng, simfs.Random)
			c.checkAfter(after, "cut while heads are remembered", func(s *Store, _ *model) {
				if s.anchor.now.heads[0] != (repositoryHead{repo: numbered(77), now: h}) {
					t.Fatalf("heads: %+v", s.anchor.now.heads)
				}
			})
		}
		synced.open()
		<-round
		mustClose(t, c.s)
	}
}

// A checkpoint's superblocks are counted in one byte: before it is full a round
// is made, also when there is nothing to write.
func TestR18_ManyHeadsBetweenCheckpoints(t *testing.T) {
	c, _ := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.allocMany(3))
	ok(t, c.checkpoint())
	h := headAt(t, c.s, 1)
	for i := range 3 * amendsMax {
		ok(t, c.s.RememberHead(numbered(byte(i)), h))
		if sb := c.s.anchor.now; sb.amends > amendsMax {
			t.Fatalf("%d superblocks of one checkpoint", sb.amends)
		}
	}
	mustClose(t, c.s)
}

// R6: what a repository is about to know of is durable: an opening that finds
// the log ending before it is refused.
func TestR6_HeadIsKnownToBeDurable(t *testing.T) {
	c, fsys := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.commits(3, 5, 20))
	ok(t, c.s.RememberHead(numbered(1), headAt(t, c.s, 3)))
	disk := fsys.Crash(nil, simfs.DropAll)
	mustClose(t, c.s)
	// Rot in the last group of records looks like a torn tail.
	b, err := disk.Bytes(testDir + "/log/0002.wal")
	ok(t, err)
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	ok(t, disk.FlipBits(testDir+"/log/0002.wal", int64(end-1), 1))
	if _, err := Open(testDir, smallOptions(disk)); !errors.Is(err, block.ErrCorrupt) {
		t.Fatalf("opened without what a repository has: %v", err)
	}
}

// R18: a fork shares with the old timeline what repositories were seen to have
// of it, the lowest of them; without any, what the timeline began with. A copy
// that went its own way since then is so never taken for the original.
func TestR18_ForkSharesWhatWasSeen(t *testing.T) {
	c, fsys := newCrashRun(t, chance.Seed(t), nil)
	ok(t, c.commits(9, 5, 20))
	fork := func(want block.LSN) {
		t.Helper()
		disk := fsys.Crash(nil, simfs.DropAll)
		ok(t, Fork(testDir, smallOptions(disk)))
		s := mustOpen(t, smallOptions(disk))
		sb := s.anchor.now
		if got := sb.forks.list(); len(got) != 1 || got[0] != (block.Fork{Timeline: c.s.Timeline(), LSN: want}) {
			t.Fatalf("forks %v, want %v at %v", got, c.s.Timeline(), want)
		}
		if s.newestLSN() != 9 || s.Timeline() == c.s.Timeline() || sb.heads != [headsMax]repositoryHead{} {
			t.Fatalf("LSN %v on %v, heads %v", s.newestLSN(), s.Timeline(), sb.heads)
		}
		checkAll(t, s, c.m)
		mustClose(t, s)
	}
	fork(0)
	a, b := numbered(1), numbered(2)
	ok(t, c.s.RememberHead(a, headAt(t, c.s, 5)))
	fork(5)
	ok(t, c.s.RememberHead(a, headAt(t, c.s, 8)))
	fork(5) // perhaps it never came to that
	checkHead(t, c.s, a, headAt(t, c.s, 8), nil)
	ok(t, c.checkpoint())
	ok(t, c.s.RememberHead(b, headAt(t, c.s, 7)))
	fork(7)
	mustClose(t, c.s)
}

// R18: a copied directory, and the original: whoever pushes second is told.
func TestR18_CopiedDirectoryIsRecognised(t *testing.T) {
	c, fsys := newCrashRun(t, chance.Seed(t), nil)
	repo := numbered(1)
	ok(t, c.commits(3, 5, 20))
	ok(t, c.s.RememberHead(repo, headAt(t, c.s, 3)))
	copied := smallOptions(fsys.Crash(nil, simfs.KeepAll))
	s := mustOpen(t, copied)
	m := &model{at: c.m.at, acked: c.m.acked}
	other := &crashRun{t: t, o: copied, s: s, m: m, rng: rand.New(rand.NewPCG(1, 2))}
	ok(t, other.commits(2, 5, 20))
	ok(t, c.commits(3, 5, 20))
	checkHead(t, s, repo, headAt(t, c.s, 3), nil)
	h := headAt(t, c.s, 5)
	ok(t, c.s.RememberHead(repo, h)) // the original pushes
	checkHead(t, s, repo, h, ErrHistory)
	checkHead(t, s, repo, headAt(t, c.s, 6), ErrBehind)
	mustClose(t, s)
	mustClose(t, c.s)
}

// R18: pushes that are cut off between remembering and publishing, one after the
// other, do not make a store forget what the repository really has, also when the log
// does not reach back to it.
func TestR18_CutOffPushesForgetNothing(t *testing.T) {
	has, lost, again := Head{5, 50}, Head{6, 60}, Head{7, 70}
	repo := [16]byte{1}
	s := &Store{}
	remember := func(h Head) { s.anchor.now.heads = remembered(s.anchor.now.heads, repo, h) }
	remember(has)
	for _, h := range []Head{lost, again, lost} {
		if !s.sawHead(repo, has) {
			t.Fatalf("%v is not remembered", has)
		}
		remember(h)
	}
	for range 2 {
		if !s.sawHead(repo, lost) {
			t.Fatal("what was published at last is not remembered")
		}
	}
	if s.sawHead(repo, again) {
		t.Fatal("what was never published is remembered")
	}
}

// A store that is closed says so, also to who asks for a repository's head: he was told of
// an error of the log's, which nobody can tell from others.
func TestR18_CheckHeadOfAClosedStore(t *testing.T) {
	s := mustOpen(t, smallOptions(simfs.New()))
	mustClose(t, s)
	for _, lsn := range []block.LSN{1, 99} {
		if err := s.CheckHead(numbered(1), Head{lsn, 7}); !errors.Is(err, ErrClosed) || errors.Is(err, ErrHistory) {
			t.Errorf("LSN %v: %v", lsn, err)
		}
	}
}
