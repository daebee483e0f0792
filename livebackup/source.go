package livebackup

import (
	"context"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Source is a live database that backups can be made of: one that this process
// has open ([NewSource]), or one that another process holds open and serves
// ([Dial]). Safe for concurrent use.
type Source interface {
	// Open opens a snapshot of the database as of now, to be backed up. The
	// caller closes the session; until then it holds originals back.
	Open(ctx context.Context, o SessionOptions) (Session, error)
	// Status tells how the database is.
	Status(ctx context.Context) (mvcc.Status, error)
	// Events returns what happened after the event numbered after, the oldest first: see
	// mvcc.Store.Events. It may return fewer than there are; none, if there are none.
	Events(ctx context.Context, after uint64) ([]mvcc.Event, error)
	// Release ends a live snapshot, by its number in the status; mvcc.ErrNoSnapshot.
	Release(ctx context.Context, id uint64) error
	// Changes tells how the database's blocks have been changing: what PlanBackup
	// goes by.
	Changes(ctx context.Context) (mvcc.Changes, error)
	// Check reads every block and proves every tree, online. progress may be
	// nil; it is called now and then, by one goroutine at a time.
	Check(ctx context.Context, progress func(done, total uint64)) (mvcc.CheckResult, error)
	// OpenLog follows the database's log, and holds it back from being recycled
	// (R14). The caller closes the session. mvcc.ErrLogGone if the log does not reach
	// back to where it is to begin.
	OpenLog(ctx context.Context, o LogOptions) (LogSession, error)
	// Mark makes a commit that changes nothing but has a name, 1 to 255 bytes of
	// text, to restore to, and returns its LSN when it is durable.
	Mark(ctx context.Context, name string) (block.LSN, error)
	// CheckHead proves that the state h, the newest that repository repo has of the
	// database's timeline, lies in the database's history (R18); mvcc.ErrHistory.
	CheckHead(ctx context.Context, repo RepositoryID, h mvcc.Head) error
	// RememberHead makes it durable that repo is about to have the state h (R18).
	RememberHead(ctx context.Context, repo RepositoryID, h mvcc.Head) error
	// Pace asks the live backup with that number in the database's status, or all of
	// them if id is 0, to be written no faster than so many bytes per second from now
	// on; mvcc.PaceUnlimited: as fast as it goes. Who takes it hears of it within a
	// second or so. mvcc.ErrNoBackup if there is none.
	Pace(ctx context.Context, id uint64, bytesPerSecond int64) error
	// RepairBlock repairs a block whose place in the data file is damaged; see
	// mvcc's Store.RepairBlock.
	RepairBlock(ctx context.Context, r mvcc.BlockRepair) (mvcc.BlockRepaired, error)
	// Quiesce brings the database's files to rest and keeps writers waiting: until
	// the quiet is released, and no longer than timeout. Readers go on. ErrNoQuiet if
	// the open write transaction does not end within timeout.
	Quiesce(ctx context.Context, timeout time.Duration) (Quiet, error)
}

// SessionOptions of a session are those of the backup that it is to the store.
type SessionOptions = mvcc.BackupOptions

// Session is a snapshot that hands out its blocks. Not safe for concurrent use.
type Session interface {
	// Info says what the blocks are of.
	Info() mvcc.BackupInfo
	// Next fills buf with whole block images, ids with their numbers, and
	// returns how many; io.EOF (with 0) after the last. It chooses the order,
	// and gives each block once. A *mvcc.FellForwardError comes once: from there on
	// blocks are handed out as they are now, some for the second time, and redo is.
	// Any other error is final.
	Next(ctx context.Context, buf []byte, ids []block.ID) (int, error)
	// Redo calls fn for redo of a session that fell forward, as mvcc.Backup.Redo does.
	// io.EOF when all was handed out, after the io.EOF of Next.
	Redo(ctx context.Context, bytesMax int64, fn func(mvcc.LogRecord) error) (block.LSN, error)
	// Final says what the blocks, with the redo, are of, when Next has returned io.EOF.
	Final() mvcc.BackupInfo
	// Total is how many blocks Next will have handed out in the end, but for falling
	// forward; of an incremental an estimate, and 0 before there is one. It may be called
	// from any goroutine.
	Total() uint64
	// Cost is what the session has cost the database so far; it stays
	// readable after Close.
	Cost() mvcc.Cost
	// Close lets the snapshot go. The second call does nothing.
	Close() error
}

// NewSource makes a store that this process has open a Source. The store stays
// the caller's to close, after all sessions.
func NewSource(s *mvcc.Store) Source { return storeSource{s} }

type storeSource struct{ store *mvcc.Store }

func (s storeSource) Open(ctx context.Context, o SessionOptions) (Session, error) {
	b, err := s.store.OpenBackup(ctx, o)
	if err != nil {
		return nil, err
	}
	return storeSession{b}, nil
}

// storeSession is a backup of a store that this process has open.
type storeSession struct{ *mvcc.Backup }

// Redo looks at ctx between records.
func (s storeSession) Redo(ctx context.Context, bytesMax int64, fn func(mvcc.LogRecord) error) (block.LSN, error) {
	return s.Backup.Redo(bytesMax, func(r mvcc.LogRecord) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return fn(r)
	})
}

func (s storeSource) Status(ctx context.Context) (mvcc.Status, error) {
	return s.store.Status(), context.Cause(ctx)
}

func (s storeSource) Release(ctx context.Context, id uint64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return s.store.Release(id)
}

func (s storeSource) Events(ctx context.Context, after uint64) ([]mvcc.Event, error) {
	return s.store.Events(after), context.Cause(ctx)
}

func (s storeSource) Check(ctx context.Context, progress func(done, total uint64)) (mvcc.CheckResult, error) {
	if progress == nil {
		progress = func(uint64, uint64) {}
	}
	return s.store.Check(ctx, progress)
}

func (s storeSource) Mark(ctx context.Context, name string) (block.LSN, error) {
	if err := checkMarkName(name); err != nil {
		return 0, err
	}
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	return s.store.MarkContext(ctx, name)
}

func (s storeSource) Pace(ctx context.Context, id uint64, bytesPerSecond int64) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return s.store.SetPace(id, bytesPerSecond)
}

func (s storeSource) CheckHead(_ context.Context, repo RepositoryID, h mvcc.Head) error {
	return s.store.CheckHead(repo, h)
}

func (s storeSource) RememberHead(ctx context.Context, repo RepositoryID, h mvcc.Head) error {
	return s.store.RememberHeadContext(ctx, repo, h)
}

func (s storeSource) RepairBlock(ctx context.Context, r mvcc.BlockRepair) (mvcc.BlockRepaired, error) {
	return s.store.RepairBlock(ctx, r)
}
