package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// timed is what something took.
type timed struct {
	seconds      float64
	read         int64 // bytes, by read calls of this process; 0 where the system does not tell
	databaseRead int64 // of these, of the database of blocks
}

func (m *measurement) measureTime(fn func() error) (timed, error) {
	read, databaseRead, began := readNow(), m.databaseRead.Load(), time.Now()
	err := fn()
	return timed{time.Since(began).Seconds(), readNow() - read, m.databaseRead.Load() - databaseRead}, err
}

// incremental makes a full backup, changes one block in a thousand, and makes an
// incremental.
func (m *measurement) incremental(ctx context.Context) error {
	full, err := m.backupBlocks(ctx, livebackup.TypeFull)
	if err == nil {
		err = m.changeBlocks(ctx, 1000)
	}
	if err != nil {
		return err
	}
	inc, err := m.backupBlocks(ctx, livebackup.TypeIncremental)
	if err != nil {
		return err
	}
	size, err := m.databaseBytes()
	m.Metrics["full_seconds"], m.Metrics["incremental_seconds"] = full.seconds, inc.seconds
	m.Metrics["incremental_time_share"] = inc.seconds / full.seconds
	m.Metrics["incremental_read_bytes"], m.Metrics["database_bytes"] = float64(inc.read), size
	m.Metrics["incremental_read_share"] = float64(inc.databaseRead) / size
	m.Metrics["incremental_read_all_share"] = float64(inc.read) / size
	return err
}

// copying compares a full backup with cp, and its proof with cmp. What each reads is
// not in memory when it starts.
func (m *measurement) copying(ctx context.Context) error {
	data, to := filepath.Join(m.Dir, blocksDB, "data"), filepath.Join(m.Backup.Dir, "copy")
	backup := func() (r timed, err error) { return m.backupBlocks(ctx, livebackup.TypeFull) }
	copyFile := func() (timed, error) {
		if err := DropFileCache(m.Dir); err != nil {
			return timed{}, err
		}
		return m.measureTime(func() error { return copyDurably(ctx, data, to) })
	}
	steps := []step{{"backup_seconds", backup}, {"cp_seconds", copyFile}}
	if err := m.steps(steps); err != nil {
		return err
	}
	m.Metrics["backup_share"] = m.Metrics["backup_seconds"] / m.Metrics["cp_seconds"]
	repo, err := m.repository(ctx)
	if err == nil && m.Reverse { // the backup opened the database, which then is another
		err = copyDurably(ctx, data, to)
	}
	if err != nil {
		return err
	}
	cold := func(fn func() error) func() (timed, error) {
		return func() (timed, error) {
			if err := errors.Join(DropFileCache(m.Dir), DropFileCache(m.Backup.Dir)); err != nil {
				return timed{}, err
			}
			return m.measureTime(fn)
		}
	}
	verify := func() error {
		_, err := livebackup.Verify(ctx, repo, livebackup.BackupID{}, livebackup.VerifyOptions{})
		return err
	}
	err = m.steps([]step{
		{"verify_seconds", cold(verify)},
		{"cmp_seconds", cold(func() error { return exec.CommandContext(ctx, "cmp", data, to).Run() })},
	})
	m.Metrics["verify_share"] = m.Metrics["verify_seconds"] / m.Metrics["cmp_seconds"]
	return err
}

// step is one of several things that are timed in turns.
type step struct {
	metric string
	do     func() (timed, error)
}

// steps does and times them, in the reverse order if the task says so.
func (m *measurement) steps(list []step) error {
	for i := range list {
		s := list[i]
		if m.Reverse {
			s = list[len(list)-1-i]
		}
		took, err := s.do()
		if err != nil {
			return fmt.Errorf("%s: %w", s.metric, err)
		}
		m.Metrics[s.metric] = took.seconds
	}
	return nil
}

// copyDurably is cp, and a sync of the file and its directory.
func copyDurably(ctx context.Context, from, to string) error {
	if err := exec.CommandContext(ctx, "cp", from, to).Run(); err != nil {
		return fmt.Errorf("cp: %w", err)
	}
	for _, name := range []string{to, filepath.Dir(to)} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// chainLength is how many incrementals stand on the full backup of makeChain.
const chainLength = 10

// makeChain makes a full backup with ten incrementals of one block in a hundred, and
// a full backup of the same state.
func (m *measurement) makeChain(ctx context.Context) error {
	_, err := m.backupBlocks(ctx, livebackup.TypeFull)
	for i := 0; err == nil && i < chainLength; i++ {
		if err = m.changeBlocks(ctx, 100); err == nil {
			_, err = m.backupBlocks(ctx, livebackup.TypeIncremental)
		}
	}
	if err == nil {
		_, err = m.backupBlocks(ctx, livebackup.TypeFull)
	}
	return err
}

// restoreChain restores both states that makeChain left in the repository.
func (m *measurement) restoreChain(ctx context.Context) error {
	repo, err := m.repository(ctx)
	if err != nil {
		return err
	}
	entries, err := livebackup.List(ctx, repo)
	if err != nil {
		return err
	}
	newest := map[string]livebackup.BackupID{}
	for _, e := range entries {
		if e.ID.Sequence > newest[e.Manifest.Kind].Sequence {
			newest[e.Manifest.Kind] = e.ID
		}
	}
	restore := func(kind string) func() (timed, error) {
		target := livebackup.RestoreTarget{Backup: newest[kind], Recover: livebackup.RecoverNone}
		return func() (timed, error) { return m.restoreTo(ctx, repo, target) }
	}
	err = m.steps([]step{
		{"restore_full_seconds", restore(livebackup.KindFull)},
		{"restore_chain_seconds", restore(livebackup.KindIncremental)},
	})
	m.Metrics["restore_share"] = m.Metrics["restore_chain_seconds"] / m.Metrics["restore_full_seconds"]
	return err
}

// restoreTo restores a state from a repository of which nothing is in memory, and
// removes it.
func (m *measurement) restoreTo(ctx context.Context, repo *livebackup.Repository, t livebackup.RestoreTarget) (timed, error) {
	if err := DropFileCache(m.repositoryDir()); err != nil {
		return timed{}, err
	}
	to := filepath.Join(m.Backup.Dir, "restored")
	took, err := m.measureTime(func() error {
		res, err := livebackup.Restore(ctx, repo, t, to, livebackup.RestoreOptions{MaxRAM: m.Config.RAMBytesMax})
		if err == nil && res.Lost != nil {
			err = fmt.Errorf("commits %v are lost", res.Lost.Commits())
		}
		return err
	})
	return took, errors.Join(err, os.RemoveAll(to))
}

// rollForward has clients commit while the log is archived, and rolls that forward.
// The clients' speed is the higher one of before the archive began and after.
func (m *measurement) rollForward(ctx context.Context) error {
	if err := m.open(); err != nil {
		return err
	}
	store := m.db.(*spillwayDB).db.Store()
	if err := m.putAll(ctx, nil); err != nil {
		return err
	}
	load, err := m.Load.Start(ctx, m.db)
	if err != nil {
		return err
	}
	alone := Span{m.Warmup, m.Warmup + m.Duration/2}
	sleepUntil(ctx, load.start.Add(alone.To))
	trace, err := load.Stop()
	if err != nil {
		return err
	}
	commits, seconds, err := m.archived(ctx, store)
	if err != nil {
		return err
	}
	if err := m.close(); err != nil {
		return err
	}
	repo, err := m.repository(ctx)
	if err != nil {
		return err
	}
	restore := func(r livebackup.Recover) func() (timed, error) {
		return func() (timed, error) { return m.restoreTo(ctx, repo, livebackup.RestoreTarget{Recover: r}) }
	}
	if err := m.steps([]step{
		{"restore_seconds", restore(livebackup.RecoverNone)}, {"restore_and_roll_seconds", restore(livebackup.RecoverAll)},
	}); err != nil {
		return err
	}
	rolled := max(m.Metrics["restore_and_roll_seconds"]-m.Metrics["restore_seconds"], 1e-3) // where nearly nothing was committed
	m.Metrics["archived_commits"] = float64(commits)
	m.Metrics["clients_per_second"] = max(float64(commits)/seconds, trace.PerSecond(alone))
	m.Metrics["rolled_per_second"] = float64(commits) / rolled
	return nil
}

// archived makes a full backup and archives what the clients commit from then on;
// it returns how many commits those are, and in which time.
func (m *measurement) archived(ctx context.Context, store *mvcc.Store) (commits int, seconds float64, err error) {
	repo, err := m.repository(ctx)
	if err != nil {
		return 0, 0, err
	}
	src := livebackup.NewSource(store)
	if _, err := livebackup.Backup(ctx, src, repo, livebackup.BackupOptions{Type: livebackup.TypeFull, Owner: "bench"}); err != nil {
		return 0, 0, err
	}
	archive, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- livebackup.Archive(archive, src, repo, livebackup.ArchiveOptions{}) }()
	load, err := m.Load.Start(ctx, m.db)
	if err == nil {
		sleepUntil(ctx, load.start.Add(m.Duration))
		took := load.Since()
		var trace *Trace
		trace, err = load.Stop()
		commits, seconds = len(trace.Commits), took.Seconds()
	}
	end()
	return commits, seconds, errors.Join(err, <-ended)
}
