package livebackup

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// Tests that a stranger's planted bugs have asked for: no other test found these
// (internal/mutants).

// L13: a lease that is being written does not say yet what is read: until it does, a
// merge removes nothing.
func TestL13_MergeWaitsForWhoHasNotSaid(t *testing.T) {
	repo, h := manySmall(t, simfs.New(), 21, 9)
	claim, err := repo.objects.Claim(t.Context(), leaseName(7), []byte("half a "))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		if m := merged(t, repo, smallRule); m.took != 0 || len(m.made) != 1 {
			t.Errorf("%d objects went, %d were made", m.took, len(m.made))
		}
	})
	wantLog(t, repo, ourLineage, h, LogRange{0, h.newest()})
	claim.Close()
	if m := merged(t, repo, smallRule); m.took != 8 {
		t.Errorf("%d objects went when he had let go", m.took)
	}
	wantArchive(t, repo, h, 0)
}

// L13: the intent of a prune that has no room for names is one that names everything: a
// reader waits until it has been let go.
func TestL13_ReaderWaitsForAnIntentWithoutNames(t *testing.T) {
	repo := openRepo(t, simfs.New(), "/repo")
	id := mustBackup(t, newFake(1, 3, 4<<10), repo, BackupOptions{}).ID
	synctest.Test(t, func(t *testing.T) {
		intent, err := repo.claimHold(t.Context(), pruneName, magicPrune, hold{By: "a test", All: true})
		if err != nil {
			t.Fatal(err)
		}
		leased := make(chan error, 1)
		go func() {
			lease, err := repo.lease(t.Context(), holdOf("a test", id))
			if err == nil {
				err = lease.Close()
			}
			leased <- err
		}()
		time.Sleep(10 * claimPoll)
		if len(leased) > 0 {
			t.Error("the reader does not wait")
		}
		if err := errors.Join(intent.Close(), <-leased); err != nil {
			t.Error(err)
		}
	})
}

// L12: between a sweep's list and its claim a run publishes and ends. What the list took
// for leftovers of the dead is a backup.
func TestL12_SweepOfARunThatPublished(t *testing.T) {
	repo := openRepo(t, simfs.New(), "/repo")
	m := mustBackup(t, newFake(1, 30, 4<<10), repo, BackupOptions{})
	names := []string{objectName(m.ID, kindRun, 0)}
	for _, o := range m.Objects {
		names = append(names, objectName(m.ID, kind(o.Kind), o.Number))
	}
	if n, err := repo.sweepBackup(t.Context(), m.ID, names); err != nil || n > 0 {
		t.Errorf("%d objects are swept, %v", n, err)
	}
	if _, err := Verify(t.Context(), repo, m.ID, VerifyOptions{}); err != nil {
		t.Error(err)
	}
}

// L13: a restore holds the log that it rolls forward by, and nobody has to guess.
func TestL13_RestoreLeasesItsLog(t *testing.T) {
	a := newMergeWorld(t)
	var unheld []LogRange
	looks := 0
	own := LogRange{a.made[0].EndLSN, a.from}
	_, err := Restore(t.Context(), a.repo, RestoreTarget{Backup: a.made[0].ID, Recover: RecoverAll}, "/d/there", RestoreOptions{
		FS: a.fs, MaxRAM: 16 << 20, Progress: func(Progress) {
			h, err := a.repo.leases(t.Context())
			if err != nil {
				t.Error(err)
			}
			looks++
			for lsn := own.From; lsn < own.To; lsn++ {
				if one := (LogRange{lsn, lsn + 1}); h.reads(one) == "" && !slices.Contains(unheld, one) {
					unheld = append(unheld, one)
				}
			}
		},
	})
	if err != nil || looks == 0 || len(unheld) > 0 {
		t.Errorf("%d looks, log %v is not held: %v", looks, unheld, err)
	}
}

// An incremental does not go on with what a full backup left, that has blocks which its
// base has, too.
func TestRebase_IncrementalLeavesWhatAFullLeft(t *testing.T) {
	fs := simfs.New()
	h := newHistory(t, rand.New(rand.NewPCG(12, 12)), fs, "/db")
	for range 10 {
		h.commit(60, 0, 0)
	}
	repo := openRepo(t, fs, "/repo")
	o := rebaseOptions
	o.Type = TypeFull
	mustBackup(t, NewSource(h.store), repo, o)
	h.churn(100)
	h.mustCut(repo)
	h.churn(100)
	h.keep(1, 1, 1)
	o.Type = TypeIncremental
	res, err := Backup(t.Context(), NewSource(h.store), repo, o)
	if err != nil || res.Resumed != 0 {
		t.Fatalf("%d blocks were taken over, %v", res.Resumed, err)
	}
	mustProve(t, repo, res.Manifest.ID)
	h.wantState(repo, res.Manifest, "/restored")
}
