package kv_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/bench"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

func init() { beChild("bounded", boundedMain) }

const (
	groupVar     = "KV_TEST_CHILD_GROUP"     // folder of the control group to join
	originalsVar = "KV_TEST_CHILD_ORIGINALS" // times MaxRAM
)

const (
	boundedRAM    = 16 << 20
	boundedSlack  = 64 << 20 // the rest of the process: code, stacks, what the kernel keeps for it
	boundedRecord = 900      // bytes, with its key: no block of its own
)

// boundedRecords is how many records take so many times MaxRAM.
func boundedRecords(times uint64) uint64 { return times * boundedRAM / boundedRecord }

var flagOriginals = flag.Uint64("originals", 5, "originals of how many times MaxRAM there are to be in a process of bounded memory")

// TestL9_ProcessStaysWithinMemoryGroup: a process that may take MaxRAM and 64 MiB
// more, page cache included, loads more than ten times MaxRAM, changes five times
// MaxRAM of it under an open snapshot (or as many as are asked for), and takes a
// backup meanwhile. The kernel ends a process that wants more.
func TestL9_ProcessStaysWithinMemoryGroup(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes a multiple of the memory")
	}
	group, err := bench.NewMemoryGroup(boundedRAM + boundedSlack)
	if errors.Is(err, bench.ErrNoMemoryGroup) {
		t.Skipf("cannot limit a process: %v", err)
	}
	must(t, err)
	defer func() { must(t, group.Close()) }()
	c := newChild(t, "bounded", diskDir(t))
	c.Env = append(c.Env, groupVar+"="+group.Dir, originalsVar+"="+strconv.FormatUint(*flagOriginals, 10))
	out, err := c.Output()
	t.Logf("%s; the group had at most %d MiB of %d MiB", bytes.TrimSpace(out),
		groupNumber(t, group, "memory.max_usage_in_bytes")>>20, groupNumber(t, group, "memory.limit_in_bytes")>>20)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		t.Fatal("the kernel has ended the process, because it wanted more memory than it may take")
	}
	must(t, err)
}

func groupNumber(t *testing.T, g *bench.MemoryGroup, name string) int64 {
	data, err := os.ReadFile(filepath.Join(g.Dir, name))
	must(t, err)
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	must(t, err)
	return n
}

// boundedMain is the process in the group. What it says last is printed.
func boundedMain(dir string) error {
	join := filepath.Join(os.Getenv(groupVar), "cgroup.procs")
	if err := os.WriteFile(join, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return err
	}
	times, err := strconv.ParseUint(os.Getenv(originalsVar), 10, 64)
	if err != nil {
		return err
	}
	db, err := kv.Open(filepath.Join(dir, "db"), kv.Options{Store: mvcc.Options{MaxRAM: boundedRAM}})
	if err != nil {
		return err
	}
	defer db.Close()
	first, changed := boundedRecords(max(5, times)), boundedRecords(times)
	if err := boundedPut(db, 0, first, "first"); err != nil {
		return err
	}
	snapshot, err := db.Begin(false)
	if err != nil {
		return err
	}
	defer snapshot.Rollback()
	if err := boundedPut(db, first, 2*first, "first"); err != nil {
		return err
	}
	backedUp := make(chan error, 1)
	go func() { backedUp <- backUpOnce(db, dir) }()
	if err := boundedPut(db, 0, changed, "second"); err != nil {
		return err
	}
	if err := <-backedUp; err != nil {
		return err
	}
	if err := boundedProve(snapshot, first, "first"); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	st := db.Store().Status()
	fmt.Printf("%d originals made, %d MiB of them in temporary storage, %d MiB of data file, %d KiB of entries, %d KiB of MaxRAM lent, peak resident memory %s\n",
		st.Originals.OriginalsMade, st.Cache.Temporary.UsedBytes>>20, st.FileBytes>>20,
		st.Cache.Index*int64(st.BlockSize)>>10, st.Cache.LentBytes>>10, peakRSS())
	return db.View(func(tx *kv.Tx) error { return boundedProve(tx, changed, "second") })
}

func boundedValue(i uint64, word string) []byte {
	v := bytes.Repeat([]byte{byte(i)}, boundedRecord-8)
	copy(v, fmt.Sprintf("%s %d", word, i))
	return v
}

// boundedPut puts records [from, to), a thousand in a transaction.
func boundedPut(db *kv.DB, from, to uint64, word string) error {
	for from < to {
		err := db.Update(func(tx *kv.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			for end := min(from+1000, to); from < end && err == nil; from++ {
				err = b.Put(binary.BigEndian.AppendUint64(nil, from), boundedValue(from, word))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// boundedProve proves that the first records have the word.
func boundedProve(tx *kv.Tx, records uint64, word string) error {
	b, err := tx.Bucket([]byte("b"))
	if err != nil {
		return err
	}
	i := uint64(0)
	err = b.Scan(nil, binary.BigEndian.AppendUint64(nil, records), func(_, v []byte) error {
		if !bytes.Equal(v, boundedValue(i, word)) {
			return fmt.Errorf("record %d is %.20q", i, v)
		}
		i++
		return nil
	})
	if err == nil && i != records {
		err = fmt.Errorf("%d records of %d", i, records)
	}
	return err
}

func backUpOnce(db *kv.DB, dir string) error {
	ctx := context.Background()
	repo, err := livebackup.OpenRepository(ctx, filepath.Join(dir, "repository"), livebackup.RepositoryOptions{Create: true})
	if err != nil {
		return err
	}
	_, err = livebackup.Backup(ctx, livebackup.NewSource(db.Store()), repo, livebackup.BackupOptions{})
	return err
}
