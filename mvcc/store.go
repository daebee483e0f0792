package mvcc

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/snapshot"
	"github.com/spillwaydb/spillway/wal"
)

// Store is an open database. Safe for concurrent use. Close it.
type Store struct {
	// Set by Open, then constant.
	opts      Options
	dir       string
	geo       geometry
	logger    *slog.Logger
	now       func() time.Time // the clock of commits
	database  block.DatabaseID
	timeline  block.TimelineID
	created   time.Time
	standby   bool // it only rolls forward (R20)
	sealed    bool // read-only, and the data file is all there is: an image, or a log that was not made yet
	data      *dataFile
	second    *doublewrite
	cache     *blockcache.Cache
	snapshots *snapshot.Set
	log       *wal.Log
	cleaner   *cleaner
	events    *events
	horizon   horizon
	marks     watermarks
	live      liveBackups
	ladder    ladder
	tripped   tripped
	latency   commitLatency
	zeros     []byte // one block

	state     state
	forgotten atomic.Pointer[map[block.ID]block.LSN] // see lose; nil: nothing
	anchor    anchor
	knownMeta atomic.Pointer[metaAt] // as of the newest read transaction
	newest    atomic.Uint64          // LSN of the newest commit
	sweeping  sync.Mutex
	replaced  replacedQueue

	applier applier
	resting sync.Mutex            // held by who syncs and marks the log now and then
	quiet   atomic.Pointer[Quiet] // the store is at rest

	// publishing is held from a commit's publication to its place in the log. It
	// guards counter.
	publishing sync.Mutex
	counter    changeCounter
	changes    changeHistory

	patient turn // of who waits for writer and may give up, see lockWriter

	// writer is held by the open write transaction. It guards what follows.
	writer      sync.Mutex
	workspace   workspace
	meta        meta
	hints       []uint64 // per group: no free bit below
	firstGroup  uint64
	redo        redoWriter
	redoHalves  [2]redoWriter
	scratch     []byte // one block
	marking     []block.ID
	heat        heat  // has its own lock
	partial     bool  // some records of the commit being encoded are in the log
	logged      int64 // bytes since the last round was asked for
	lastTime    time.Time
	clockIsBack bool // the clock is behind lastTime, and that was told

	kept       keptLog
	lastCommit atomic.Int64 // Unix ns, time of the newest commit
	secured    atomic.Int64
	waits      waits
	background sync.WaitGroup
	quit       chan struct{}
}

// waits count what a writer waited for: only ever the disk, unless it is paced, in ns.
type waits struct{ logSpace, dirtyLimit, room, paced, pacedFor atomic.Int64 }

// BlockSize is the size of a block in bytes.
func (s *Store) BlockSize() int { return s.geo.size }

// Dir is the database's directory.
func (s *Store) Dir() string { return s.dir }

// Database is the id of the database.
func (s *Store) Database() block.DatabaseID { return s.database }

// Timeline is the id of the history that the store writes.
func (s *Store) Timeline() block.TimelineID { return s.timeline }

func (s *Store) newestLSN() block.LSN { return block.LSN(s.newest.Load()) }

func (s *Store) leave() { s.state.leave() }

func (s *Store) lastCommitTime() time.Time { return time.Unix(0, s.lastCommit.Load()) }

// pressCleaner asks for a round when the log or the dirty frames are half way
// to their limits. The writer calls it.
func (s *Store) pressCleaner(logged int64) {
	s.logged += logged
	if s.logged > s.logPress() || s.cache.Frames(blockcache.ClassDirty) > s.dirtyMax()/2 {
		s.logged = 0
		s.cleaner.kick()
	}
}

func (s *Store) logPress() int64 {
	limit := s.opts.LogBytesMax
	if limit == 0 {
		limit = s.log.Stats().LimitBytes
	}
	return limit / 2
}

// tickEvery is how often ages, watermarks and the log's idle mark are looked at.
const tickEvery = 100 * time.Millisecond

// tick keeps the clock of snapshots, syncs in DurableInterval, and marks an
// idle log (R5).
func (s *Store) tick() {
	every := tickEvery
	if s.opts.Durability == DurableInterval {
		every = min(every, s.opts.SyncInterval)
	}
	t := time.NewTicker(every)
	defer t.Stop()
	var lastSync time.Time
	var idleAt block.LSN
	for {
		select {
		case <-s.quit:
			return
		case now := <-t.C:
			s.snapshots.Tick(now)
			s.kept.tick(now)
			if s.opts.changesClock == nil {
				s.tickChanges(now)
			}
			if !s.opts.ReadOnly && s.resting.TryLock() {
				if s.opts.Durability == DurableInterval && now.Sub(lastSync) >= s.opts.SyncInterval {
					lastSync = now
					s.failedBehind(s.log.Sync(s.log.End()))
				}
				idleAt = s.markIdle(idleAt)
				s.resting.Unlock()
			}
			s.watch(now)
			s.noteRungs()
			s.pace()
			s.watchGuards()
			s.overdue(now)
			s.followBackups(now)
		}
	}
}

// markIdle marks the log if nothing became durable since the last time, and
// nothing is on its way.
func (s *Store) markIdle(idleAt block.LSN) block.LSN {
	v := s.log.Durable()
	if v == idleAt && v == s.log.End() {
		s.failedBehind(s.log.MarkIdle())
	}
	return v
}

// failedBehind is told how background work on the log went: its first error fails the store.
func (s *Store) failedBehind(err error) {
	if err != nil && s.state.failure() == nil {
		_ = s.fail(err)
	}
}

// Close ends the store. It waits Options.CloseWait for what is open, then breaks
// it: its next use gets a typed error (R21). What was committed is made durable,
// also in the weaker modes; the data file is brought up to date and cut to its
// high-water mark. Calling it again returns ErrClosed.
func (s *Store) Close() error { return s.close(nil) }

// close is Close; last, if not nil, is called when all is at rest, before the
// files are let go.
func (s *Store) close(last func() error) error {
	if !s.state.shut() {
		return ErrClosed
	}
	s.applier.end()
	if !s.waitIdle() {
		s.snapshots.BreakAll(snapshot.ReasonClosed)
		s.endQuiet()
	}
	s.writer.Lock() // a write transaction that does not end keeps Close waiting
	defer s.writer.Unlock()
	if s.opts.Durability != DurableCommit {
		s.advance(s.newestLSN()) // waits for a sweep that a commit still has under way
	}
	close(s.quit)
	s.background.Wait()
	s.cleaner.stop()
	var errs []error
	err := s.state.failure()
	if err == nil && !s.opts.ReadOnly {
		err = s.rest()
	}
	if err == nil && last != nil {
		err = last()
	}
	errs = append(errs, err)
	errs = append(errs, s.release()...)
	s.events.close()
	return errors.Join(errs...)
}

func (s *Store) waitIdle() bool {
	if s.opts.CloseWait < 0 {
		select {
		case <-s.state.idle:
			return true
		default:
			return false
		}
	}
	t := time.NewTimer(s.opts.CloseWait)
	defer t.Stop()
	select {
	case <-s.state.idle:
		return true
	case <-t.C:
		return false
	}
}

// rest brings the files to rest: everything in place, nothing to redo.
func (s *Store) rest() error {
	if err := s.cleaner.round(); err != nil {
		return err
	}
	s.snapshots.BreakAll(snapshot.ReasonClosed)
	s.published().Cut(s.meta.highWater)
	return s.data.shrink(s.meta.highWater)
}

func (s *Store) release() []error {
	errs := []error{s.log.Close()}
	s.snapshots.Close() // what is on its way out is in the cache
	errs = append(errs, s.cache.CloseWhen(s.state.idle))
	if s.second != nil {
		errs = append(errs, s.second.file.Close())
	}
	return append(errs, s.data.file.Close())
}
