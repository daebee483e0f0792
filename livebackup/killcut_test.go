package livebackup

import (
	"fmt"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// killedThenCut has first run on copies of a disk and killed at each of its events that
// changes a name, before that is durable; then second runs, which sees it all the same, and
// the power is cut at each of its removals. Each state of the disk behind that is looked
// at, and said where it is from.
func killedThenCut(t *testing.T, base *simfs.FS, first, second func(repo *Repository), look func(repo *Repository, where string)) {
	t.Helper()
	states := 0
	for k, ended := 1, false; !ended; k++ {
		fs := base.Crash(nil, simfs.KeepAll)
		fs.CutAfter(k)
		last := simfs.Event{}
		fs.Trace(func(ev simfs.Event) {
			if ev.Op&simfs.Events != 0 && ev.Err == nil {
				last = ev
			}
		})
		first(openAt(t, fs, "/repo"))
		if ended = !fs.IsCut(); last.Op&(simfs.OpLink|simfs.OpRemove) == 0 {
			continue
		}
		fs = fs.Kill()
		repo := openAt(t, fs, "/repo")
		var moments []*simfs.Moment
		fs.Moments(func(ev simfs.Event, m *simfs.Moment) {
			if ev.Op == simfs.OpRemove {
				moments = append(moments, m)
			}
		})
		second(repo)
		fs.Moments(nil)
		for n, m := range moments {
			for _, s := range m.States() {
				states++
				look(openAt(t, s.Disk(), "/repo"), fmt.Sprintf("killed after event %d, %v %s %s; power cut at removal %d, %v", k, last.Op, last.File, last.To, n, s))
			}
		}
	}
	if states < 50 {
		t.Fatalf("%d states", states)
	}
}

// wantAllWhole proves that all that is listed is whole.
func wantAllWhole(t *testing.T, repo *Repository, where string) []Entry {
	t.Helper()
	list := mustList(t, repo)
	for _, e := range list {
		if e.State() != StateComplete {
			t.Fatalf("%s: %v is %s: %v", where, e.ID, e.State(), e.Damage)
		}
	}
	return list
}

// A run was killed when its manifest had a name, and that was not durable. Somebody sees
// the backup, and deletes the one before it.
func TestL12_BackupKilledThenDelete(t *testing.T) {
	fs := simfs.New()
	repo, g := openRepo(t, fs, "/repo"), newGrowing(1)
	old := g.backup(t, repo, BackupOptions{Type: TypeFull}).ID
	g.change()
	killedThenCut(t, fs.Crash(nil, simfs.KeepAll),
		func(repo *Repository) { Backup(t.Context(), g, repo, BackupOptions{Type: TypeFull}) },
		func(repo *Repository) {
			if len(mustList(t, repo)) < 2 {
				return
			}
			if _, err := Delete(t.Context(), repo, old, DeleteOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		},
		func(repo *Repository, where string) {
			if len(wantAllWhole(t, repo, where)) == 0 {
				t.Fatalf("%s: no backup is left", where)
			}
		})
}

// A prune was killed when a manifest was gone, and that was not durable. The next backup
// sweeps the objects.
func TestL12_PruneKilledThenBackup(t *testing.T) {
	fs := simfs.New()
	repo, g := openRepo(t, fs, "/repo"), newGrowing(1)
	g.backup(t, repo, BackupOptions{Type: TypeFull})
	g.change()
	g.backup(t, repo, BackupOptions{Type: TypeFull})
	g.change()
	killedThenCut(t, fs.Crash(nil, simfs.KeepAll),
		func(repo *Repository) {
			if plan, err := PlanPrune(t.Context(), repo, RetentionPolicy{Generations: 1}); err == nil {
				Prune(t.Context(), repo, plan)
			}
		},
		func(repo *Repository) { mustBackup(t, g, repo, BackupOptions{Type: TypeFull}) },
		func(repo *Repository, where string) { wantAllWhole(t, repo, where) })
}

// A merge was killed when a big object had its name, and that was not durable. The next one
// finds it, and removes the small ones.
func TestL12_MergeKilledThenMerge(t *testing.T) {
	fs := simfs.New()
	_, h := manySmall(t, fs, 1, 5)
	killedThenCut(t, fs.Crash(nil, simfs.KeepAll),
		func(repo *Repository) { repo.newMerger(smallRule, func(error) {}).merge(t.Context()) },
		func(repo *Repository) { merged(t, repo, smallRule) },
		func(repo *Repository, where string) {
			var s recordText
			r := LogRange{0, h.newest()}
			if err := repo.readLog(t.Context(), mustLogs(t, repo), ourLineage, r, 0, s.see); err != nil || s.String() != h.text(r) {
				t.Fatalf("%s: the log is not what it was: %v", where, err)
			}
		})
}
