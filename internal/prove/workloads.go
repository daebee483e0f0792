package prove

import (
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// Workload is a script that is cut at every event. Each has a theme and ends with
// what all of them have to reach: see [Coverage].
type Workload struct {
	Name string
	set  func(*mvcc.Options)
	run  func(*world) error
	dear int // how many states of others one of it costs, where that is not one
}

// Workloads are all of them, but those on trees.
func Workloads() []Workload {
	return []Workload{
		{Name: "commits", run: func(w *world) error { return w.commits(6, 3, 20) }},
		{Name: "group commits", run: groupCommits},
		{Name: "checkpoints", run: checkpoints},
		{Name: "grow and shrink", run: growAndShrink},
		{Name: "reuse under a reader", run: reuse},
		{Name: "large transactions", run: largeTransactions},
		{Name: "backups", run: backups},
		{Name: "archive and prune", run: archiveAndPrune},
		{Name: "reopened", run: reopened},
		{Name: "interval", set: func(o *mvcc.Options) { o.Durability = mvcc.DurableNever }, run: weak},
		{Name: "a backup falls forward", set: littleTemp, run: fallsForward, dear: 6},
		{Name: "encrypted temporary storage", set: func(o *mvcc.Options) { o.EncryptTemp = true }, run: largeTransactions},
	}
}

// everything is the end of each workload: it reaches all of [Coverage].
func everything(w *world) error {
	return inOrder(
		func() error { return w.grow(130) },
		func() error {
			return w.holding(func() error {
				return inOrder(func() error { return w.sweepAll(120) }, w.checkpoint, func() error { return w.sweepAll(110) })
			})
		},
		w.checkpoint,
		func() error { return w.shrink(20) },
		w.checkpoint,
		func() error { return w.grow(12) },
		func() error {
			return w.backupBeside(livebackup.BackupOptions{}, func() error { return w.commits(4, 6, 40) })
		},
		func() error { return w.commits(2, 4, 40) },
		w.look)
}

// groupCommits: several writers, so that commits share syncs.
func groupCommits(w *world) error {
	var group sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		rng := rand.New(rand.NewPCG(w.rng.Uint64(), uint64(i)))
		group.Go(func() {
			for range 4 {
				if err := w.commitBy(rng, func(e *edit) error { return e.mixed(3, 30) }); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func checkpoints(w *world) error {
	for range 3 {
		err := inOrder(func() error { return w.commits(2, 8, 40) }, w.checkpoint,
			func() error { return w.commit(func(e *edit) error { return e.touch(12) }) }, w.look, w.checkpoint)
		if err != nil {
			return err
		}
	}
	return nil
}

// growAndShrink has the high-water mark rise and fall, also under a reader.
func growAndShrink(w *world) error {
	return inOrder(func() error { return w.grow(200) }, w.checkpoint,
		func() error {
			return w.holding(func() error { return inOrder(func() error { return w.shrink(5) }, w.checkpoint) })
		},
		func() error { return w.grow(20) }, w.checkpoint, func() error { return w.shrink(3) }, w.checkpoint)
}

// reuse has blocks allocated, freed and allocated again while readers want all of
// their versions.
func reuse(w *world) error {
	for range 3 {
		err := w.holding(func() error {
			return inOrder(func() error { return w.grow(8) }, func() error { return w.sweepAll(5) },
				func() error { return w.shrink(2) }, func() error {
					if w.rng.IntN(2) == 0 {
						return nil
					}
					return w.checkpoint()
				})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// largeTransactions are larger than memory, and than the log.
func largeTransactions(w *world) error {
	return inOrder(func() error { return w.grow(150) }, func() error { return w.sweepAll(130) }, w.checkpoint,
		func() error { return w.sweepAll(140) }, w.look)
}

// backups: a full one and two incrementals, each while there are commits.
func backups(w *world) error {
	return inOrder(func() error { return w.commits(3, 10, 40) },
		func() error {
			return w.backupBeside(livebackup.BackupOptions{}, func() error {
				return inOrder(func() error { return w.sweepAll(9) }, w.checkpoint, func() error { return w.commits(2, 5, 40) })
			})
		},
		func() error { return w.commits(2, 5, 40) },
		func() error {
			return w.backupBeside(livebackup.BackupOptions{Type: livebackup.TypeIncremental}, func() error {
				return inOrder(func() error { return w.commits(2, 5, 40) }, w.checkpoint)
			})
		},
		func() error { return w.shrink(10) },
		func() error { return w.backup(livebackup.BackupOptions{Type: livebackup.TypeIncremental}) })
}

// archiveAndPrune: the log is archived behind a backup, and behind another one, for
// which the first one and its log are removed.
func archiveAndPrune(w *world) error {
	some := func() error { return w.commits(3, 6, 40) }
	return inOrder(some,
		func() error { return w.backup(livebackup.BackupOptions{}) },
		func() error { return w.archiveBeside(func() error { return inOrder(some, w.checkpoint, some) }) },
		func() error { return w.backup(livebackup.BackupOptions{}) },
		func() error { return w.archiveBeside(some) },
		w.prune,
		func() error { return w.backup(livebackup.BackupOptions{Type: livebackup.TypeIncremental}) },
		func() error { return w.archiveBeside(func() error { return w.shrink(10) }) })
}

// littleTemp is enough for a large transaction, and not for what a backup wants.
func littleTemp(o *mvcc.Options) {
	o.Temp = []mvcc.TempDir{{Path: dbDir, BytesMax: 512 << 10}}
	o.OverflowMax = -1
}

// fallsForward: while a backup has its first blocks, all of the others are changed.
func fallsForward(w *world) error {
	const blocks, each = 720, 60
	for range blocks / each {
		if err := w.grow(each); err != nil {
			return err
		}
	}
	began := false
	var wrote error
	m, err := w.makeBackup(livebackup.BackupOptions{Progress: func(livebackup.Progress) {
		if began {
			return
		}
		began = true
		for at := 0; at < blocks && wrote == nil; at += each {
			wrote = w.commit(func(e *edit) error {
				for _, id := range e.held[at : at+each] {
					if err := e.change(id); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}})
	if err := errors.Join(err, wrote); err != nil {
		return err
	}
	if m.FallForward == nil {
		return errors.New("the backup did not fall forward")
	}
	return nil
}

func reopened(w *world) error {
	return inOrder(func() error { return w.commits(3, 5, 20) }, w.reopen,
		func() error { return w.commits(3, 5, 20) }, w.checkpoint, w.reopen, func() error { return w.commits(2, 5, 20) })
}

// weak: a cut may take back the newest commits, never one from the middle.
func weak(w *world) error {
	return inOrder(func() error { return w.commits(6, 5, 20) }, w.checkpoint, func() error { return w.commits(6, 5, 20) }, w.reopen,
		func() error { return w.commits(3, 5, 20) })
}
