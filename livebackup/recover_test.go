package livebackup

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

var histories = flag.Int("histories", 0, "how many histories are restored at every commit; 0: a few")

// archived is a history whose log is archived as it goes.
type archived struct {
	*history
	repo *Repository
	tail *mvcc.LogTail
	from block.LSN // of the next object
	made []Manifest
}

func newArchived(t *testing.T, seed uint64) *archived {
	fs := simfs.New()
	if err := makeDir(fs, "/d"); err != nil {
		t.Fatal(err)
	}
	h := newHistory(t, rand.New(rand.NewPCG(seed, 3)), fs, "/d/db")
	a := &archived{history: h, repo: openRepo(t, fs, "/d/repo")}
	a.attach(0)
	return a
}

// attach follows the log of the store from after on.
func (a *archived) attach(after block.LSN) {
	a.t.Helper()
	var err error
	if a.tail, err = a.store.OpenLogTail("archive", after); err != nil {
		a.t.Fatal(err)
	}
	a.from = after
}

// change commits and keeps the model of each commit. The database stays small.
func (a *archived) change(n int) {
	for range n {
		free := 3
		if len(a.model) > 50 {
			free = 8
		}
		lsn := a.commit(a.rng.IntN(5), a.rng.IntN(6), a.rng.IntN(free))
		a.kept[lsn] = maps.Clone(a.model)
	}
}

// archive makes an object of what was committed since the last one.
func (a *archived) archive() LogObject {
	a.t.Helper()
	b, err := newLogBuilder(logIdentity{database: a.store.Database(), timeline: a.store.Timeline()}, a.from, CompressionFastest)
	if err != nil {
		a.t.Fatal(err)
	}
	defer b.close()
	to, err := a.tail.Read(1<<30, b.add)
	if err != nil {
		a.t.Fatal(err)
	}
	sum, err := a.tail.Sum(to)
	if err != nil {
		a.t.Fatal(err)
	}
	o, _, err := writeBatch(a.t, a.repo, b.cut(), 0, sum)
	if err != nil {
		a.t.Fatal(err)
	}
	a.from = to
	return o
}

func (a *archived) full()        { a.made = append(a.made, a.backup(a.repo, smallGroups(TypeFull))) }
func (a *archived) incremental() { a.made = append(a.made, a.backup(a.repo, smallGroups(TypeAuto))) }

// wantAt restores a target and compares.
func (a *archived) wantAt(t RestoreTarget, want block.LSN, o RestoreOptions) RestoreResult {
	a.t.Helper()
	res, dir := a.restore(t, want, o)
	wantDatabase(a.t, a.fs, dir, a.kept[want])
	if err := removeTree(a.fs, dir); err != nil {
		a.t.Fatal(err)
	}
	return res
}

// wantCommit is wantAt of a commit, with nothing done that the answer does not need.
func (a *archived) wantCommit(lsn block.LSN) {
	a.t.Helper()
	_, dir := a.restore(RestoreTarget{LSN: lsn}, lsn, RestoreOptions{})
	store, err := mvcc.Open(dir, mvcc.Options{FS: a.fs, MaxRAM: 2 << 20, ReadOnly: true})
	if err != nil {
		a.t.Fatal(err)
	}
	a.wantChanges(store, nil, a.kept[lsn])
	if err := errors.Join(store.Close(), removeTree(a.fs, dir)); err != nil {
		a.t.Fatal(err)
	}
}

// restore brings a target to a directory of its own.
func (a *archived) restore(t RestoreTarget, want block.LSN, o RestoreOptions) (RestoreResult, string) {
	a.t.Helper()
	o.FS, o.MaxRAM = a.fs, 2<<20
	a.n++
	dir := fmt.Sprintf("/d/restored%d", a.n)
	res, err := Restore(a.t.Context(), a.repo, t, dir, o)
	if err != nil {
		a.t.Fatalf("%+v: %v", t, err)
	}
	if res.LSN != want {
		a.t.Fatalf("%+v: LSN %v, not %v", t, res.LSN, want)
	}
	return res, dir
}

// Every commit of random histories can be restored, and is what it was, byte for byte: from
// fulls, incrementals and log, whichever is cheapest. Each is restored on its own, by the
// way that the planner finds, and read block by block; and a standby that is rolled
// forward shows each.
func TestRecover_EveryCommit(t *testing.T) {
	rounds, commits := 30, 200
	if *histories > 0 {
		rounds = *histories
	} else if testing.Short() {
		rounds, commits = 2, 60
	}
	// Stores that live for a moment are garbage at once, of a small heap: it would be
	// collected after every other restore.
	percent := debug.SetGCPercent(1000)
	t.Cleanup(func() { debug.SetGCPercent(percent) })
	for range rounds {
		seed := chance.Seed(t)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			a := newArchived(t, seed)
			a.grow(commits)
			first, end := a.made[0].LSN, a.from
			a.wantEveryCommit(first, end)
			for lsn := first; lsn <= end; lsn++ {
				a.wantCommit(lsn)
			}
			a.wantEnds(first, end)
		})
	}
}

// grow makes a history of that many commits, with backups and archived log, up to its end.
func (a *archived) grow(commits int) {
	a.commit(2, 0, 0) // one that has an LSN
	a.change(3)
	a.full()
	for len(a.kept) < commits {
		switch a.change(1 + a.rng.IntN(4)); a.rng.IntN(18) {
		case 0:
			a.incremental()
		case 1:
			a.full()
		case 2, 3, 4, 5, 6:
			a.archive()
		case 7, 8:
			merged(a.t, a.repo, mergeRule{bytes: 32 << 10, objects: 2 + a.rng.IntN(3)})
		}
	}
	a.change(1)
	a.archive()
}

// wantEveryCommit rolls a standby forward from the first backup and compares it at every
// commit: what the commit changed, and now and then all that there is.
func (a *archived) wantEveryCommit(first, end block.LSN) {
	a.t.Helper()
	dir, ctx := "/d/rolling", a.t.Context()
	if _, err := Restore(ctx, a.repo, RestoreTarget{Backup: a.made[0].ID}, dir, RestoreOptions{FS: a.fs, Standby: true, MaxRAM: 16 << 20}); err != nil {
		a.t.Fatal(err)
	}
	store, err := mvcc.Open(dir, mvcc.Options{FS: a.fs, MaxRAM: 16 << 20, LogBytesMax: mvcc.LogBytesMin, Temp: []mvcc.TempDir{}})
	if err != nil {
		a.t.Fatal(err)
	}
	defer store.Close()
	logs, err := a.repo.logs(ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	at := first
	err = a.repo.readLog(ctx, logs, lineageOf(store.Timeline(), store.History()), LogRange{first, end}, 0, func(r mvcc.LogRecord) error {
		if err := store.Apply(r); err != nil || !r.Last {
			return err
		}
		was := a.kept[at]
		if at++; r.LSN != at {
			a.t.Fatalf("commit %v behind %v", r.LSN, at-1)
		}
		if at == end || a.rng.IntN(40) == 0 {
			was = nil
		}
		a.wantChanges(store, was, a.kept[at])
		return nil
	})
	if err != nil || at != end {
		a.t.Fatalf("rolled forward to %v of %v: %v", at, end, err)
	}
	wantStore(a.t, store, a.kept[end])
}

// wantChanges compares the blocks in which two states of the model differ.
func (a *archived) wantChanges(store *mvcc.Store, was, now map[block.ID]string) {
	a.t.Helper()
	tx, err := store.BeginRead()
	if err != nil {
		a.t.Fatal(err)
	}
	defer tx.Close()
	for id, text := range now {
		if was[id] == text {
			continue
		}
		b, err := tx.Block(id)
		if err != nil {
			a.t.Fatalf("LSN %v: %v", tx.LSN(), err)
		}
		p := b.Payload()
		if string(p[:len(text)]) != text || len(bytes.Trim(p[len(text):], "\x00")) > 0 {
			a.t.Fatalf("block %v at LSN %v is not %q", id, tx.LSN(), text)
		}
		b.Release()
	}
	if n := tx.BlocksInUse(); n != uint64(len(now)) {
		a.t.Fatalf("LSN %v: %d blocks in use, want %d", tx.LSN(), n, len(now))
	}
}

// wantEnds restores what is at the ends of the history, and asks for what is beyond.
func (a *archived) wantEnds(first, end block.LSN) {
	a.t.Helper()
	a.wantAt(RestoreTarget{LSN: end, Exclusive: true}, end-1, RestoreOptions{})
	a.wantAt(RestoreTarget{}, end, RestoreOptions{})
	a.wantAt(RestoreTarget{Recover: RecoverNone}, a.made[len(a.made)-1].LSN, RestoreOptions{})
	a.wantAt(RestoreTarget{Backup: a.made[0].ID, Recover: RecoverAll}, end, RestoreOptions{})
	for _, lsn := range []block.LSN{first - 1, end + 1} {
		_, err := PlanRestore(a.t.Context(), a.repo, RestoreTarget{LSN: lsn})
		var far *UnreachableError
		if lsn == 0 {
			continue // no target at all
		}
		if !errors.As(err, &far) || len(far.Window) != 1 || far.Window[0].StateRange != (StateRange{first, end}) || far.Window[0].ToTime.IsZero() {
			a.t.Fatalf("LSN %v: %v", lsn, err)
		}
	}
}

// A moment is the last commit at or before it; the commits next to it are told (R19).
func TestRecover_Moments(t *testing.T) {
	a := newArchived(t, 1)
	a.change(2)
	a.full()
	a.change(3)
	mark, err := a.store.Mark("before the mistake")
	if err != nil {
		t.Fatal(err)
	}
	a.kept[mark] = maps.Clone(a.model)
	a.change(3)
	a.archive()
	a.wantAt(RestoreTarget{Mark: "before the mistake"}, mark, RestoreOptions{})
	a.wantAt(RestoreTarget{Mark: "before the mistake", Exclusive: true}, mark-1, RestoreOptions{})
	p, err := PlanRestore(t.Context(), a.repo, RestoreTarget{LSN: mark})
	if err != nil || p.Moment.Before.LSN != mark-1 || p.Moment.Next.LSN != mark+1 || p.Time.IsZero() {
		t.Fatalf("%+v, %v", p, err)
	}
	at := p.Time
	a.wantAt(RestoreTarget{At: at}, mark, RestoreOptions{})
	a.wantAt(RestoreTarget{At: at, Exclusive: true}, mark-1, RestoreOptions{})
	a.wantAt(RestoreTarget{At: at.Add(-1)}, mark-1, RestoreOptions{})
	a.wantAt(RestoreTarget{At: p.Moment.Next.Time.Add(-1)}, mark, RestoreOptions{})
	for _, when := range []time.Time{time.Now().Add(time.Hour), time.Unix(1, 0)} {
		if _, err := PlanRestore(t.Context(), a.repo, RestoreTarget{At: when}); !errors.Is(err, ErrUnreachable) {
			t.Fatalf("%v: %v", when, err)
		}
	}
	if _, err := PlanRestore(t.Context(), a.repo, RestoreTarget{Mark: "none"}); !errors.Is(err, ErrMarkNotFound) {
		t.Fatal(err)
	}
}

// Missing log: a restore of everything ends just before the hole and says what is
// lost; a state behind the hole is had from a backup that lies there, or refused.
func TestRecover_StopsBeforeAHole(t *testing.T) {
	a := newArchived(t, 2)
	a.change(2)
	a.full()
	a.change(4)
	a.archive()
	before := a.from
	a.change(3)
	gone := a.archive()
	a.change(3)
	a.archive()
	if err := a.repo.objects.Delete(t.Context(), gone.Name()); err != nil {
		t.Fatal(err)
	}
	res := a.wantAt(RestoreTarget{}, before, RestoreOptions{})
	if res.Lost == nil || *res.Lost != (LogRange{before, a.from}) {
		t.Fatalf("lost %v", res.Lost)
	}
	for _, lsn := range []block.LSN{before + 1, a.from} {
		if _, err := PlanRestore(t.Context(), a.repo, RestoreTarget{LSN: lsn}); !errors.Is(err, ErrUnreachable) {
			t.Fatal(err)
		}
	}
	p, err := PlanRestore(t.Context(), a.repo, RestoreTarget{LSN: before})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := PlanRestore(t.Context(), a.repo, RestoreTarget{At: p.Time.Add(1)}); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("a time in the hole: %v", err)
	}
	a.full() // the window goes on here (R14)
	a.change(2)
	a.archive()
	if res := a.wantAt(RestoreTarget{}, a.from, RestoreOptions{}); res.Lost != nil {
		t.Fatalf("lost %v", res.Lost)
	}
}

// Damaged log that is found on the way: another way is taken if there is one, or
// the restore ends just before the damage and says so.
func TestRecover_DamagedLog(t *testing.T) {
	a := newArchived(t, 3)
	a.change(2)
	a.full()
	a.change(3)
	a.archive()
	before := a.from
	a.change(6)
	bad := a.archive()
	rot(t, a.repo, bad.Name())
	res, err := Restore(t.Context(), a.repo, RestoreTarget{}, "/d/short", RestoreOptions{FS: a.fs, MaxRAM: 16 << 20})
	if err != nil || res.Lost == nil || res.LSN < before || res.LSN >= a.from || res.Lost.From != res.LSN || res.Lost.To != a.from {
		t.Fatalf("%+v, %v", res, err)
	}
	wantDatabase(t, a.fs, "/d/short", a.kept[res.LSN])

	a.full()
	a.change(2)
	a.archive()
	if res := a.wantAt(RestoreTarget{}, a.from, RestoreOptions{}); res.Lost != nil {
		t.Fatalf("lost %v, though there is a way round", res.Lost)
	}
}

// A restore that ended before damage and was cut off at any event behind that says, when
// it goes on, what it is at and what is lost.
func TestRecover_DamageIsToldAfterACut(t *testing.T) {
	a := newArchived(t, 7)
	a.change(2)
	a.full()
	a.change(6)
	bad := a.archive()
	rot(t, a.repo, bad.Name())
	base := a.fs.(*simfs.FS)
	run := func(fs *simfs.FS) (RestoreResult, error) {
		return Restore(t.Context(), openAt(t, fs, "/d/repo"), RestoreTarget{}, "/d/new", RestoreOptions{FS: fs, MaxRAM: 16 << 20})
	}
	whole := base.Crash(nil, simfs.KeepAll)
	want, err := run(whole)
	if err != nil || want.Lost == nil {
		t.Fatalf("%+v, %v", want, err)
	}
	resumed := 0
	for back := range 40 {
		fs := base.Crash(nil, simfs.KeepAll)
		repo := openAt(t, fs, "/d/repo")
		fs.CutAfter(whole.Events() - back)
		Restore(t.Context(), repo, RestoreTarget{}, "/d/new", RestoreOptions{FS: fs, MaxRAM: 16 << 20})
		fs = fs.Kill()
		if _, err := fs.Lstat("/d/new"); err == nil {
			continue
		}
		resumed++
		got, err := run(fs)
		if err != nil || got.LSN != want.LSN || got.Lost == nil || *got.Lost != *want.Lost {
			t.Fatalf("%d events before the end: %+v, %v", back, got, err)
		}
	}
	if resumed == 0 {
		t.Fatal("nothing was cut off")
	}
}

// An older backup is taken with consent only.
func TestRecover_AllowOlder(t *testing.T) {
	a := newArchived(t, 4)
	a.change(2)
	a.full()
	a.change(3)
	a.full()
	a.change(2)
	a.archive()
	newest := a.made[1].ID
	name := objectName(newest, kindBlocks, 1)
	rot(t, a.repo, name)
	exact := RestoreTarget{Recover: RecoverNone}
	if _, err := Restore(t.Context(), a.repo, exact, "/d/x", RestoreOptions{FS: a.fs}); !errors.Is(err, block.ErrCorrupt) {
		t.Fatal(err)
	}
	res := a.wantAt(exact, a.made[0].LSN, RestoreOptions{AllowOlder: true})
	if len(res.Passed) != 1 || res.Passed[0] != newest || res.Manifest.ID != a.made[0].ID {
		t.Fatalf("%+v", res)
	}
	if _, err := Verify(t.Context(), a.repo, newest, VerifyOptions{}); !errors.Is(err, block.ErrCorrupt) {
		t.Fatal(err)
	}
	for _, target := range []RestoreTarget{exact, {}} {
		if _, err := Restore(t.Context(), a.repo, target, "/d/x", RestoreOptions{FS: a.fs}); !errors.Is(err, ErrBackupDamaged) {
			t.Fatal(err)
		}
	}
	a.wantAt(RestoreTarget{}, a.from, RestoreOptions{AllowOlder: true})
}

// A restored database goes on, on its own timeline; the future that it left can be
// restored all the same, and its logs be used again and again (L14).
func TestL14_LogsAreUsedAgain(t *testing.T) {
	a := newArchived(t, 5)
	a.change(2)
	a.full()
	a.change(6)
	a.archive()
	old, fork := a.from, a.made[0].LSN+3
	oldModel := a.kept[old]
	a.tail.Close()
	if err := a.store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), a.repo, RestoreTarget{LSN: fork}, "/d/db2", RestoreOptions{FS: a.fs, MaxRAM: 16 << 20}); err != nil {
		t.Fatal(err)
	}
	a.dir, a.model = "/d/db2", maps.Clone(a.kept[fork])
	a.open()
	a.attach(fork)
	a.change(3)
	a.incremental()
	a.change(3)
	a.archive()
	if a.made[1].Kind != KindIncremental {
		t.Error("the backup before the fork was no base")
	}
	for lsn := a.made[0].LSN; lsn <= a.from; lsn++ { // one history: across the fork
		a.wantAt(RestoreTarget{LSN: lsn}, lsn, RestoreOptions{})
	}
	a.kept[old] = oldModel
	for range 2 { // the other one: from a backup that both have, along the old log, is not asked for by an LSN
		p, err := PlanRestore(t.Context(), a.repo, RestoreTarget{Backup: a.made[0].ID, Recover: RecoverAll})
		if err != nil || p.LSN != a.from {
			t.Fatalf("%+v, %v", p, err)
		}
	}
}

// A standby is read while it rolls forward, and is promoted (R20).
func TestFollow_ReadsWhileRollingForward(t *testing.T) {
	a := newArchived(t, 6)
	a.change(2)
	a.full()
	a.change(3)
	a.archive()
	if _, err := Restore(t.Context(), a.repo, RestoreTarget{}, "/d/standby", RestoreOptions{FS: a.fs, Standby: true, MaxRAM: 16 << 20}); err != nil {
		t.Fatal(err)
	}
	store, err := mvcc.Open("/d/standby", mvcc.Options{FS: a.fs, MaxRAM: 16 << 20, Temp: []mvcc.TempDir{}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.BeginWrite(); !errors.Is(err, mvcc.ErrStandby) {
		t.Fatalf("a standby may be written to: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	turns := 0
	err = Follow(ctx, a.repo, store, FollowOptions{Every: time.Nanosecond, Progress: func(p FollowProgress) {
		if p.LSN != a.from {
			t.Errorf("turn %d: at LSN %v, the archive at %v", turns, p.LSN, a.from)
		}
		wantTexts(t, store, a.kept[p.LSN])
		if turns++; turns == 4 {
			cancel()
			return
		}
		a.change(2)
		a.archive()
	}})
	if err != nil || turns != 4 {
		t.Fatalf("%d turns, %v", turns, err)
	}
	at := store.Status().NewestLSN
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := mvcc.Promote("/d/standby", mvcc.Options{FS: a.fs, MaxRAM: 16 << 20}); err != nil {
		t.Fatal(err)
	}
	wantDatabase(t, a.fs, "/d/standby", a.kept[at])
}
