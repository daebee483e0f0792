package livebackup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// leaveLog puts an object of archived log into a repository, as far as its name and
// size go.
func leaveLog(t *testing.T, repo *Repository, timeline block.TimelineID, r LogRange) {
	t.Helper()
	rewrite(t, repo, LogObject{LogRange: r, timeline: timelineStart(timeline)}.Name(), []byte("log"))
}

// generations makes a repository with n full backups, a few incrementals on each, and
// log.
func generations(t *testing.T, n, incrementals int) (*simfs.FS, *growing) {
	t.Helper()
	fs := simfs.New()
	repo, g := openRepo(t, fs, "/repo"), newGrowing(1)
	for range n {
		g.backup(t, repo, BackupOptions{Type: TypeFull, ObjectBytes: 1, GroupBytes: 8 << 10})
		for range incrementals {
			g.change()
			g.backup(t, repo, BackupOptions{Type: TypeIncremental})
		}
		g.change()
	}
	for at := block.LSN(100); at < g.info.LSN; at += 2 {
		leaveLog(t, repo, g.info.Timeline, LogRange{at, at + 2})
	}
	return fs.Crash(nil, simfs.KeepAll), g
}

// mustPlan plans.
func mustPlan(t *testing.T, repo *Repository, policy RetentionPolicy) PrunePlan {
	t.Helper()
	plan, err := PlanPrune(t.Context(), repo, policy)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// wantPruned proves that the backups listed are whole, that none of those kept is
// missing, that a prune by the same policy ends what was begun, and that nothing is
// left then that nobody needs.
func wantPruned(t *testing.T, fs *simfs.FS, g *growing, policy RetentionPolicy, kept []BackupID, logs int) {
	t.Helper()
	repo, err := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	var listed []BackupID
	for _, e := range g.wantSound(t, repo) {
		if e.State() != StateComplete {
			t.Fatalf("%v is listed as %s: %v", e.ID, e.State(), e.Damage)
		}
		listed = append(listed, e.ID)
	}
	for _, id := range kept {
		if !slices.Contains(listed, id) {
			t.Fatalf("%v is to be kept, and gone", id)
		}
	}
	if _, err := Prune(t.Context(), repo, mustPlan(t, repo, policy)); err != nil {
		t.Fatal(err)
	}
	list := g.wantSound(t, repo)
	c, err := repo.catalog(t.Context())
	if err != nil || len(list) != len(kept) || len(c.logs) != logs {
		t.Fatalf("%d backups, %d logs, want %d, %d: %v", len(list), len(c.logs), len(kept), logs, err)
	}
	wantOnly(t, repo, namesOf(t, repo)...)
}

// keptBy is what policy keeps, and how many logs.
func keptBy(t *testing.T, fs *simfs.FS, policy RetentionPolicy) (kept []BackupID, logs int) {
	t.Helper()
	plan := mustPlan(t, openRepo(t, fs, "/repo"), policy)
	for _, b := range plan.Backups {
		if !b.Remove {
			kept = append(kept, b.ID)
		}
	}
	_, gone, _ := plan.Removes()
	return kept, len(plan.Logs) - gone
}

// pruneCase is a repository and a policy by which something goes.
type pruneCase struct {
	name          string
	base          *simfs.FS
	g             *growing
	backups, logs int // that are kept
	least         int // events of the prune
}

// pruneCases are one in which backups go with their log, and one in which only log goes:
// that from before the first backup.
func pruneCases(t *testing.T) []pruneCase {
	t.Helper()
	both, g := generations(t, 2, 1)
	onlyLog, h := generations(t, 1, 1)
	repo := openRepo(t, onlyLog, "/repo")
	for _, r := range []LogRange{{60, 80}, {80, 90}, {85, 100}} {
		leaveLog(t, repo, h.info.Timeline, r)
	}
	if plan := mustPlan(t, repo, RetentionPolicy{Generations: 1}); len(plan.Logs) != 4 {
		t.Fatal(reasons(plan))
	} else if backups, logs, _ := plan.Removes(); backups != 0 || logs != 3 {
		t.Fatal(reasons(plan))
	}
	return []pruneCase{{"backups and log", both, g, 2, 1, 20}, {"only log", onlyLog.Crash(nil, simfs.KeepAll), h, 2, 1, 8}}
}

// L13 and L12 under a power cut at every event of a prune: what is listed is whole, what
// is to be kept is there, and the next prune ends what this one began.
func TestL13_PowerCutAtEveryEventOfAPrune(t *testing.T) {
	for _, c := range pruneCases(t) {
		t.Run(c.name, c.cutEverywhere)
	}
}

func (c *pruneCase) cutEverywhere(t *testing.T) {
	policy := RetentionPolicy{Generations: 1}
	kept, logs := keptBy(t, c.base.Crash(nil, simfs.KeepAll), policy)
	if len(kept) != c.backups || logs != c.logs {
		t.Fatalf("%v, %d", kept, logs)
	}
	for k := 0; ; k++ {
		fs := c.base.Crash(nil, simfs.KeepAll)
		repo := openRepo(t, fs, "/repo")
		plan := mustPlan(t, repo, policy)
		fs.CutAfter(k)
		_, err := Prune(t.Context(), repo, plan)
		for seed := range uint64(3) {
			mode := []simfs.Mode{simfs.DropAll, simfs.KeepAll, simfs.Random}[min(seed, 2)]
			t.Run(fmt.Sprintf("event %d, state %d", k, seed), func(t *testing.T) {
				wantPruned(t, fs.Crash(rand.New(rand.NewPCG(seed, uint64(k))), mode), c.g, policy, kept, logs)
			})
		}
		if !fs.IsCut() {
			if err != nil || k < c.least {
				t.Fatalf("a prune of %d events: %v", k, err)
			}
			break
		}
	}
}

// Whichever operation of a prune fails: the same, and the error is told.
func TestL13_FailureOfEveryOperationOfAPrune(t *testing.T) {
	for _, c := range pruneCases(t) {
		t.Run(c.name, c.failEverywhere)
	}
}

func (c *pruneCase) failEverywhere(t *testing.T) {
	policy := RetentionPolicy{Generations: 1}
	kept, logs := keptBy(t, c.base.Crash(nil, simfs.KeepAll), policy)
	sites := newSiteSweep()
	learned := c.base.Crash(nil, simfs.KeepAll)
	repo := openRepo(t, learned, "/repo")
	plan := mustPlan(t, repo, policy)
	sites.learn(learned)
	if _, err := Prune(t.Context(), repo, plan); err != nil {
		t.Fatal(err)
	}
	defer sites.end(t, 8)
	for k := 0; ; k++ {
		fs := c.base.Crash(nil, simfs.KeepAll)
		repo := openRepo(t, fs, "/repo")
		plan := mustPlan(t, repo, policy)
		fs.Trace(sites.swept.Note)
		armed := fs.Fail(simfs.Fault{Ops: everyOp, Skip: k, Late: k%2 == 1})
		_, err := Prune(t.Context(), repo, plan)
		fs.Trace(nil)
		armed.Disarm()
		if armed.Seen() <= k {
			break
		}
		if err != nil && !errors.Is(err, syscall.EIO) {
			t.Fatalf("operation %d: %v", k, err)
		}
		wantPruned(t, fs, c.g, policy, kept, logs)
	}
}

// A plan of which only log goes, made while a backup was damaged that is whole again when
// it is carried out. The policy would let that one go, but it was not to go when the plan
// was made: so it stays, and with it the log that it is rolled forward by, wherever the
// power goes. Where it is still damaged, that log goes, and no backup.
func TestL13_APlanOfOnlyLog(t *testing.T) {
	base, g := generations(t, 2, 1)
	first := mustList(t, openRepo(t, base, "/repo"))[0].ID
	blocks := objectName(first, kindBlocks, 1)
	useful := LogObject{LogRange: LogRange{100, 102}, timeline: timelineStart(g.info.Timeline)}.Name()
	damaged := func() (repo *Repository, plan PrunePlan, image []byte) {
		repo = openRepo(t, base.Crash(nil, simfs.KeepAll), "/repo")
		leaveLog(t, repo, g.info.Timeline, LogRange{80, 90}) // this one nobody needs
		image = objectsOf(t, repo)[blocks]
		remove(t, repo, blocks)
		plan = mustPlan(t, repo, RetentionPolicy{Generations: 1})
		if backups, logs, _ := plan.Removes(); backups != 0 || logs != 2 {
			t.Fatal(reasons(plan))
		}
		return repo, plan, image
	}
	want := func(repo *Repository, usefulStays bool) {
		t.Helper()
		there := slices.Contains(namesOf(t, repo), useful)
		if list := g.wantSound(t, repo); len(list) != 4 || there != usefulStays {
			t.Fatalf("%d backups, the log behind the first is there: %v", len(list), there)
		}
	}
	repo, plan, _ := damaged()
	if res, err := Prune(t.Context(), repo, plan); err != nil || len(res.Logs) != 2 || len(res.Backups) != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	want(repo, false)
	for k := 0; ; k++ {
		repo, plan, image := damaged()
		rewrite(t, repo, blocks, image)
		fs := repo.fs.(*simfs.FS).Crash(nil, simfs.KeepAll)
		repo = openRepo(t, fs, "/repo")
		fs.CutAfter(k)
		res, err := Prune(t.Context(), repo, plan)
		for seed := range uint64(3) {
			mode := []simfs.Mode{simfs.DropAll, simfs.KeepAll, simfs.Random}[seed]
			want(openRepo(t, fs.Crash(rand.New(rand.NewPCG(seed, uint64(k))), mode), "/repo"), true)
		}
		if !fs.IsCut() {
			if err != nil || len(res.Logs) != 1 || k < 4 {
				t.Fatalf("a prune of %d events: %+v, %v", k, res, err)
			}
			break
		}
	}
}

// The disk is full: that is when people prune.
func TestL13_PruneOfAFullRepository(t *testing.T) {
	fs, g := generations(t, 3, 2)
	policy := RetentionPolicy{Generations: 1}
	kept, logs := keptBy(t, fs.Crash(nil, simfs.KeepAll), policy)
	fs.SetCapacity(fs.UsedBytes())
	repo := openRepo(t, fs, "/repo")
	plan := mustPlan(t, repo, policy)
	for range 200 { // more names than there is room for where they go
		plan.Logs = append(plan.Logs, PlannedLog{Name: LogObject{LogRange: LogRange{1, 2}}.Name(), Remove: true})
	}
	res, err := Prune(t.Context(), repo, plan)
	if err != nil || len(res.Backups) != 6 {
		t.Fatalf("%+v, %v", res, err)
	}
	wantPruned(t, fs, g, policy, kept, logs)
}

// anyListed is one of the backups that are listed, none of which is to be damaged.
func anyListed(ctx context.Context, rng *rand.Rand, repo *Repository) (BackupID, error) {
	list, err := List(ctx, repo)
	if err != nil || len(list) == 0 {
		return BackupID{}, err
	}
	e := list[rng.IntN(len(list))]
	return e.ID, e.Damage
}

// Prunes, backups, verifies and reads in place, all at once, on a real file system: no
// reader meets a hole, nobody is refused for another reason than that what he
// wants is gone, or two prune.
func TestL13_EverybodyAtOnce(t *testing.T) {
	repo, g := realRepo(t), newGrowing(1)
	g.backup(t, repo, BackupOptions{Type: TypeFull})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	use := func(what string, may []error, do func() error) {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := do()
				if err != nil && !slices.ContainsFunc(may, func(e error) bool { return errors.Is(err, e) }) {
					t.Errorf("%s: %v", what, err)
					return
				}
			}
		})
	}
	stopped := []error{context.Canceled, ErrBackupNotFound}
	for i := range uint64(2) {
		rng := rand.New(rand.NewPCG(i, i))
		use("prune", append(stopped, ErrPruneRunning), func() error {
			plan, err := PlanPrune(ctx, repo, RetentionPolicy{Generations: rng.IntN(2) + 1})
			if err == nil {
				_, err = Prune(ctx, repo, plan)
			}
			return err
		})
	}
	for i := range uint64(2) {
		rng := rand.New(rand.NewPCG(i, 7))
		use("verify", stopped, func() error {
			id, err := anyListed(ctx, rng, repo)
			if err == nil {
				_, err = Verify(ctx, repo, id, VerifyOptions{NoRecord: rng.IntN(2) == 0})
			}
			return err
		})
	}
	use("newest", []error{context.Canceled}, func() error {
		img, err := OpenBackup(ctx, repo, BackupID{}, ImageOptions{CacheBytes: 1 << 20})
		if err != nil {
			return err
		}
		defer img.Close()
		return img.ReadBlock(fakeMeta, make([]byte, 4<<10))
	})
	backups := 20
	if testing.Short() {
		backups = 10
	}
	for i := range backups {
		g.change()
		g.backup(t, repo, BackupOptions{Type: []BackupType{TypeFull, TypeAuto, TypeAuto}[i%3]})
	}
	cancel()
	wg.Wait()
	g.wantSound(t, repo)
	if _, err := Prune(t.Context(), repo, mustPlan(t, repo, RetentionPolicy{Generations: 1})); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, repo, namesOf(t, repo)...)
}

// Two who prune: one does, the other is told. One who was killed is no obstacle.
func TestL13_OnePrunesAtATime(t *testing.T) {
	fs, g := generations(t, 3, 2)
	repo := openRepo(t, fs, "/repo")
	plan := mustPlan(t, repo, RetentionPolicy{Generations: 1})
	intent, err := repo.declare(t.Context(), "a test", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Prune(t.Context(), repo, plan); !errors.Is(err, ErrPruneRunning) {
		t.Fatal(err)
	}
	if len(g.wantSound(t, repo)) != 9 {
		t.Fatal("something went")
	}
	_ = intent // its process is killed
	repo = openRepo(t, fs.Kill(), "/repo")
	if res, err := Prune(t.Context(), repo, plan); err != nil || len(res.Backups) != 6 {
		t.Fatalf("%+v, %v", res, err)
	}
}

// A plan that has grown old removes nothing that is needed now.
func TestL13_AnOldPlan(t *testing.T) {
	fs, g := generations(t, 3, 2)
	repo := openRepo(t, fs, "/repo")
	plan := mustPlan(t, repo, RetentionPolicy{Generations: 1})
	newest := mustList(t, repo)[6:]
	remove(t, repo, objectName(newest[0].ID, kindBlocks, 1)) // the last generation is damaged since
	res, err := Prune(t.Context(), repo, plan)
	if err != nil || len(res.Backups) != 3 || len(res.Spared) != 3 || len(res.Logs) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	if list := g.wantSound(t, repo); len(list) != 6 || list[0].ID.Sequence != 4 {
		t.Fatalf("%+v", list)
	}
}

func TestL13_DeleteIsGuarded(t *testing.T) {
	fs, g := generations(t, 3, 2)
	repo := openRepo(t, fs, "/repo")
	list := mustList(t, repo)
	id := func(n int) BackupID { return list[n-1].ID }
	del := func(id BackupID, o DeleteOptions, want error, gone int) {
		t.Helper()
		res, err := Delete(t.Context(), repo, id, o)
		if !errors.Is(err, want) || (err == nil) != (want == nil) || len(res.Backups) != gone {
			t.Fatalf("%+v, %v", res, err)
		}
		g.wantSound(t, repo)
	}
	del(BackupID{77, 1}, DeleteOptions{}, ErrBackupNotFound, 0)
	del(id(3), DeleteOptions{}, ErrBackupKept, 0)
	del(id(1), DeleteOptions{Force: true}, ErrBackupNeeded, 0)
	if _, err := Delete(t.Context(), repo, id(1), DeleteOptions{Force: true}); !strings.Contains(err.Error(), id(2).String()+", "+id(3).String()) {
		t.Fatal(err)
	}
	del(id(1), DeleteOptions{Dependants: true}, ErrBackupKept, 0)
	lease, err := repo.lease(t.Context(), holdOf("a test", id(3), id(2), id(1)))
	if err != nil {
		t.Fatal(err)
	}
	del(id(3), DeleteOptions{Force: true}, ErrBackupInUse, 0)
	lease.Close()
	del(id(3), DeleteOptions{Force: true}, nil, 1)
	del(id(1), DeleteOptions{Force: true, Dependants: true}, nil, 2)
	// What the policy does not keep needs no force.
	del(id(4), DeleteOptions{Policy: RetentionPolicy{Generations: 1}, Dependants: true}, nil, 3)
	// What is damaged goes by its name.
	rewrite(t, repo, objectName(id(9), kindManifest, 0), []byte("not a manifest"))
	del(id(9), DeleteOptions{}, nil, 1)
	wantOnly(t, repo, namesOf(t, repo)...)
}

// S4-22: what is disabled goes by its name.
func TestL14_DisabledIsDeletedByName(t *testing.T) {
	repo, g := newRepo(t), newGrowing(1)
	first := g.backup(t, repo, BackupOptions{Type: TypeFull})
	g.change()
	second := g.backup(t, repo, BackupOptions{Type: TypeFull})
	g.fork(&first)
	g.change()
	g.backup(t, repo, BackupOptions{})
	if e := mustList(t, repo)[1]; e.State() != StateDisabled {
		t.Fatalf("%+v", e)
	}
	if _, err := Delete(t.Context(), repo, second.ID, DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if list := g.wantSound(t, repo); len(list) != 2 {
		t.Fatalf("%+v", list)
	}
}

// The newest state of a timeline stays known when its backup is deleted: the copy that
// lacks it is found out all the same, and the one that has it goes on (R18).
func TestR18_HeadOutlivesItsBackup(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	repo, one := newRepo(t), newCopy(rng, 1)
	mustBackup(t, one, repo, BackupOptions{Type: TypeFull})
	other := one.clone()
	one.commit(rng)
	newest := mustBackup(t, one, repo, BackupOptions{Type: TypeFull})
	if _, err := Delete(t.Context(), repo, newest.ID, DeleteOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	other.commit(rng)
	if _, err := Backup(t.Context(), other, repo, BackupOptions{Type: TypeFull}); !errors.Is(err, mvcc.ErrHistory) {
		t.Fatal(err)
	}
	for range 5 {
		one.commit(rng)
	}
	mustBackup(t, one, repo, BackupOptions{Type: TypeFull})
	if list, err := Timelines(t.Context(), repo); err != nil || len(list) != 1 || !list[0].Present {
		t.Fatalf("%+v, %v", list, err)
	}
}

// standbyOf is a standby that has followed c up to now: its backups have no checksum, and of
// its history it believes what it is told.
func standbyOf(c *copyOf) Source {
	s := &fakeSource{info: c.info, images: c.images, order: c.order}
	s.info.RecordSum = 0
	return s
}

// A standby's backups push the last one out that has a checksum: the copy that lacks what
// that was of is found out all the same, and the one that has it goes on (R18). A damaged
// backup that stays is older than what its database remembers. On a disk that is full there
// is no room to write down what goes: so it stays, and goes when there is.
func TestR18_HeadOutlivesAPrune(t *testing.T) {
	for _, c := range []struct{ olderStays, full bool }{{false, false}, {true, false}, {false, true}} {
		rng := rand.New(rand.NewPCG(1, 1))
		repo, one := newRepo(t), newCopy(rng, 1)
		full := BackupOptions{Type: TypeFull}
		old := mustBackup(t, one, repo, full)
		for range 5 {
			one.commit(rng)
		}
		other := one.clone()
		one.commit(rng)
		newest := mustBackup(t, one, repo, full)
		if err := one.CheckHead(t.Context(), repo.id, mvcc.Head{LSN: newest.EndLSN, Sum: newest.RecordSum}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			one.commit(rng)
		}
		mustBackup(t, standbyOf(one), repo, full)
		if c.olderStays {
			cut(t, repo, objectName(old.ID, kindBlocks, 1))
		}
		disk := repo.fs.(*simfs.FS)
		if c.full {
			disk.SetCapacity(disk.UsedBytes())
		}
		res, err := Prune(t.Context(), repo, mustPlan(t, repo, RetentionPolicy{Generations: 1}))
		if err != nil || slices.Contains(res.Backups, newest.ID) == c.full || slices.Contains(res.Backups, old.ID) == c.olderStays {
			t.Fatalf("%+v, %v", res, err)
		}
		disk.SetCapacity(1 << 40)
		if c.full {
			if len(res.Spared) != 1 || res.Spared[0].ID != newest.ID || res.Spared[0].Remove {
				t.Fatalf("%+v", res.Spared)
			}
			if res, err = Prune(t.Context(), repo, mustPlan(t, repo, RetentionPolicy{Generations: 1})); err != nil || len(res.Backups) != 1 {
				t.Fatalf("%+v, %v", res, err)
			}
		}
		for range 10 {
			other.commit(rng)
		}
		if _, err := Backup(t.Context(), other, repo, full); !errors.Is(err, mvcc.ErrHistory) {
			t.Fatalf("a copy: %v", err)
		}
		if _, err := Backup(t.Context(), one, repo, full); err != nil {
			t.Fatalf("the one whose it is: %v", err)
		}
		if list, err := Timelines(t.Context(), repo); err != nil || len(list) != 1 || !list[0].Present {
			t.Fatalf("%+v, %v", list, err)
		}
	}
}

// The same where what had the checksum was archived log. Before it was kept, the copy pushed,
// its archive began behind the standby's backup, and the two made a state that never was.
func TestR18_HeadOutlivesItsLog(t *testing.T) {
	a := newArchived(t, 8)
	for range 10 {
		a.commit(60, 0, 0)
	}
	if err := a.repo.attach(t.Context(), mvcc.BackupInfo{Database: a.store.Database(), Timeline: a.store.Timeline()}); err != nil {
		t.Fatal(err)
	}
	a.full()
	c := a.copied()
	a.churn(200)
	a.archive()
	standby := a.standby("/d/standby")
	mustBackup(t, NewSource(standby), a.repo, BackupOptions{Type: TypeFull})
	standby.Close()
	res, err := Prune(t.Context(), a.repo, mustPlan(t, a.repo, RetentionPolicy{Generations: 1}))
	if err != nil || len(res.Backups) != 1 || len(res.Logs) != 1 || len(mustLogs(t, a.repo)) != 0 {
		t.Fatalf("%+v, %v", res, err)
	}
	for c.store.Status().NewestLSN <= a.from+3 {
		c.churn(10)
	}
	if _, err := Backup(t.Context(), NewSource(c.store), a.repo, rebaseOptions); !errors.Is(err, mvcc.ErrHistory) {
		t.Errorf("a backup of the copy: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it would archive what there is, and end
	if err := Archive(ctx, NewSource(c.store), a.repo, ArchiveOptions{}); !errors.Is(err, mvcc.ErrHistory) {
		t.Errorf("an archive of the copy: %v, %v", err, mustLogs(t, a.repo))
	}
	a.churn(10)
	mustBackup(t, NewSource(a.store), a.repo, rebaseOptions)
}

// Everything that may happen to a repository, in random order: what is listed as sound
// is what it was when it was made, to the byte; what a policy keeps is there; and
// what goes leaves nothing behind (L13, L14).
func TestModel_L13_L14_AnyOrder(t *testing.T) {
	seed := chance.Seed(t)
	worlds := 6
	if testing.Short() {
		worlds = 2
	}
	for n := range worlds {
		rng := rand.New(rand.NewPCG(seed, uint64(n)))
		repo, g := newRepo(t), newGrowing(seed)
		for range 50 {
			anything(t, rng, repo, g)
			g.wantSound(t, repo)
		}
		names := append(namesOf(t, repo), damagedNames(t, repo)...)
		slices.Sort(names)
		wantOnly(t, repo, slices.Compact(names)...)
	}
}

// damagedNames are the objects of backups whose manifests cannot be decoded.
func damagedNames(t *testing.T, repo *Repository) (names []string) {
	t.Helper()
	c, err := repo.catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range mustList(t, repo) {
		if e.Manifest.ID.IsZero() {
			names = append(names, c.objects[e.ID]...)
		}
	}
	return names
}

func anything(t *testing.T, rng *rand.Rand, repo *Repository, g *growing) {
	t.Helper()
	list := mustList(t, repo)
	one := func() *Entry { return &list[rng.IntN(len(list))] }
	switch n := rng.IntN(21); {
	case n == 20:
		damageRecord(t, rng, repo)
	case n < 9 || len(list) == 0:
		g.change()
		g.backup(t, repo, BackupOptions{Type: []BackupType{TypeFull, TypeAuto}[rng.IntN(2)], ChainMax: 4})
	case n < 13:
		pruneWorld(t, rng, repo, g)
	case n < 15: // restored, and goes on from there
		if e := one(); e.Damage == nil {
			g.fork(&e.Manifest)
			g.change()
		}
	case n < 16:
		id := one().ID
		cut(t, repo, []string{objectName(id, kindManifest, 0), objectName(id, kindBlocks, 1)}[rng.IntN(2)])
	case n < 18:
		e := one()
		_, err := Delete(t.Context(), repo, e.ID, DeleteOptions{Force: rng.IntN(2) == 0, Dependants: rng.IntN(2) == 0})
		if err != nil && !errors.Is(err, ErrBackupKept) && !errors.Is(err, ErrBackupNeeded) {
			t.Fatal(err)
		}
	default:
		e := one()
		if _, err := Verify(t.Context(), repo, e.ID, VerifyOptions{}); (err != nil) != (e.Damage != nil) {
			t.Fatalf("%v is %s, verify: %v", e.ID, e.State(), err)
		}
	}
}

// damageRecord damages the record of a timeline, of the newest one or of that before.
func damageRecord(t *testing.T, rng *rand.Rand, repo *Repository) {
	t.Helper()
	c, err := repo.catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.timelines); n > 0 {
		cut(t, repo, timelineName(c.timelines[n-1-rng.IntN(min(n, 2))]))
	}
}

// cut takes the last byte of an object, if it is there.
func cut(t *testing.T, repo *Repository, name string) {
	t.Helper()
	data, err := readSmall(t.Context(), repo.objects, name, 1<<20)
	if err == nil && len(data) > 0 {
		rewrite(t, repo, name, data[:len(data)-1])
	}
}

// pruneWorld prunes, and proves that the plan was kept to.
func pruneWorld(t *testing.T, rng *rand.Rand, repo *Repository, g *growing) {
	t.Helper()
	plan := mustPlan(t, repo, RetentionPolicy{Generations: rng.IntN(3) + 1, KeepDisabled: rng.IntN(3) == 0})
	if _, err := Prune(t.Context(), repo, plan); err != nil {
		t.Fatal(err)
	}
	left := map[BackupID]State{}
	for _, e := range mustList(t, repo) {
		left[e.ID] = e.State()
	}
	for _, b := range plan.Backups {
		state, there := left[b.ID]
		if there == b.Remove || there && state != b.State {
			t.Fatalf("%v is there: %v, and %s\n%s", b.ID, there, state, reasons(plan))
		}
	}
	if again := mustPlan(t, repo, plan.Policy); again.removesAny() {
		t.Fatalf("a second prune removes\n%s\nafter\n%s", reasons(again), reasons(plan))
	}
}

func (p *PrunePlan) removesAny() bool {
	backups, logs, _ := p.Removes()
	return backups+logs > 0
}
