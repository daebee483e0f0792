package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// smallRule merges what tests write.
var smallRule = mergeRule{bytes: 1 << 20, objects: 3}

// merged merges, and fails the test if an object had to be left.
func merged(t testing.TB, repo *Repository, rule mergeRule) *merger {
	t.Helper()
	m := repo.newMerger(rule, func(err error) { t.Error(err) })
	if err := m.merge(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// attachFake has the repository know a timeline of the fake database.
func attachFake(t testing.TB, repo *Repository, tl block.TimelineID, history []block.Fork) {
	t.Helper()
	if err := repo.attach(t.Context(), mvcc.BackupInfo{Database: fakeDatabase, Timeline: tl, History: history}); err != nil {
		t.Fatal(err)
	}
}

// manySmall is a repository with n objects of the fake timeline, of one or two commits each.
func manySmall(t testing.TB, fs *simfs.FS, seed uint64, n int) (*Repository, *fakeHistory) {
	t.Helper()
	repo, h := boundRepo(t, fs, "/repo"), newFakeHistory(seed)
	attachFake(t, repo, fakeTimeline, nil)
	for range n {
		at := h.newest()
		h.grow(1 + h.rng.IntN(2))
		putLog(t, repo, h, fakeTimeline, LogRange{at, h.newest()})
	}
	return repo, h
}

// Objects come one after the other, of any size, and are merged as the rule says, over and
// over: there are never more than their bytes are worth and a few for each log space,
// and each byte is written anew a few times at most.
func TestModel_MergeRule(t *testing.T) {
	rng := rand.New(rand.NewPCG(chance.Seed(t), 1))
	rule := mergeRule{bytes: 1 << 20, objects: 16}
	var list []LogObject
	var cuts []block.LSN
	total, written, at := int64(0), int64(0), block.LSN(0)
	for range 6000 {
		size := int64(300 + rng.IntN(500))
		if rng.IntN(100) == 0 {
			size = rng.Int64N(rule.bytes)
		}
		to := at + block.LSN(1+rng.IntN(5))
		list = append(list, logIdentity{from: at, to: to}.object(size))
		if at, total = to, total+size; rng.IntN(1000) == 0 {
			cuts = append(cuts, at)
		}
		for _, run := range rule.runs(list[:len(list)-1], cuts) {
			big, i := run[0], slices.Index(list, run[0])
			for _, o := range run[1:] {
				if o.From != big.To || o.Size >= rule.bytes/2 {
					t.Fatalf("%v is no small neighbour of %v", o, big)
				}
				if _, cut := slices.BinarySearch(cuts, o.From); cut {
					t.Fatalf("merged over %v", o.From)
				}
				big.To, big.Size = o.To, big.Size+o.Size
			}
			if big.Size > rule.bytes || len(run) < 2 {
				t.Fatalf("%d objects become %v", len(run), big)
			}
			written += big.Size
			list = slices.Replace(list, i, i+len(run), big)
		}
	}
	most := 4*total/rule.bytes + int64(len(cuts)+1)*int64(rule.objects+bits.Len64(uint64(rule.bytes)))
	if int64(len(list)) > most || written > 12*total {
		t.Fatalf("%d objects of %d bytes in %d spaces; %d bytes were written", len(list), total, len(cuts)+1, written)
	}
}

// Among random objects, some of them damaged, with holes between some: passes come to an
// end; and of those who come next, and know nothing of what was found, soon one has
// nothing to write.
func TestModel_MergeEnds(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 4))
	rule := mergeRule{bytes: 1 << 20, objects: 16}
	for range 200 {
		var list []LogObject
		var cuts []block.LSN
		damaged := map[string]bool{}
		total, at := int64(0), block.LSN(0)
		for range 20 + rng.IntN(300) {
			if at += block.LSN(rng.IntN(20) / 19); rng.IntN(50) == 0 {
				cuts = append(cuts, at)
			}
			size := int64(300 + rng.IntN(5000))
			if rng.IntN(30) == 0 {
				size = 1 + rng.Int64N(rule.bytes)
			}
			o := logIdentity{from: at, to: at + 1 + block.LSN(rng.IntN(5))}.object(size)
			if list, at, total = append(list, o), o.To, total+size; rng.IntN(40) == 0 {
				damaged[o.Name()] = true
			}
		}
		left, passes, written := mergedModel(rng, rule, list, cuts, damaged)
		if passes > len(list) || written > 6*total {
			t.Fatalf("%d objects of %d bytes: %d passes, %d bytes were written", len(list), total, passes, written)
		}
		again := written
		for n := 0; again > 0; n++ {
			if n > 3 {
				t.Fatalf("of what was merged %d bytes are written again the fourth time", again)
			}
			left, _, again = mergedModel(rng, rule, left, cuts, damaged)
		}
	}
}

// mergedModel does what a merger does to a list of objects.
func mergedModel(rng *rand.Rand, rule mergeRule, list []LogObject, cuts []block.LSN, damaged map[string]bool) (left []LogObject, passes int, written int64) {
	bad := map[string]bool{}
	for again := true; again && passes <= len(list); passes++ {
		before := len(bad)
		sound := withoutBad(slices.Clone(list), bad)
		runs := rule.runs(sound[:max(0, len(sound)-1)], cuts)
		for _, run := range runs {
			n := slices.IndexFunc(run, func(o LogObject) bool { return damaged[o.Name()] })
			late := false // it is found in the records
			if n >= 0 {
				bad[run[n].Name()], late = true, rng.IntN(2) == 0
				run = run[:n]
			}
			switch {
			case late || len(run) == 0:
			case len(run) == 1:
				bad[run[0].Name()] = true
			default:
				size := logMerge(run).Bytes
				size -= rng.Int64N(size/8 + 1) // it compresses better
				i := slices.Index(list, run[0])
				list = slices.Replace(slices.Clone(list), i, i+len(run), logIdentity{from: run[0].From, to: run[len(run)-1].To}.object(size))
				written += size
			}
		}
		again = len(runs) > 0 || len(bad) > before
	}
	return list, passes, written
}

// Random timelines with backups, and among their objects some that are damaged, or of
// another database, or missing: merged, the archive has what it had, commit by commit, in fewer
// objects. What is no good is as it was, and nothing is merged over it.
func TestModel_R15_MergeKeepsEveryCommit(t *testing.T) {
	took, rounds := 0, 6
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		seed := chance.Seed(t)
		rng := rand.New(rand.NewPCG(seed, 2))
		repo := boundRepo(t, simfs.New(), "/repo")
		tree := newTree(rng)
		histories := make([]*fakeHistory, len(tree.timelines))
		for i, tl := range tree.timelines {
			if p := tree.parent[i]; p >= 0 {
				histories[i] = histories[p].fork(tree.forks[i], seed+uint64(i))
			} else {
				histories[i] = newFakeHistory(seed)
			}
			for histories[i].newest() < 130 {
				histories[i].grow(1)
			}
			attachFake(t, repo, tl, tree.lineage(i)[1:])
		}
		kept := map[string][]byte{}
		for _, o := range tree.logs {
			if i := slices.IndexFunc(mustLogs(t, repo), func(there LogObject) bool { return there.Name() == o.Name() }); i >= 0 {
				continue // the overlap is the whole object
			}
			i := int(o.timeline>>24) - 1
			o = putLog(t, repo, histories[i], tree.timelines[i], o.LogRange)
			data := objectBytes(t, repo, o.Name())
			switch rng.IntN(12) {
			case 0:
				data[rng.IntN(len(data))] ^= 1 << rng.IntN(8)
				rewrite(t, repo, o.Name(), data)
				kept[o.Name()] = data
			case 1:
				remove(t, repo, o.Name())
			}
		}
		before := readAll(t, repo, tree, histories)
		n := len(mustLogs(t, repo))
		m := repo.newMerger(mergeRule{bytes: 64 << 10, objects: 2 + rng.IntN(3)}, func(error) {})
		if err := m.merge(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now := len(mustLogs(t, repo)); now != n+len(m.made)-m.took || m.took > 0 && now >= n {
			t.Fatalf("%d objects became %d: %d made, %d gone", n, now, len(m.made), m.took)
		}
		took += m.took
		if now := readAll(t, repo, tree, histories); !slices.Equal(now, before) {
			t.Fatalf("was\n%s\nis\n%s", before, now)
		}
		for name, data := range kept {
			mustNotBeMergedOver(t, repo, tree, m.made, name, data)
		}
	}
	if took == 0 && rounds > 2 {
		t.Fatal("nothing was merged")
	}
}

// mustNotBeMergedOver: a damaged object is as it was, and no merged one holds what only it
// should have.
func mustNotBeMergedOver(t *testing.T, repo *Repository, tree *randomTree, made []LogObject, name string, data []byte) {
	t.Helper()
	if !slices.Equal(objectBytes(t, repo, name), data) {
		t.Fatalf("%s is not as it was", name)
	}
	bad, _ := parseLogName(ObjectInfo{Name: name})
	within := func(o LogObject) bool { return o.timeline == bad.timeline && o.From <= bad.From && bad.To <= o.To }
	there := slices.ContainsFunc(tree.logs, func(o LogObject) bool { return within(o) && o.LogRange != bad.LogRange })
	if !there && slices.ContainsFunc(made, within) {
		t.Fatalf("%s was merged over", name)
	}
}

func objectBytes(t testing.TB, repo *Repository, name string) []byte {
	t.Helper()
	data, err := readSmall(t.Context(), repo.objects, name, manifestBytesMax)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// readAll is all that can be read of each timeline's history.
func readAll(t testing.TB, repo *Repository, tree *randomTree, histories []*fakeHistory) (texts []string) {
	t.Helper()
	for i := range tree.timelines {
		text, l := "", tree.lineage(i)
		for lsn := block.LSN(1); lsn <= histories[i].newest(); lsn++ {
			var s recordText
			err := repo.readLog(t.Context(), mustLogs(t, repo), l, LogRange{lsn - 1, lsn}, 0, s.see)
			if lost := (*LogLostError)(nil); err != nil && !errors.As(err, &lost) {
				t.Fatal(err)
			}
			text += s.String()
		}
		texts = append(texts, text)
	}
	return texts
}

// mergeWorld is a database with backups and log in small objects.
type mergeWorld struct {
	*archived
	text string // the log
}

func newMergeWorld(t *testing.T) *mergeWorld {
	a := newArchived(t, 11)
	a.change(2)
	a.full()
	for i := range 8 {
		a.change(1 + i%2)
		a.archive()
	}
	a.incremental()
	for range 2 {
		a.change(1)
		a.archive()
	}
	a.tail.Close()
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(a.fs, a.dir); err != nil { // what is copied often is to be small
		t.Fatal(err)
	}
	w := &mergeWorld{archived: a}
	var err error
	if w.text, err = readText(t, a.repo, lineageOf(a.made[0].Timeline, a.made[0].History), LogRange{0, a.from}, 0); err != nil {
		t.Fatal(err)
	}
	return w
}

// wantMerged proves that what a merge that was cut off has left is the log, all of it, and,
// if it is to, restores the newest state; the next merge ends what it began, and then there
// are 3 objects, or least.
func (a *mergeWorld) wantMerged(fs *simfs.FS, restore bool, least int, when string) {
	a.t.Helper()
	repo := openRepo(a.t, fs, "/d/repo")
	whole := func() {
		a.t.Helper()
		got, err := readText(a.t, repo, lineageOf(a.made[0].Timeline, a.made[0].History), LogRange{0, a.from}, 0)
		if err != nil || got != a.text {
			a.t.Fatalf("%s: the log is not what it was: %v", when, err)
		}
	}
	whole()
	if restore {
		b := *a.archived
		b.history, b.repo = &history{t: a.t, rng: a.rng, fs: fs, dir: a.dir, kept: a.kept}, repo
		b.wantAt(RestoreTarget{Backup: a.made[0].ID, Recover: RecoverAll}, a.from, RestoreOptions{})
	}
	if _, err := Sweep(a.t.Context(), repo); err != nil {
		a.t.Fatalf("%s: %v", when, err)
	}
	merged(a.t, repo, smallRule)
	if logs := mustLogs(a.t, repo); len(logs) < least || len(logs) > 3 {
		a.t.Fatalf("%s: %v", when, logs)
	}
	whole()
	wantOnly(a.t, repo, namesOf(a.t, repo)...)
}

// R15, L12: killed, or without power, at any event of a merge: every state can be restored, as
// if nothing had happened, and the next merge ends it and leaves nothing behind.
func TestR15_PowerCutAtEveryEventOfAMerge(t *testing.T) {
	a := newMergeWorld(t)
	base := a.fs.(*simfs.FS).Crash(nil, simfs.KeepAll)
	for k := 0; ; k++ {
		fs := base.Crash(nil, simfs.KeepAll)
		repo := openRepo(t, fs, "/d/repo")
		fs.CutAfter(k)
		m := repo.newMerger(smallRule, func(error) {})
		err := m.merge(t.Context())
		ended := !fs.IsCut()
		for i, after := range []*simfs.FS{
			fs.Crash(nil, simfs.DropAll), fs.Crash(rand.New(rand.NewPCG(uint64(k), 1)), simfs.Random), fs.Kill(),
		} {
			a.wantMerged(after, i == k%3, 3, fmt.Sprintf("event %d, state %d", k, i)) // a whole restore takes long
		}
		if ended {
			if err != nil || k < 20 || m.took != 8 {
				t.Fatalf("a merge of %d events, %d objects: %v", k, m.took, err)
			}
			return
		}
	}
}

// Whichever operation of a merge fails: the same, and the error is told.
func TestR15_FailureOfEveryOperationOfAMerge(t *testing.T) {
	a := newMergeWorld(t)
	base := a.fs.(*simfs.FS).Crash(nil, simfs.KeepAll)
	step := 1
	switch {
	case testing.Short():
		step = 20
	case *histories == 0:
		step = 6
	}
	const least = 2 // log is cut where a backup ends: while its manifest cannot be read, more becomes one
	sites := newSiteSweep()
	run := func(note func(simfs.Event), arm func(*simfs.FS) *simfs.Armed) (*simfs.FS, *simfs.Armed) {
		fs := base.Crash(nil, simfs.KeepAll)
		repo := openRepo(t, fs, "/d/repo")
		fs.Trace(note)
		armed := arm(fs)
		_ = repo.newMerger(smallRule, func(error) {}).merge(t.Context()) // what fails to be let go is no error
		fs.Trace(nil)
		if armed != nil {
			armed.Disarm()
		}
		return fs, armed
	}
	run(sites.clean.Note, func(*simfs.FS) *simfs.Armed { return nil })
	k := a.rng.IntN(step)
	for ; ; k += step {
		fs, armed := run(sites.swept.Note, func(fs *simfs.FS) *simfs.Armed {
			return fs.Fail(simfs.Fault{Ops: everyOp, Skip: k, Late: a.rng.IntN(2) == 0})
		})
		if armed.Seen() <= k {
			break
		}
		a.wantMerged(fs, k%40 < step, least, fmt.Sprintf("operation %d", k))
	}
	if k < 20 {
		t.Fatalf("a merge of %d operations", k)
	}
	for _, site := range sites.swept.Missed(&sites.clean) { // by the steps
		fs, _ := run(sites.swept.Note, func(fs *simfs.FS) *simfs.Armed { return sites.swept.Fail(fs, site, simfs.Failures()[0], 0) })
		a.wantMerged(fs, false, least, site.String())
	}
	sites.end(t, 15)
}

// striking objects do something else after so many operations of their user.
type striking struct {
	Objects
	after  int
	strike func()
}

func (s *striking) did() {
	if s.after--; s.after == 0 {
		s.strike()
	}
}

func (s *striking) Open(ctx context.Context, name string) (ObjectReader, error) {
	r, err := s.Objects.Open(ctx, name)
	s.did()
	return r, err
}

func (s *striking) List(ctx context.Context) ([]ObjectInfo, error) {
	list, err := s.Objects.List(ctx)
	s.did()
	return list, err
}

func (s *striking) Claim(ctx context.Context, name string, note []byte) (io.Closer, error) {
	c, err := s.Objects.Claim(ctx, name, note)
	s.did()
	return c, err
}

func (s *striking) Delete(ctx context.Context, names ...string) error {
	s.did()
	return s.Objects.Delete(ctx, names...)
}

// struck is the repository with something else after n operations. happened says that there
// were as many.
func struck(repo *Repository, n int, what func(*Repository)) (slow *Repository, happened func() bool) {
	c := *repo
	s := &striking{Objects: repo.objects, after: n, strike: func() { what(repo) }}
	c.objects = s
	return &c, func() bool { return s.after <= 0 }
}

// L13: a merge after any operation of a restore, and a restore after any operation of a merge:
// what is restored is what was asked for, and nothing is taken for lost.
func TestL13_RestoreBesideAMerge(t *testing.T) {
	a := newMergeWorld(t)
	base := a.fs.(*simfs.FS).Crash(nil, simfs.KeepAll)
	step := 4 // of the operations; over the runs it is all of them
	if *histories > 0 {
		step = 1
	}
	restore := func(fs *simfs.FS, repo *Repository, to string) {
		t.Helper()
		target := RestoreTarget{Backup: a.made[0].ID, Recover: RecoverAll}
		res, err := Restore(t.Context(), repo, target, to, RestoreOptions{FS: fs, MaxRAM: 16 << 20})
		if err != nil || res.LSN != a.from || res.Lost != nil {
			t.Fatalf("%+v, %v", res, err)
		}
		wantDatabase(t, fs, to, a.kept[a.from])
	}
	for n := 1 + a.rng.IntN(step); ; n += step {
		fs := base.Crash(nil, simfs.KeepAll)
		repo, more := struck(openRepo(t, fs, "/d/repo"), n, func(repo *Repository) { merged(t, repo, smallRule) })
		restore(fs, repo, "/d/there")
		if !more() {
			break
		}
	}
	kept := 0
	for n := 1 + a.rng.IntN(step); ; n += step {
		fs := base.Crash(nil, simfs.KeepAll)
		repo, more := struck(openRepo(t, fs, "/d/repo"), n, func(repo *Repository) {
			lease, err := repo.lease(t.Context(), hold{By: "a test", Log: &LogRange{a.from - 1, a.from}}) // of others nobody needs to wait
			if err != nil {
				t.Fatal(err)
			}
			lease.Close()
			if alive, err := repo.alive(t.Context(), pruneName); alive || err != nil {
				kept++ // who restores now waits for the merge, which is our caller
				return
			}
			restore(fs, repo, "/d/there")
		})
		merged(t, repo, smallRule)
		if !more() {
			break
		}
		restore(fs, repo, "/d/again")
	}
	if kept == 0 && step == 1 {
		t.Fatal("nobody met the intent of a merge")
	}
}

// L13: log that somebody has leased stays beside what was made of it, and goes with the next
// merge after he has let go.
func TestL13_MergeLeavesWhatIsRead(t *testing.T) {
	repo, h := manySmall(t, simfs.New(), 21, 9)
	logs := mustLogs(t, repo)
	lease, err := repo.lease(t.Context(), hold{By: "a test", Log: &LogRange{logs[3].From, logs[4].To}})
	if err != nil {
		t.Fatal(err)
	}
	if m := merged(t, repo, smallRule); m.took != 6 || len(m.made) != 1 {
		t.Fatalf("%+v", m)
	}
	wantLog(t, repo, ourLineage, h, LogRange{0, h.newest()})
	lease.Close()
	if m := merged(t, repo, smallRule); m.took != 2 || len(m.made) != 0 {
		t.Fatalf("%+v", m)
	}
	wantArchive(t, repo, h, 0)
	lease, err = repo.lease(t.Context(), hold{By: "a test", Log: &LogRange{0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	v, err := repo.view(t.Context())
	if err != nil || v.held.reads(LogRange{0, 5}) == "" || v.held.reads(LogRange{1, 5}) != "" {
		t.Fatalf("%+v, %v", v.held, err)
	}
}

// What a killed merge leaves is one of two that are the same. Where the bigger one is damaged
// the others serve, for a restore too; where the small one differs, it stays.
func TestMerge_LeftoversAreProven(t *testing.T) {
	a := newMergeWorld(t)
	small := mustLogs(t, a.repo)[:8]
	saved := map[string][]byte{}
	for _, o := range small {
		saved[o.Name()] = objectBytes(t, a.repo, o.Name())
	}
	big := merged(t, a.repo, smallRule).made[0]
	for name, data := range saved { // as if the power had gone
		rewrite(t, a.repo, name, data)
	}
	data := objectBytes(t, a.repo, big.Name())
	bad := slices.Clone(data)
	bad[logHeaderSize+chunkHeadSize+9] ^= 1
	rewrite(t, a.repo, big.Name(), bad)
	res := a.wantAt(RestoreTarget{Backup: a.made[0].ID, Recover: RecoverAll}, a.from, RestoreOptions{})
	if res.Lost != nil {
		t.Fatalf("lost %v", res.Lost)
	}
	var told []error
	m := a.repo.newMerger(smallRule, func(err error) { told = append(told, err) })
	if err := m.merge(t.Context()); err != nil || m.took != 0 || len(told) == 0 {
		t.Fatalf("%d gone, told %v, %v", m.took, told, err)
	}
	rewrite(t, a.repo, big.Name(), data)

	// An object with the name of a small one and other commits: made of another history.
	h := newFakeHistory(77)
	h.grow(int(small[2].To))
	b, err := newLogBuilder(logIdentity{database: a.made[0].Database, timeline: a.made[0].Timeline}, small[2].From, CompressionFastest)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if err := h.each(small[2].LogRange, b.add); err != nil {
		t.Fatal(err)
	}
	remove(t, a.repo, small[2].Name())
	if _, _, err := writeBatch(t, a.repo, b.cut(), 0, 0); err != nil {
		t.Fatal(err)
	}
	told = nil
	m = a.repo.newMerger(smallRule, func(err error) { told = append(told, err) })
	if err := m.merge(t.Context()); err != nil || m.took != 7 || len(told) != 1 || !errors.Is(told[0], block.ErrCorrupt) {
		t.Fatalf("%d gone, told %v, %v", m.took, told, err)
	}
	a.wantAt(RestoreTarget{Backup: a.made[0].ID, Recover: RecoverAll}, a.from, RestoreOptions{})
}

// An archive that runs merges what it wrote, beside another that prunes: it has few objects,
// no hole, and goes on without a warning, also behind a restart.
func TestArchive_MergesAsItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		repo, fake := boundRepo(t, simfs.New(), "/repo"), newLogSource(newFakeHistory(31))
		o := ArchiveOptions{merge: mergeRule{bytes: 1 << 20, objects: 4}}
		for range 2 {
			run := startArchive(t, fake, repo, o)
			synctest.Wait()
			for n := range 30 {
				fake.log.commit(func(h *fakeHistory) { h.commit(1, 100, "") })
				time.Sleep(11 * time.Second)
				if n%7 == 3 {
					merged(t, repo, smallRule)
				}
			}
			if err := run.stop(); err != nil || len(run.warnings) > 0 || len(run.now().Holes) > 0 {
				t.Fatalf("%v, %v, %+v", err, run.warnings, run.now())
			}
			if n := len(mustLogs(t, repo)); n > 12 {
				t.Fatalf("%d objects", n)
			}
			wantArchive(t, repo, fake.log.h, 0)
		}
	})
}

// R18: the newest log of a timeline is found, whatever of a list has gone into a bigger
// object since. The object before the newest one may be merged while the archive tries to
// write the next; it is found there, and is no hole.
func TestR18_HeadsWhileLogIsMerged(t *testing.T) {
	repo, h := manySmall(t, simfs.New(), 22, 6)
	old, err := repo.catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := h.newest()
	h.grow(1)
	putLog(t, repo, h, fakeTimeline, LogRange{at, h.newest()})
	if m := merged(t, repo, smallRule); m.took != 6 {
		t.Fatalf("%+v", m)
	}
	heads := newHeads()
	if err := repo.logHeads(t.Context(), old.logs, &heads); err != nil || heads.newest[fakeTimeline].LSN != h.newest() {
		t.Fatalf("%+v, %v", heads, err)
	}
	var s recordText
	if err := repo.readLog(t.Context(), old.logs, ourLineage, LogRange{0, at}, 0, s.see); err != nil || s.String() != h.text(LogRange{0, at}) {
		t.Fatalf("read by an old list: %v", err)
	}
	a := &archiver{repo: repo, o: ArchiveOptions{Warn: func(err error) { t.Error(err) }}, prev: old.logs[5], looked: time.Now()}
	if err := a.lookBefore(t.Context(), logIdentity{fakeDatabase, fakeTimeline, at, h.newest()}); err != nil {
		t.Fatal(err)
	}
	if a.prev.LogRange != (LogRange{0, at}) || len(a.status.Holes) > 0 {
		t.Fatalf("%+v", a.prev)
	}
}
