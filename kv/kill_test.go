//go:build unix

package kv_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
)

var roundsFlag = flag.Int("rounds", 5, "how often TestKill_D1_D2_D9 kills the process that writes")

// killRun is a directory in which one process after the other is killed.
type killRun struct {
	t     *testing.T
	dir   string
	rng   *rand.Rand
	acked [killWriters]uint64 // newest commits that were acknowledged
	known []string            // backups that were acknowledged
	goes  bool                // the process was not killed: it goes on, and may have done more than it had said
	cut   int                 // rounds that left an unfinished backup

	listed bool // the repository is looked at, too
	total  uint64
}

// killLanes is how many directories are worked on at once, each by processes of its own:
// most of a round is waiting for the disk. killLaneRounds is what one is worth.
const (
	killLanes      = 4
	killLaneRounds = 10
)

// TestKill_D1_D2_D9: a process with four writers, a reader and a backup is
// killed at any moment, again and again. Each time every commit and every backup
// that it has acknowledged is there, each writer's commits are there up to one
// and none behind it, the database passes its check, and nothing temporary is
// left; of the backups only whole ones are listed, and the next one sweeps what
// is left of the others.
func TestKill_D1_D2_D9(t *testing.T) {
	rounds := *roundsFlag
	if raceEnabled {
		rounds = min(rounds, 2)
	}
	s := chance.Seed(t)
	lanes := make([]killRun, min(killLanes, max(1, rounds/killLaneRounds)))
	t.Cleanup(func() {
		commits, cut := uint64(0), 0
		for i := range lanes {
			commits, cut = commits+lanes[i].total, cut+lanes[i].cut
		}
		t.Logf("%d rounds, %d acknowledged commits, %d unfinished backups", rounds, commits, cut)
	})
	for i := range lanes {
		k, share := &lanes[i], rounds*(i+1)/len(lanes)-rounds*i/len(lanes)
		t.Run(fmt.Sprint("lane", i), func(t *testing.T) {
			t.Parallel()
			*k = killRun{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(s, 9+uint64(i)))}
			k.rounds(share)
		})
	}
}

// rounds kills so many processes.
func (k *killRun) rounds(rounds int) {
	must(k.t, os.Mkdir(killTemp(k.dir), 0o700))
	for round := range rounds {
		k.kill()
		k.noTemporaryFiles()
		k.listed = rounds < 20 || round%6 == 0 // what is acknowledged meanwhile is looked at then
		k.reopen()
		if len(k.known) > 30 { // there is no retention yet
			must(k.t, os.RemoveAll(killRepo(k.dir)))
			k.known = nil
		}
	}
}

// kill starts the process and kills it when it has said some number of lines, or
// a little later. It notes all that it has said.
func (k *killRun) kill() {
	c := newChild(k.t, "writers", k.dir)
	out, err := c.StdoutPipe()
	must(k.t, err)
	must(k.t, c.Start())
	lines := k.lines()
	said := bufio.NewScanner(out)
	n := 0
	for ; n < lines && said.Scan(); n++ {
		k.note(said.Text())
	}
	for range k.rng.IntN(3000) {
		runtime.Gosched()
	}
	_ = c.Process.Kill() // also if it has ended, which Wait tells
	for said.Scan() {
		k.note(said.Text())
	}
	must(k.t, said.Err())
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		k.t.Fatalf("the process was not killed, but ended: %v", err)
	}
}

// lines draws how many lines a process may say. Few of them cost little, and a directory
// has what the processes before have left; long lives are for backups that are finished
// and log that comes round within one.
func (k *killRun) lines() int {
	switch k.rng.IntN(6) {
	case 0, 1:
		return k.rng.IntN(4) // while it opens the database
	case 2:
		return k.rng.IntN(500)
	}
	return k.rng.IntN(60)
}

// note takes in a line that the process has said: a pipe takes it in one piece.
func (k *killRun) note(line string) {
	var w int
	var n uint64
	if _, err := fmt.Sscanf(line, "commit %d %d", &w, &n); err == nil {
		k.acked[w] = n
		k.total++
	}
	if id, found := strings.CutPrefix(line, "backup "); found {
		k.known = append(k.known, id)
	}
}

// noTemporaryFiles looks for what the process should not have left.
func (k *killRun) noTemporaryFiles() {
	lasting := []string{"data", "doublewrite", "log"}
	for _, name := range namesIn(k.t, killDB(k.dir)) {
		if !slices.Contains(lasting, name) {
			k.t.Errorf("%s is left in the database", name)
		}
	}
	for _, name := range namesIn(k.t, filepath.Join(killDB(k.dir), "log")) {
		if filepath.Ext(strings.TrimSuffix(name, ".new")) != ".wal" { // a segment that was being made is removed at opening
			k.t.Errorf("%s is left in the log", name)
		}
	}
	if left := namesIn(k.t, killTemp(k.dir)); len(left) > 0 {
		k.t.Errorf("%v is left in temporary storage", left)
	}
}

func namesIn(t *testing.T, dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// reopen opens the database and proves what the killed process left.
func (k *killRun) reopen() {
	t := k.t
	db, err := kv.Open(killDB(k.dir), killOptions(k.dir))
	must(t, err)
	counts, err := countsOf(db)
	must(t, err)
	for w, n := range counts {
		if n < k.acked[w] || n > k.acked[w]+1 && !k.goes {
			t.Errorf("writer %d: commit %d is the newest, %d was acknowledged", w, n, k.acked[w])
		}
	}
	k.acked = counts
	mustCheck(t, db)
	if k.listed {
		k.backups(db)
	}
	must(t, db.Close())
}

// backups proves those of the killed process, makes another one, and looks at
// what is in the repository then.
func (k *killRun) backups(db *kv.DB) {
	t, ctx := k.t, context.Background()
	repo, err := livebackup.OpenRepository(ctx, killRepo(k.dir), livebackup.RepositoryOptions{Create: true})
	must(t, err)
	list := k.list(repo)
	if len(unfinished(t, k.dir, list)) > 0 {
		k.cut++
	}
	if len(list) > 0 {
		if counts := k.restore(repo, list[len(list)-1]); counts != k.acked {
			for w := range counts {
				if counts[w] > k.acked[w] {
					t.Errorf("a backup has commit %d of writer %d, the database only %d", counts[w], w, k.acked[w])
				}
			}
		}
	}
	res, err := livebackup.Backup(ctx, livebackup.NewSource(db.Store()), repo, killBackup(0))
	must(t, err)
	k.known = append(k.known, res.Manifest.ID.String())
	list = k.list(repo)
	left := unfinished(t, k.dir, list)
	if slices.ContainsFunc(left, func(name string) bool { return strings.Contains(name, ".partial-") }) {
		// A run of more than ten seconds, which was kept for the next one to go on with. That
		// could not, so it is nobody's now.
		_, err := livebackup.Sweep(ctx, repo)
		must(t, err)
		left = unfinished(t, k.dir, list)
	}
	if len(left) > 0 {
		t.Errorf("%v is left of unfinished backups", left)
	}
	if counts := k.restore(repo, res.Manifest.ID); counts != k.acked {
		t.Errorf("the backup has commits %v, the database %v", counts, k.acked)
	}
}

// list proves that all backups that were acknowledged are listed, and each that
// is listed is whole.
func (k *killRun) list(repo *livebackup.Repository) (ids []livebackup.BackupID) {
	t, ctx := k.t, context.Background()
	list, err := livebackup.List(ctx, repo)
	must(t, err)
	var names []string
	for _, e := range list {
		if e.Damage != nil {
			t.Errorf("backup %v is damaged: %v", e.ID, e.Damage)
		}
		if e.Proof == nil {
			_, err := livebackup.Verify(ctx, repo, e.ID, livebackup.VerifyOptions{})
			must(t, err)
		}
		ids, names = append(ids, e.ID), append(names, e.ID.String())
	}
	for _, id := range k.known {
		if !slices.Contains(names, id) {
			t.Errorf("backup %s was acknowledged and is not listed", id)
		}
	}
	return ids
}

// unfinished is the names in a repository that belong to no backup listed, or
// only to one that is being made.
func unfinished(t *testing.T, dir string, list []livebackup.BackupID) (names []string) {
	for _, name := range namesIn(t, killRepo(dir)) {
		id, kind, _ := strings.Cut(name, ".")
		listed := slices.ContainsFunc(list, func(l livebackup.BackupID) bool { return l.String() == id })
		ofRepository := name == "repository" || name == "database" || strings.HasPrefix(name, "timeline-") || strings.HasPrefix(name, "prune-")
		if !ofRepository && !listed || kind == "run" || strings.HasSuffix(name, ".tmp") {
			names = append(names, name)
		}
	}
	return names
}

// restore proves a backup by a database made of it.
func (k *killRun) restore(repo *livebackup.Repository, id livebackup.BackupID) [killWriters]uint64 {
	t := k.t
	target := filepath.Join(k.dir, "restored")
	_, err := livebackup.Restore(context.Background(), repo, livebackup.RestoreTarget{Backup: id}, target, livebackup.RestoreOptions{})
	must(t, err)
	db, err := kv.Open(target, kv.Options{})
	must(t, err)
	counts, err := countsOf(db)
	must(t, err)
	must(t, db.Close())
	must(t, os.RemoveAll(target))
	return counts
}
