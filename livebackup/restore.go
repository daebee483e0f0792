package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// RestoreOptions of Restore. The zero value is good.
type RestoreOptions struct {
	// Databases are directories of live databases that the target must not be,
	// or lie in. A target inside any directory that looks like a database is
	// refused anyway.
	Databases []string
	// AllowOlder consents to an older backup where a newer one cannot be read, and to an
	// older timeline where the record of the newest one cannot (ErrTimelineUnsure).
	AllowOlder bool
	// Standby leaves the database a standby: it is read, and rolled forward by
	// [Follow], until it is promoted.
	Standby bool
	// MaxRAM in bytes is for rolling forward; 0: see mvcc.Options.
	MaxRAM int64
	// Progress is called after each group, and while rolling forward, by one
	// goroutine at a time. It must be quick.
	Progress func(Progress)
	FS       vfs.FS // nil: vfs.OS
}

// RestoreResult is what Restore did.
type RestoreResult struct {
	Manifest Manifest   // of the backup that it started from
	Chain    []BackupID // that backup and those that it needed
	LSN      block.LSN  // the state that is there
	Time     time.Time  // of that commit; zero if the repository does not tell
	LogBytes int64      // of redo that was rolled forward
	Passed   []BackupID // that could not be read; see RestoreOptions.AllowOlder
	Lost     *LogRange  // commits that were made, were asked for, and could not be reached
	Unsure   error      // why the newest state may be another one; see RestorePlan.Unsure
	Target   string     // with symbolic links resolved
	Duration time.Duration
}

// Restore brings the state that t names to directory target, which must not exist
// or be empty; its parent must exist. It goes the way that [PlanRestore] finds: a
// chain of backups, of which each block is written once, and the archived log
// behind it.
//
// It builds beside the target, proves every object and every block on the way,
// and renames when all is proven and durable: whatever goes wrong, also a power
// cut, there is nothing at the target or the whole database. The database
// starts a new timeline (L14), unless it stays a standby.
//
// Where archived log turns out to be damaged, and no other way leads to the state,
// it ends just before the damage, and Lost says which commits are not there.
//
// A restore that is killed, or cancelled by ctx, leaves what it has built beside the
// target: the next one of the same state to the same target goes on with it, any
// other to the same target removes it. After any other error nothing is left.
func Restore(ctx context.Context, repo *Repository, t RestoreTarget, target string, o RestoreOptions) (RestoreResult, error) {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	started := time.Now()
	r := &restore{repo: repo, o: o, target: t, bad: &spoilt{logs: map[string]block.LSN{}}}
	err := r.attempt(ctx, target)
	for err != nil && r.learn(ctx, err) {
		err = r.attempt(ctx, target)
	}
	if err != nil {
		if r.plan == nil {
			return RestoreResult{}, fmt.Errorf("restore: %w", err)
		}
		return RestoreResult{}, fmt.Errorf("restore %v to %s: %w", r.plan.Backup.ID, target, err)
	}
	p := r.plan
	res := RestoreResult{
		Manifest: p.Backup, Chain: p.Chain, LSN: p.LSN, Time: p.Time, LogBytes: r.logBytes,
		Passed: r.bad.backups, Lost: p.Lost, Unsure: p.Unsure, Target: r.place.target, Duration: time.Since(started),
	}
	return res, nil
}

type restore struct {
	repo     *Repository
	o        RestoreOptions
	target   RestoreTarget
	bad      *spoilt
	plan     *RestorePlan
	place    place
	logBytes int64
	reached  time.Time // time of the newest commit that was rolled forward
}

// attempt goes one way to the end.
func (r *restore) attempt(ctx context.Context, target string) (err error) {
	p, err := planRestore(ctx, r.repo, r.target, r.bad)
	if err != nil {
		return err
	}
	r.plan, r.logBytes = p, 0
	if p.Passed != nil && !r.o.AllowOlder {
		return p.Passed.refusal()
	}
	if p.Unsure != nil && !r.o.AllowOlder {
		return p.Unsure
	}
	var log *LogRange
	if p.LSN > p.Backup.EndLSN {
		log = &LogRange{p.Backup.EndLSN, p.LSN}
	}
	lease, err := r.repo.leaseMembers(ctx, "restore", p.members, log)
	if err != nil {
		return err
	}
	defer lease.Close()
	if err := r.prepare(target); err != nil {
		return err
	}
	return r.run(ctx)
}

// errOtherWay says that the way turned out to be barred, and that another one
// leads to the same state.
var errOtherWay = errors.New("archived log is damaged, another way is taken")

// learn reports whether there is another way to try, given what went wrong.
func (r *restore) learn(ctx context.Context, err error) bool {
	if errors.Is(err, errOtherWay) {
		return true
	}
	var damage *block.CorruptError
	if !r.o.AllowOlder || r.plan == nil || ctx.Err() != nil || !errors.As(err, &damage) {
		return false
	}
	id, _, _, _, ok := parseObjectName(damage.Path)
	if !ok {
		id = r.plan.Backup.ID
	}
	if r.bad.backup(id) {
		return false
	}
	r.bad.backups = append(r.bad.backups, id)
	return true
}

// prepare finds out where everything goes, and refuses before it writes.
func (r *restore) prepare(target string) (err error) {
	if r.place, err = findPlace(r.o.FS, target); err != nil {
		return err
	}
	return r.place.refuse(r.repo, r.o.Databases)
}

// run builds beside the target, then renames.
func (r *restore) run(ctx context.Context) error {
	lock, err := lockPlace(r.o.FS, r.place)
	if err != nil {
		return err
	}
	defer lock.release()
	b := r.place.building(r.plan.Backup.ID, r.digest())
	if err := r.place.sweep(r.o.FS, b); err != nil {
		return fmt.Errorf("remove what an earlier restore left: %w", err)
	}
	err = r.makeRoom(b)
	if err == nil {
		err = r.build(ctx, b)
	}
	if err == nil && r.rolls() {
		err = r.forward(ctx, b.dir)
	}
	if err == nil {
		err = r.publish(b)
	}
	if noSpace(err) {
		err = fmt.Errorf("%w: %w", ErrTargetFull, err)
	}
	if err != nil && ctx.Err() == nil { // what is cancelled may go on
		err = errors.Join(err, removeTree(r.o.FS, b.dir))
	}
	return err
}

// makeRoom refuses what does not fit, beside what is there already.
func (r *restore) makeRoom(b building) error {
	free, err := r.o.FS.FreeBytes(r.place.parent)
	if err != nil {
		return fmt.Errorf("look for space: %w", err)
	}
	m := &r.plan.Backup
	need := int64(m.HighWater) * int64(m.BlockSize)
	if info, err := r.o.FS.Lstat(filepath.Join(b.dir, "data")); err == nil {
		need -= min(need, info.Size())
	}
	if free < need {
		const mib = 1 << 20
		return fmt.Errorf("%w: it needs %d MiB, %d MiB are free", ErrTargetFull, (need+mib-1)/mib, free/mib)
	}
	return nil
}

// build makes the database, whole and durable, or goes on with making it.
func (r *restore) build(ctx context.Context, b building) error {
	if err := r.o.FS.Mkdir(b.dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	j, err := b.openJournal()
	if err != nil {
		return err
	}
	defer j.close()
	if j.built() {
		return nil
	}
	if err := r.replay(ctx, b.dir, j); err != nil {
		return err
	}
	return j.setBuilt()
}

// replay makes in dir the database that the chain leads to, whole and durable, or goes on
// with what an earlier call with the same chain and journal has left there.
func (r *restore) replay(ctx context.Context, dir string, j *journal) error {
	b, err := mvcc.NewBuilder(dir, r.info(), mvcc.BuildOptions{FS: r.o.FS, Standby: r.rolls(), Resume: true})
	if err != nil {
		return fmt.Errorf("start database: %w", err)
	}
	if err := replayChain(ctx, r.repo, r.plan.members, b, j, newMeter(r.o.Progress)); err != nil {
		b.Abort()
		return err
	}
	if err := b.Finish(); err != nil {
		b.Abort()
		return fmt.Errorf("finish database: %w", err)
	}
	return r.o.FS.SyncDir(dir)
}

func infoOf(m *Manifest) mvcc.BackupInfo {
	return mvcc.BackupInfo{
		Database: m.Database, Timeline: m.Timeline, LSN: m.EndLSN, Time: m.Committed,
		BlockSize: m.BlockSize, HighWater: m.HighWater, Blocks: m.inUse(), Opened: m.Started, StartStall: m.StartStall,
		History: m.History, RecordSum: m.RecordSum,
	}
}

// publish puts what was built at the target, without its journal.
func (r *restore) publish(b building) error {
	if err := r.o.FS.Remove(b.journalName()); err != nil {
		return err
	}
	if err := r.o.FS.SyncDir(b.dir); err != nil {
		return err
	}
	return r.swap(b.dir)
}

// swap puts the database where it belongs. An empty directory there has to go
// first; somebody who fills it in between makes the removal fail.
func (r *restore) swap(building string) error {
	fsys, target := r.o.FS, r.place.target
	info, err := fsys.Lstat(target)
	switch {
	case err == nil && !info.IsDir():
		return ErrTargetNotEmpty
	case err == nil:
		if err := fsys.Remove(target); err != nil {
			return fmt.Errorf("%w: %w", ErrTargetNotEmpty, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := fsys.Rename(building, target); err != nil {
		return errors.Join(fmt.Errorf("put database in place: %w", err), r.takeBack(building))
	}
	if err := fsys.SyncDir(r.place.parent); err != nil {
		return errors.Join(fmt.Errorf("make the new name durable: %w", err), r.takeBack(building))
	}
	return nil
}

// takeBack undoes a rename that may have happened, though it is not known to be
// durable: nobody is to rely on what an error says is not there.
func (r *restore) takeBack(building string) error {
	if _, err := r.o.FS.Lstat(building); !errors.Is(err, fs.ErrNotExist) {
		return err // nil: it is still where it was built
	}
	return r.o.FS.Rename(r.place.target, building)
}

// removeTree removes dir and what is in it. It follows no links.
func removeTree(fsys vfs.FS, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = removeTree(fsys, name)
		} else {
			err = fsys.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	if err := fsys.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
