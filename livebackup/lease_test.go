package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// growing is a database of a few blocks that changes, and hands out increments.
type growing struct {
	*fakeSource
	rng    *rand.Rand
	states map[BackupID]map[block.ID][]byte // what each backup is of
}

func newGrowing(seed uint64) *growing {
	g := &growing{newFake(seed, 5, 4<<10), rand.New(rand.NewPCG(seed, 2)), map[BackupID]map[block.ID][]byte{}}
	g.info.RecordSum = 1
	return g
}

// change commits a change of some blocks.
func (g *growing) change() {
	g.info.LSN++
	g.info.Time = g.info.Time.Add(time.Hour)
	g.images = maps.Clone(g.images)
	for _, id := range g.order {
		if id != fakeBitmap && g.rng.IntN(2) == 0 {
			g.set(id)
		}
	}
}

func (g *growing) set(id block.ID) {
	image := make([]byte, g.info.BlockSize)
	fmt.Fprintf(payload{image}, "block %v at %v", id, g.info.LSN)
	block.Seal(image, block.Trailer{Type: block.TypeLeaf, ID: id, LSN: g.info.LSN}, block.SeedOf(g.info.Database))
	g.images[id] = image
}

// Open freezes the state; with a base only what is newer is handed out.
func (g *growing) Open(_ context.Context, o SessionOptions) (Session, error) {
	frozen := &fakeSource{info: g.info, images: g.images, onNext: g.onNext}
	frozen.info.Base = o.Base
	for _, id := range g.order {
		t, _ := block.Verify(g.images[id], id, block.SeedOf(g.info.Database))
		if o.Base == 0 || t.LSN > o.Base {
			frozen.order = append(frozen.order, id)
		}
	}
	frozen.open++
	return &fakeSession{s: frozen, left: frozen.order}, nil
}

// backup makes one and keeps its state.
func (g *growing) backup(t *testing.T, repo *Repository, o BackupOptions) Manifest {
	t.Helper()
	m := mustBackup(t, g, repo, o)
	g.states[m.ID] = g.images
	return m
}

// fork makes g the database that backup m restores to.
func (g *growing) fork(m *Manifest) {
	g.info.History = append([]block.Fork{{Timeline: m.Timeline, LSN: m.EndLSN}}, m.History...)
	g.info.Timeline = block.NewTimelineID()
	g.info.LSN, g.images = m.EndLSN, g.states[m.ID]
}

// wantSound proves that every backup that is listed as sound is whole and what it was.
func (g *growing) wantSound(t *testing.T, repo *Repository) []Entry {
	t.Helper()
	list := mustList(t, repo)
	for _, e := range list {
		if e.Damage == nil && e.Unreadable == nil {
			sameImages(t, contents(t, repo, e.ID), g.states[e.ID])
		}
	}
	return list
}

// steps runs parties one operation at a time, in an order that it chooses: each
// order once, from first to last.
type steps struct {
	choices []int // what was chosen, of how many, at each point where there was a choice
	widths  []int
	at      int
	orders  int
}

// next is the choice between n.
func (s *steps) next(n int) int {
	if s.at == len(s.choices) {
		s.choices, s.widths = append(s.choices, 0), append(s.widths, n)
	}
	c := s.choices[s.at]
	s.at++
	return c
}

// again goes to the next order, if there is one.
func (s *steps) again() bool {
	s.orders++
	s.at = 0
	for i := len(s.choices) - 1; i >= 0; i-- {
		if s.choices[i]++; s.choices[i] < s.widths[i] {
			s.choices, s.widths = s.choices[:i+1], s.widths[:i+1]
			return true
		}
	}
	return false
}

// gate holds back the operations of one party that tell, until it is let through.
type gate struct {
	Objects
	name  string
	tells func(op, name string) bool
	ask   chan string   // what is about to happen
	pass  chan struct{} // go on
}

func (g *gate) stop(op, name string) {
	if g.tells(op, name) {
		g.ask <- op + " " + name
		<-g.pass
	}
}

func (g *gate) Open(ctx context.Context, name string) (ObjectReader, error) {
	g.stop("open", name)
	return g.Objects.Open(ctx, name)
}

func (g *gate) List(ctx context.Context) ([]ObjectInfo, error) {
	g.stop("list", "")
	return g.Objects.List(ctx)
}

func (g *gate) Delete(ctx context.Context, names ...string) error {
	g.stop("delete", names[0])
	return g.Objects.Delete(ctx, names...)
}

func (g *gate) Claim(ctx context.Context, name string, note []byte) (io.Closer, error) {
	g.stop("claim", name)
	return g.Objects.Claim(ctx, name, note)
}

// party is somebody who does something with a repository.
type party struct {
	tells func(op, name string) bool
	do    func(repo *Repository)
}

// play runs two parties to their ends, by the order of s. Everybody waits, for his
// turn or for the clock of the bubble, when a choice is made.
func (s *steps) play(repo *Repository, parties [2]party) (trace []string) {
	var gates [2]*gate
	var done [2]bool
	for i, p := range parties {
		gates[i] = &gate{Objects: repo.objects, name: string(rune('R' + i)), tells: p.tells, ask: make(chan string), pass: make(chan struct{})}
		own := *repo
		own.objects = gates[i]
		go func() {
			p.do(&own)
			close(gates[i].ask)
		}()
	}
	var waiting [2]string
	for !done[0] || !done[1] {
		synctest.Wait()
		var ready []int
		for i := range gates {
			if waiting[i] == "" && !done[i] {
				select {
				case what, open := <-gates[i].ask:
					waiting[i], done[i] = what, !open
				default: // it waits for the clock
				}
			}
			if waiting[i] != "" {
				ready = append(ready, i)
			}
		}
		if len(ready) == 0 {
			time.Sleep(claimPoll)
			continue
		}
		i := ready[0]
		if len(ready) > 1 {
			i = ready[s.next(2)]
		}
		trace = append(trace, gates[i].name+": "+waiting[i])
		waiting[i] = ""
		gates[i].pass <- struct{}{}
	}
	return trace
}

// readerTells is what of a reader matters to others.
func readerTells(target BackupID) func(op, name string) bool {
	leased := false
	return func(op, name string) bool {
		_, lease := parseLeaseName(name)
		leased = leased || op == "claim" && lease
		return lease || op == "open" && leased && (name == pruneName || name == objectName(target, kindManifest, 0) || strings.Contains(name, string(kindIndex)))
	}
}

// prunerTells is what of one who prunes matters to others.
func prunerTells(target BackupID) func(op, name string) bool {
	declared, looked := false, 0
	return func(op, name string) bool {
		_, lease := parseLeaseName(name)
		switch {
		case name == pruneName && op == "claim":
			declared = true
			return true
		case !declared:
			return false
		case op == "list":
			looked++
			return looked <= 2
		}
		return lease && op == "claim" || op == "delete" && (name == objectName(target, kindManifest, 0) || strings.Contains(name, string(kindBlocks)))
	}
}

// L13, every interleaving of one who reads a backup and one who prunes it: either it
// is read to its end, or it was gone before anything of it was read; and what was
// read when the other looked stays.
func TestL13_ReaderBesidePrune_EveryOrder(t *testing.T) {
	read := func(repo *Repository, id BackupID) error {
		_, err := Verify(context.Background(), repo, id, VerifyOptions{NoRecord: true})
		return err
	}
	open := func(repo *Repository, id BackupID) error {
		img, err := OpenBackup(context.Background(), repo, id, ImageOptions{CacheBytes: 1 << 20})
		if err != nil {
			return err
		}
		defer img.Close()
		return img.ReadBlock(fakeMeta, make([]byte, 4<<10))
	}
	for name, use := range map[string]func(*Repository, BackupID) error{"verify": read, "in place": open} {
		t.Run(name, func(t *testing.T) {
			kept, gone := 0, 0
			s := &steps{}
			for more := true; more; more = s.again() {
				synctest.Test(t, func(t *testing.T) {
					if readBesidePrune(t, s, use) {
						kept++
					} else {
						gone++
					}
				})
			}
			t.Logf("%d orders: read in %d, gone in %d", s.orders, kept, gone)
			if kept == 0 || gone == 0 {
				t.Fatal("one of the two never happened")
			}
		})
	}
}

// readBesidePrune plays one order and reports whether the backup was read.
func readBesidePrune(t *testing.T, s *steps, use func(*Repository, BackupID) error) (wasRead bool) {
	repo, g := newRepo(t), newGrowing(1)
	old := g.backup(t, repo, BackupOptions{Type: TypeFull}).ID
	g.change()
	g.backup(t, repo, BackupOptions{Type: TypeFull})
	plan, err := PlanPrune(t.Context(), repo, RetentionPolicy{Generations: 1})
	if err != nil {
		t.Fatal(err)
	}
	var readErr, pruneErr error
	var res PruneResult
	trace := s.play(repo, [2]party{
		{readerTells(old), func(repo *Repository) { readErr = use(repo, old) }},
		{prunerTells(old), func(repo *Repository) { res, pruneErr = Prune(context.Background(), repo, plan) }},
	})
	fail := func(format string, args ...any) {
		t.Fatalf("%s\nin the order\n%s", fmt.Sprintf(format, args...), strings.Join(trace, "\n"))
	}
	list := g.wantSound(t, repo)
	stays := len(list) == 2
	switch {
	case pruneErr != nil:
		fail("prune: %v", pruneErr)
	case readErr != nil && !errors.Is(readErr, ErrBackupNotFound):
		fail("read: %v", readErr)
	case readErr != nil && stays:
		fail("refused, and it is there: %v", readErr)
	case stays != (len(res.Spared) == 1) || stays == slices.Contains(res.Backups, old):
		fail("stays: %v; prune: %+v", stays, res)
	}
	wantOnly(t, repo, namesOf(t, repo)...)
	return readErr == nil
}

// namesOf is what a repository has to hold for what it lists, and no more.
func namesOf(t *testing.T, repo *Repository) []string {
	t.Helper()
	names := []string{headerName, bindingName, pruneName}
	c, err := repo.catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, number := range c.timelines {
		names = append(names, timelineName(number))
	}
	for _, l := range c.logs {
		names = append(names, l.Name())
	}
	for _, e := range mustList(t, repo) {
		names = append(names, objectName(e.ID, kindManifest, 0))
		for _, o := range e.Manifest.Objects {
			names = append(names, objectName(e.ID, kind(o.Kind), o.Number))
		}
		for n := range c.proofs[e.ID] {
			names = append(names, objectName(e.ID, kindProof, n+1))
		}
	}
	return names
}

// An incremental beside a prune of its base, in every order: it is made, and its base
// stays, or it is not, because the base was gone.
func TestL13_IncrementalBesidePrune_EveryOrder(t *testing.T) {
	made, gone := 0, 0
	s := &steps{}
	for more := true; more; more = s.again() {
		synctest.Test(t, func(t *testing.T) {
			repo, g := newRepo(t), newGrowing(1)
			old := g.backup(t, repo, BackupOptions{Type: TypeFull}).ID
			g.change()
			g.backup(t, repo, BackupOptions{Type: TypeFull})
			g.change()
			plan, err := PlanPrune(t.Context(), repo, RetentionPolicy{Generations: 1})
			if err != nil {
				t.Fatal(err)
			}
			var backupErr, pruneErr error
			trace := s.play(repo, [2]party{
				{readerTells(old), func(repo *Repository) {
					var res Result
					res, backupErr = Backup(context.Background(), g, repo, BackupOptions{Type: TypeIncremental, Base: old})
					g.states[res.Manifest.ID] = g.images
				}},
				{prunerTells(old), func(repo *Repository) { _, pruneErr = Prune(context.Background(), repo, plan) }},
			})
			list := g.wantSound(t, repo)
			want := 3
			if made++; backupErr != nil {
				made, gone, want = made-1, gone+1, 1
			}
			if pruneErr != nil || backupErr != nil && !errors.Is(backupErr, ErrNoBase) || len(list) != want {
				t.Fatalf("%d backups; backup: %v; prune: %v\nin the order\n%s", len(list), backupErr, pruneErr, strings.Join(trace, "\n"))
			}
			for _, e := range list {
				if e.State() != StateComplete {
					t.Fatalf("%v is %s", e.ID, e.State())
				}
			}
		})
	}
	t.Logf("%d orders: made in %d, not in %d", s.orders, made, gone)
	if made == 0 || gone == 0 {
		t.Fatal("one of the two never happened")
	}
}

// What the dead say counts for nothing, and what does not decode for everything.
func TestL13_LeasesOfTheDeadAndTheUnread(t *testing.T) {
	fs := simfs.New()
	repo := openRepo(t, fs, "/repo")
	id := mustBackup(t, newFake(1, 3, 4<<10), repo, BackupOptions{}).ID
	lease, err := repo.lease(t.Context(), holdOf("a test", id))
	if err != nil {
		t.Fatal(err)
	}
	if h, err := repo.leases(t.Context()); err != nil || len(h.by) != 1 || h.all != "" {
		t.Fatalf("%+v, %v", h, err)
	}
	claim, err := repo.objects.Claim(t.Context(), leaseName(7), []byte("half a "))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		if h, err := repo.leases(t.Context()); err != nil || len(h.by) != 1 || h.all == "" {
			t.Fatalf("%+v, %v", h, err)
		}
	})
	if err := errors.Join(lease.Close(), claim.Close()); err != nil {
		t.Fatal(err)
	}
	if h, err := repo.leases(t.Context()); err != nil || len(h.by) != 0 || h.all != "" {
		t.Fatalf("%+v, %v", h, err)
	}
	wantOnly(t, repo, namesOf(t, repo)...)
	// Killed while it reads and while it prunes.
	if _, err := repo.lease(t.Context(), holdOf("a test", id)); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.declare(t.Context(), "a test", []BackupID{id}, nil); err != nil {
		t.Fatal(err)
	}
	repo = openRepo(t, fs.Kill(), "/repo")
	if n, err := Sweep(t.Context(), repo); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	if _, err := Verify(t.Context(), repo, id, VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, repo, namesOf(t, repo)...)
}

// A repository that cannot be written, or is full, is read without a lease.
func TestL13_ReadingNeedsNoRoom(t *testing.T) {
	for _, ops := range []simfs.Op{simfs.OpCreate, simfs.OpWrite} {
		fs := simfs.New()
		repo := openRepo(t, fs, "/repo")
		id := mustBackup(t, newFake(1, 30, 4<<10), repo, BackupOptions{}).ID
		fs.SetCapacity(fs.UsedBytes())
		if ops == simfs.OpCreate {
			fs.Fail(simfs.Fault{Ops: simfs.Events, File: "/repo/*", Err: syscall.EROFS, Sticky: true})
		}
		if _, err := Verify(t.Context(), repo, id, VerifyOptions{NoRecord: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// A disk is full when an incremental wants to say which backup it adds to, and is not any
// more when somebody has deleted that one: it is not made.
func TestL13_NoBaseWithoutALease(t *testing.T) {
	repo, g := newRepo(t), newGrowing(1)
	old := g.backup(t, repo, BackupOptions{Type: TypeFull}).ID
	g.change()
	g.backup(t, repo, BackupOptions{Type: TypeFull})
	g.change()
	full := hook(repo, func(op string, names ...string) error {
		if _, lease := parseLeaseName(names[0]); lease && op == "claim" {
			return syscall.ENOSPC
		}
		if op == "claim" && kindOf(names[0]) == kindRun {
			_, err := Delete(t.Context(), repo, old, DeleteOptions{Force: true})
			return err
		}
		return nil
	})
	_, err := Backup(t.Context(), g, full, BackupOptions{Type: TypeIncremental, Base: old})
	if !errors.Is(err, ErrRepositoryFull) {
		t.Fatal(err)
	}
	for _, e := range g.wantSound(t, repo) {
		if e.State() != StateComplete {
			t.Fatalf("%v is %s: %v", e.ID, e.State(), e.Damage)
		}
	}
}

// whenPublished calls do when a backup has been published beside one that was there, and
// its run looks at the repository again.
type whenPublished struct {
	Objects
	do func()
}

func (w *whenPublished) List(ctx context.Context) ([]ObjectInfo, error) {
	list, err := w.Objects.List(ctx)
	n := 0
	for _, o := range list {
		if kindOf(o.Name) == kindManifest {
			n++
		}
	}
	if do := w.do; n == 2 && do != nil {
		w.do = nil
		do()
		return w.Objects.List(ctx)
	}
	return list, err
}

// A backup is published, and taken back, since its run was cancelled before it had looked
// at the repository again. In between others saw it: none has added to it, and none has
// removed another for its sake.
func TestL13_NobodyRestsOnWhatIsTakenBack(t *testing.T) {
	for name, other := range map[string]func(g *growing, repo *Repository, id BackupID){
		"incremental": func(g *growing, repo *Repository, id BackupID) {
			g.change()
			if m := g.backup(t, repo, BackupOptions{Type: TypeIncremental}); m.Base == id {
				t.Error("it adds to it")
			}
			if _, err := Backup(t.Context(), g, repo, BackupOptions{Base: id}); !errors.Is(err, ErrNoBase) {
				t.Error(err)
			}
		},
		"prune": func(g *growing, repo *Repository, _ BackupID) {
			if plan := mustPlan(t, repo, RetentionPolicy{Generations: 1}); plan.removesAny() {
				t.Error(reasons(plan))
			}
		},
		"delete": func(g *growing, repo *Repository, id BackupID) {
			if _, err := Delete(t.Context(), repo, id, DeleteOptions{Force: true}); !errors.Is(err, ErrBackupInUse) {
				t.Error(err)
			}
		},
	} {
		repo, g := newRepo(t), newGrowing(1)
		first := g.backup(t, repo, BackupOptions{Type: TypeFull}).ID
		g.change()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		own := *repo
		own.objects = &whenPublished{repo.objects, func() {
			other(g, repo, mustList(t, repo)[1].ID)
			cancel()
		}}
		if _, err := Backup(ctx, g, &own, BackupOptions{Type: TypeFull}); !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: %v", name, err)
		}
		list := g.wantSound(t, repo)
		if len(list) == 0 || list[0].ID != first {
			t.Fatalf("%s: %v", name, list)
		}
		for _, e := range list {
			if e.State() != StateComplete {
				t.Fatalf("%s: %v is %s: %v", name, e.ID, e.State(), e.Damage)
			}
		}
	}
}
