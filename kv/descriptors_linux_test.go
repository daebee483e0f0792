package kv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
)

func init() { beChild("few descriptors", fewDescriptorsMain) }

// TestFewDescriptors: with any number of file descriptors, from far too few to enough,
// a process opens, writes, reads and backs up, or is told that there are too many open
// files; and what was acknowledged is there afterwards.
func TestFewDescriptors(t *testing.T) {
	c := newChild(t, "few descriptors", t.TempDir())
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		t.Fatalf("%v:\n%s", err, out.Bytes())
	}
	t.Logf("%s", out.Bytes())
}

// fewDescriptorsMain is in a process of its own: the limit is one per process.
func fewDescriptorsMain(dir string) error {
	if err := os.Mkdir(killTemp(dir), 0o700); err != nil {
		return err
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		return err
	}
	acked, failed, whole := uint64(0), 0, 0
	for limit := uint64(4); whole < 3; limit++ {
		if limit > 100 {
			return fmt.Errorf("a hundred descriptors are not enough: %d times too few", failed)
		}
		few := syscall.Rlimit{Cur: limit, Max: before.Max}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
			return err
		}
		n, err := useDescriptors(dir, acked)
		if e := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); e != nil {
			return e
		}
		switch {
		case err == nil:
			whole++
		case errors.Is(err, syscall.EMFILE):
			failed++
		default:
			return fmt.Errorf("with %d descriptors: %w", limit, err)
		}
		if acked, err = newestCommit(dir, n); err != nil {
			return fmt.Errorf("after a run with %d descriptors: %w", limit, err)
		}
	}
	if failed < 3 {
		return fmt.Errorf("only %d numbers of descriptors were too few", failed)
	}
	_, err := fmt.Printf("%d numbers of descriptors were too few, %d commits\n", failed, acked)
	return err
}

// useDescriptors opens the database, commits, and backs it up. It returns the newest
// commit that was acknowledged.
func useDescriptors(dir string, acked uint64) (uint64, error) {
	db, err := kv.Open(killDB(dir), killOptions(dir))
	if err != nil {
		return acked, err
	}
	err = func() error {
		for range 5 {
			err := db.Update(func(tx *kv.Tx) error { return killCommit(tx, 0, acked+1) })
			if err != nil {
				return err
			}
			acked++
		}
		repo, err := livebackup.OpenRepository(context.Background(), killRepo(dir), livebackup.RepositoryOptions{Create: true})
		if err != nil {
			return err
		}
		_, err = livebackup.Backup(context.Background(), livebackup.NewSource(db.Store()), repo, killBackup(0))
		return err
	}()
	return acked, errors.Join(err, db.Close())
}

// newestCommit proves that all that was acknowledged is there, and every backup whole.
func newestCommit(dir string, acked uint64) (uint64, error) {
	ctx := context.Background()
	db, err := kv.Open(killDB(dir), killOptions(dir))
	if err != nil {
		return 0, err
	}
	defer db.Close()
	counts, err := countsOf(db)
	if err != nil || counts[0] < acked {
		return 0, fmt.Errorf("commit %d is the newest, %d was acknowledged: %w", counts[0], acked, err)
	}
	repo, err := livebackup.OpenRepository(ctx, killRepo(dir), livebackup.RepositoryOptions{})
	if errors.Is(err, livebackup.ErrRepositoryNotFound) {
		return counts[0], nil
	}
	if err != nil && acked > 0 {
		return counts[0], err
	}
	if repo == nil {
		return counts[0], nil // it was being made
	}
	list, err := livebackup.List(ctx, repo)
	if err != nil {
		return 0, err
	}
	for _, e := range list {
		if _, err := livebackup.Verify(ctx, repo, e.ID, livebackup.VerifyOptions{NoRecord: true}); err != nil {
			return 0, err
		}
	}
	return counts[0], nil
}
