package prove

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// Where things are on the simulated disk.
const (
	dbDir   = "/db"
	repoDir = "/repo"
)

// smallOptions are those of a store in which everything happens soon: the least
// memory, and a log of three segments.
func smallOptions(fs *simfs.FS) mvcc.Options {
	return mvcc.Options{
		FS: fs, BlockSize: 4096, MaxRAM: blockcache.RAMBytesMin(4096), LogBytesMax: mvcc.LogBytesMin,
		Temp: []mvcc.TempDir{{Path: dbDir, BytesMax: 64 << 20}}, CloseWait: -1,
	}
}

// newDisk is an empty disk with a directory for the database, which is its
// caller's to make.
func newDisk() (*simfs.FS, error) {
	fs := simfs.New()
	return fs, errors.Join(fs.Mkdir(dbDir, 0o700), fs.SyncDir("/"))
}

// world is a workload on blocks while it runs.
type world struct {
	ctx   context.Context
	rng   *rand.Rand
	fs    *simfs.FS
	o     mvcc.Options
	s     *mvcc.Store
	m     *blockModel
	repo  *livebackup.Repository
	cover *Coverage // nil: nobody asks what was reached

	mu       sync.Mutex
	backups  []backupMade
	going    int
	archived atomic.Uint64
}

// backupMade is a backup that was acknowledged.
type backupMade struct {
	id   livebackup.BackupID
	lsn  block.LSN
	gone int // the number of the prune that removes it; 0: none
}

// open opens the store, which must be as the model says.
func (w *world) open() error {
	s, err := mvcc.Open(dbDir, w.o)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	w.s = s
	return nil
}

// reopen closes the store and opens it again.
func (w *world) reopen() error {
	if err := w.s.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if w.o.Durability != mvcc.DurableCommit {
		raise(&w.m.acked, w.newest())
	}
	return w.open()
}

// newest is the newest commit that the model knows to be made.
func (w *world) newest() block.LSN {
	w.m.mu.RLock()
	defer w.m.mu.RUnlock()
	return block.LSN(len(w.m.at) - 1)
}

// commit runs f in a write transaction and commits.
func (w *world) commit(f func(*edit) error) error { return w.commitBy(w.rng, f) }

func (w *world) commitBy(rng *rand.Rand, f func(*edit) error) error {
	tx, err := w.s.BeginWrite()
	if err != nil {
		return err
	}
	base, known := w.m.image(tx.Base())
	if !known {
		return errors.Join(fmt.Errorf("transaction on LSN %v, which was never given", tx.Base()), tx.Rollback())
	}
	e := &edit{rng: rng, tx: tx, next: base.clone(), held: slices.Clone(base.ids())}
	if err := f(e); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	due := tx.Base() + 1
	e.setRoot() // so that every commit changes something
	e.next.sorted = slices.Sorted(slices.Values(e.held))
	w.m.try(due, e.next)
	lsn, err := tx.Commit()
	if err != nil {
		return err
	}
	if lsn != due {
		return fmt.Errorf("commit on %v has LSN %v", due-1, lsn)
	}
	if w.o.Durability == mvcc.DurableCommit {
		raise(&w.m.acked, lsn)
	}
	if w.cover != nil {
		w.cover.look(w.s)
	}
	return nil
}

// commits makes count commits of n changes each.
func (w *world) commits(count, n, target int) error {
	for range count {
		if err := w.commit(func(e *edit) error { return e.mixed(n, target) }); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) grow(n int) error { return w.commit(func(e *edit) error { return e.grow(n) }) }
func (w *world) sweepAll(n int) error {
	return w.commit(func(e *edit) error { return e.sweepAll(n) })
}
func (w *world) shrink(keep int) error {
	return w.commit(func(e *edit) error { return e.shrink(keep) })
}

// checkpoint brings everything into place.
func (w *world) checkpoint() error {
	q, err := w.s.Quiesce()
	if err != nil {
		return err
	}
	raise(&w.m.acked, q.LSN)
	q.Release()
	return nil
}

// look opens a reader, which shows what is durable from then on, and compares it.
func (w *world) look() error {
	r, err := w.s.BeginRead()
	if err != nil {
		return err
	}
	defer r.Close()
	if w.o.Durability == mvcc.DurableCommit {
		raise(&w.m.seen, r.LSN())
	}
	_, err = w.m.compare(w.s, r)
	return err
}

// holding runs f while a reader is open, which is compared behind it.
func (w *world) holding(f func() error) error {
	r, err := w.s.BeginRead()
	if err != nil {
		return err
	}
	defer r.Close()
	if w.o.Durability == mvcc.DurableCommit {
		raise(&w.m.seen, r.LSN())
	}
	if err := f(); err != nil {
		return err
	}
	_, err = w.m.compare(w.s, r)
	return err
}

// backup makes a backup into the repository and notes it.
func (w *world) backup(o livebackup.BackupOptions) error {
	_, err := w.makeBackup(o)
	return err
}

func (w *world) makeBackup(o livebackup.BackupOptions) (m livebackup.Manifest, err error) {
	if w.repo == nil {
		repo, err := livebackup.OpenRepository(w.ctx, repoDir, livebackup.RepositoryOptions{Create: true, FS: w.fs})
		if err != nil {
			return m, err
		}
		w.repo = repo
	}
	o.GroupBytes, o.ObjectBytes, o.Workers, o.FullSpeed = 32<<10, 128<<10, 1, true
	res, err := livebackup.Backup(w.ctx, livebackup.NewSource(w.s), w.repo, o)
	if err != nil {
		return m, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.backups = append(w.backups, backupMade{id: res.Manifest.ID, lsn: res.Manifest.EndLSN})
	raise(&w.m.acked, res.Manifest.EndLSN)
	return res.Manifest, nil
}

// backupBeside makes a backup while f writes.
func (w *world) backupBeside(o livebackup.BackupOptions, f func() error) error {
	made := make(chan error, 1)
	go func() { made <- w.backup(o) }()
	err := f()
	return errors.Join(err, <-made)
}

// promised is what was promised until now. It is called between any two events.
func (w *world) promised() promises {
	p := w.m.promised()
	w.mu.Lock()
	defer w.mu.Unlock()
	p.backups, p.going = len(w.backups), w.going
	p.archived = block.LSN(w.archived.Load())
	return p
}

// archiveBeside archives the log while f writes, and to its end.
func (w *world) archiveBeside(f func() error) error {
	ctx, enough := context.WithCancel(w.ctx)
	defer enough()
	ended := make(chan error, 1)
	o := livebackup.ArchiveOptions{Every: 100 * time.Millisecond, Compression: livebackup.CompressionNone, Progress: func(st livebackup.ArchiveStatus) {
		raise(&w.archived, st.ArchivedLSN)
	}}
	go func() { ended <- livebackup.Archive(ctx, livebackup.NewSource(w.s), w.repo, o) }()
	err := f()
	enough() // it goes on to the end of what is durable
	if err = errors.Join(err, <-ended); err == nil && block.LSN(w.archived.Load()) < w.newest() {
		err = fmt.Errorf("the archive ends at LSN %v, the log at %v", w.archived.Load(), w.newest())
	}
	return err
}

// prune keeps the newest generation, and removes the others.
func (w *world) prune() error {
	plan, err := livebackup.PlanPrune(w.ctx, w.repo, livebackup.RetentionPolicy{Generations: 1})
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.going++
	for i := range w.backups {
		if slices.ContainsFunc(plan.Backups, func(b livebackup.PlannedBackup) bool { return b.ID == w.backups[i].id && b.Remove }) {
			w.backups[i].gone = w.going
		}
	}
	w.mu.Unlock()
	_, err = livebackup.Prune(w.ctx, w.repo, plan)
	return err
}

// inOrder runs steps until one fails.
func inOrder(steps ...func() error) error {
	for _, f := range steps {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}
