package kv_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/spillwaydb/spillway/bench"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/spill"
)

func init() { beChild("overflow", overflowMain) }

// smallFS mounts a file system of so many bytes in memory, or skips the test.
func smallFS(t *testing.T, bytes int) string {
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=0700", bytes), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a file system: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// diskDir is a new folder on a disk, or skips the test: where files are memory, they count as
// what a group of bounded memory has.
func diskDir(t *testing.T) string {
	dir := t.TempDir()
	s, err := spill.Open(spill.Options{BlockSize: 4096, Dirs: []spill.Dir{{Path: dir, BytesMax: 1 << 20}}})
	if errors.Is(err, spill.ErrMemoryFS) {
		t.Skip("files are memory here: ", err)
	}
	must(t, err)
	s.Close()
	return dir
}

// marksAndRungs are the states of a level that events told, by how full it is, and the
// rungs that were reached.
func marksAndRungs(db *kv.DB, level string) (marks, rungs []string) {
	for _, ev := range db.Store().Events(0) {
		switch {
		case ev.Kind == mvcc.EventWatermark && ev.Level.Name == level && !ev.ByTime:
			marks = append(marks, ev.Level.State)
		case ev.Rung != "" && ev.Rung != mvcc.RungBreak:
			rungs = append(rungs, string(ev.Rung))
		}
	}
	return marks, rungs
}

// TestLadder_RealFileSystemFillsUp: temporary storage may take 1 GiB by its limit, but
// its file system has 12 MiB, of which somebody else takes half. The level goes by what
// is really left, warns, and what comes next comes; the snapshot is right all the while.
func TestLadder_RealFileSystemFillsUp(t *testing.T) {
	temp := smallFS(t, 12<<20)
	must(t, os.WriteFile(filepath.Join(temp, "other"), make([]byte, 6<<20), 0o600))
	db, err := kv.Open(filepath.Join(t.TempDir(), "db"), kv.Options{Store: mvcc.Options{
		MaxRAM: boundedRAM, OverflowMax: 128 << 20, Temp: []mvcc.TempDir{{Path: temp, BytesMax: 1 << 30}}, AllowMemoryTemp: true,
	}})
	must(t, err)
	defer db.Close()
	const records = 48 << 20 / boundedRecord
	must(t, boundedPut(db, 0, records, "first"))
	snapshot, err := db.Begin(false)
	must(t, err)
	must(t, boundedPut(db, 0, records, "second"))
	marks, rungs := marksAndRungs(db, mvcc.LevelTemporary)
	if len(marks) == 0 || marks[len(marks)-1] != "critical" || fmt.Sprint(rungs) != "[spill overflow]" {
		t.Fatalf("marks %v, rungs %v", marks, rungs)
	}
	must(t, boundedProve(snapshot, records, "first"))
	must(t, snapshot.Rollback())
	await(t.Context(), t, func() (left []string) { // what was on its way there goes when it has come
		if n := db.Store().Status().Cache.Temporary.UsedBytes; n != 0 {
			left = append(left, fmt.Sprintf("%d bytes in temporary storage", n))
		}
		return left
	})
	if failed := db.Store().Status().Failed; failed != "" {
		t.Fatalf("failed: %s", failed)
	}
}

// TestLadder_OverflowStopsAtTheGroupsReserve: without temporary storage and with the
// default of overflow, in a control group: originals take what the group has, are told
// to, and the snapshot is broken before the kernel would end the process.
func TestLadder_OverflowStopsAtTheGroupsReserve(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes a multiple of the memory")
	}
	group, err := bench.NewMemoryGroup(160 << 20)
	if errors.Is(err, bench.ErrNoMemoryGroup) {
		t.Skipf("cannot limit a process: %v", err)
	}
	must(t, err)
	defer func() { must(t, group.Close()) }()
	c := newChild(t, "overflow", diskDir(t))
	c.Env = append(c.Env, groupVar+"="+group.Dir)
	out, err := c.Output()
	t.Logf("%s", out)
	must(t, err)
}

func overflowMain(dir string) error {
	join := filepath.Join(os.Getenv(groupVar), "cgroup.procs")
	if err := os.WriteFile(join, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return err
	}
	db, err := kv.Open(filepath.Join(dir, "db"), kv.Options{Store: mvcc.Options{MaxRAM: boundedRAM, Temp: []mvcc.TempDir{}}})
	if err != nil {
		return err
	}
	defer db.Close()
	const records = 160 << 20 / boundedRecord
	if err := boundedPut(db, 0, records, "first"); err != nil {
		return err
	}
	snapshot, err := db.Begin(false)
	if err != nil {
		return err
	}
	defer snapshot.Rollback()
	if err := boundedPut(db, 0, records, "second"); err != nil {
		return err
	}
	marks, rungs := marksAndRungs(db, mvcc.LevelHost)
	st := db.Store().Status()
	fmt.Printf("%d snapshots broken, %d frames of overflow, marks of the host %v, rungs %v, peak resident memory %s\n",
		st.Originals.SnapshotsBroken, st.Cache.Overflowed, marks, rungs, peakRSS())
	if st.Originals.SnapshotsBroken != 1 || st.Cache.Overflowed == 0 || len(rungs) == 0 || rungs[0] != "overflow" {
		return errors.New("the ladder was not gone down")
	}
	return db.View(func(tx *kv.Tx) error { return boundedProve(tx, records, "second") })
}
