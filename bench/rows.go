package bench

import (
	"errors"
	"os"
	"time"
)

// commitRows: row 1, durable commits of one put each.
func (s *suite) commitRows() error {
	for _, v := range []struct {
		id, name string
		writers  int
		batch    bool
		want     Want
	}{
		{"1a", "durable single-put commits, 1 client", 1, false, atLeast(2)},
		{"1b", "durable single-put commits, 64 clients", 64, false, atLeast(20)},
		{"1c", "the same, 64 clients, batch call", 64, true, Want{}},
	} {
		ours, theirs, err := s.duel(v.name, func(e Engine) (Task, error) {
			dir, err := s.base(e)
			return Task{
				Measure: "commits", Dir: dir, Records: s.Records,
				Warmup: pick(s.Quick, 200*time.Millisecond, time.Second/2), Duration: s.window(),
				Load: Load{Records: s.Records, Writers: v.writers, Batch: v.batch},
			}, err
		})
		if err != nil {
			return err
		}
		s.compare(v.id, v.name, "commits_per_second", ours, theirs, v.want)
	}
	return nil
}

// window is how long most measurements take.
func (s *suite) window() time.Duration { return pick(s.Quick, time.Second/2, 3*time.Second) }

// loadRows: rows 2 and 5, a load in random order, and what it writes.
func (s *suite) loadRows() error {
	if s.loaded {
		return nil
	}
	s.loaded = true
	for _, v := range []struct {
		id, name  string
		neverSync bool
	}{
		{"2a", "random-order load, batches of 1000, durable", false},
		{"2b", "random-order load, batches of 1000, not durable", true},
	} {
		ours, theirs, err := s.duel(v.name, func(e Engine) (Task, error) {
			dir, err := s.newDir("load")
			return Task{
				Measure: "load", Dir: dir, Records: s.Records, Config: Config{NeverSync: v.neverSync},
			}, errors.Join(err, s.keep(e, "base", dir))
		})
		if err != nil {
			return err
		}
		s.compare(v.id, v.name, "puts_per_second", ours, theirs, atLeast(5))
		if !v.neverSync {
			s.writtenRows(ours, theirs)
		}
	}
	return nil
}

// writtenRows: row 5, counted in three ways; what each is worth is said at written.
// The device's own count is what was written to disk.
func (s *suite) writtenRows(ours, theirs outcomes) {
	s.compare("5", "bytes that the device wrote per user byte, random durable load", "device_per_user_byte", ours, theirs, atMost(1.0/5))
	s.compare("5d", "  the same, as accounted to the process", "written_per_user_byte", ours, theirs, Want{})
	s.compare("5p", "  the same, as passed to write calls", "passed_per_user_byte", ours, theirs, Want{})
}

// readRows: row 3, point reads of a warm database.
func (s *suite) readRows() error {
	for _, v := range []struct {
		id, name string
		readers  int
	}{
		{"3a", "random point reads, warm, 1 goroutine", 1},
		{"3b", "random point reads, warm, 2 goroutines", 2},
	} {
		ours, theirs, err := s.duel(v.name, func(e Engine) (Task, error) {
			dir, err := s.base(e)
			return Task{Measure: "reads", Dir: dir, Records: s.Records, Readers: v.readers, Duration: s.window()}, err
		})
		if err != nil {
			return err
		}
		s.compare(v.id, v.name, "reads_per_second", ours, theirs, atLeast(1))
	}
	return nil
}

// scanRows: row 4, whole scans of a warm database.
func (s *suite) scanRows() error {
	for _, v := range []struct {
		id, name string
		copying  bool
		want     float64
	}{
		{"4a", "full scan, warm, borrowing", false, 1},
		{"4b", "full scan, warm, copying", true, 0.4},
	} {
		ours, theirs, err := s.duel(v.name, func(e Engine) (Task, error) {
			dir, err := s.base(e)
			return Task{Measure: "scans", Dir: dir, Records: s.Records, Copying: v.copying, Duration: s.window()}, err
		})
		if err != nil {
			return err
		}
		s.compare(v.id, v.name, "records_per_second", ours, theirs, atLeast(v.want))
	}
	return nil
}

// largeRecords is how many records the database of rows 6 and 7 has.
func (s *suite) largeRecords() int { return pick(s.Quick, 20, 3) * s.Records }

// large is the engine's database for rows 6 and 7. It is loaded in the order of
// keys, which is quick, with the log of row 7.
func (s *suite) large(e Engine) (string, error) {
	return s.prepared(e, "large", Task{Records: s.largeRecords(), InOrder: true, Config: Config{LogBytesMax: s.logBytes()}})
}

// memoryShare is the database's size over the memory's, in row 6, and
// maxRAMShare the memory's over MaxRAM: the default, which leaves the rest to the
// page cache. A process of Go does not live in less than memoryLeast.
const (
	memoryShare = 10
	maxRAMShare = 4
	memoryLeast = 32 << 20
)

// memoryLimit is a share of the smaller database: the same memory for both.
func (s *suite) memoryLimit() (limit int64, err error) {
	for _, e := range s.engines() {
		dir, err := s.large(e)
		if err != nil {
			return 0, err
		}
		size, err := dataBytes(dir)
		if err != nil {
			return 0, err
		}
		if size /= memoryShare; limit == 0 || size < limit {
			limit = size
		}
	}
	return max(limit, memoryLeast), nil
}

// largerThanMemoryRows: row 6, a database of ten times the memory.
func (s *suite) largerThanMemoryRows() error {
	limit, err := s.memoryLimit()
	if err != nil {
		return err
	}
	group, err := NewMemoryGroup(limit)
	if errors.Is(err, ErrNoMemoryGroup) {
		s.skip("6", "database of ten times the memory", err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	if err := group.Close(); err != nil { // it was a trial: each process gets its own
		return err
	}
	s.note("6", "both engines have %d bytes of memory, ours MaxRAM %d", limit, limit/maxRAMShare)
	for _, v := range []struct{ id, name, measure, metric string }{
		{"6a", "random reads, database 10x memory", "reads", "reads_per_second"},
		{"6b", "random durable updates, database 10x memory", "commits", "commits_per_second"},
	} {
		if err := s.largerThanMemoryRow(v.id, v.name, v.measure, v.metric, limit); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) largerThanMemoryRow(id, name, measure, metric string, limit int64) error {
	var group *MemoryGroup
	leave := func() error {
		if group == nil {
			return nil
		}
		defer func() { group = nil }()
		return group.Close()
	}
	ours, theirs, err := s.duel(name, func(e Engine) (Task, error) {
		if err := leave(); err != nil {
			return Task{}, err
		}
		dir, err := s.large(e)
		if err == nil {
			err = DropFileCache(dir)
		}
		if err == nil {
			group, err = NewMemoryGroup(limit)
		}
		if err != nil {
			return Task{}, err
		}
		records := s.largeRecords()
		return Task{
			Measure: measure, Dir: dir, Records: records, MemoryGroup: group.Dir,
			Config: Config{RAMBytesMax: limit / maxRAMShare, LogBytesMax: s.logBytes()},
			Warmup: pick(s.Quick, time.Second, 2*time.Second), Duration: pick(s.Quick, time.Second, 5*time.Second),
			Load: Load{Records: records},
		}, nil
	})
	if err := errors.Join(err, leave()); err != nil {
		return err
	}
	s.compare(id, name, metric, ours, theirs, atLeast(1))
	return nil
}

// copyOfBase is a copy of the base, made anew each time, synced, and in the cache.
func (s *suite) copyOfBase(e Engine) (string, error) {
	base, err := s.base(e)
	if err != nil {
		return "", err
	}
	dir, err := s.newDir("copy")
	if err != nil {
		return "", err
	}
	return dir, errors.Join(os.CopyFS(dir, os.DirFS(base)), syncFiles(dir), s.keep(e, "copy", dir))
}

// readerRows: row 8, commits while many readers are open. The readers see as
// many states of a hot set. Each gets a copy of the base: readers make bbolt's file
// grow, up to sixfold a time, and what grew once makes each commit after it slower.
func (s *suite) readerRows() error {
	const many, churn = 1000, 100
	hot := min(s.Records, 10_000)
	for _, v := range []struct {
		id, name  string
		neverSync bool
		want      Want
	}{
		{"8a", "durable commits, 1000 readers / 1 reader", false, atLeast(1 / 1.1)},
		{"8b", "commits that never sync, 1000 readers / 1 reader", true, Want{}},
	} {
		task := func(readers, churn int) func(Engine) (Task, error) {
			return func(e Engine) (Task, error) {
				dir, err := s.copyOfBase(e)
				return Task{
					Measure: "readers", Dir: dir, Records: s.Records, Readers: readers, Churn: churn,
					Config: Config{NeverSync: v.neverSync},
					Warmup: pick(s.Quick, 200*time.Millisecond, time.Second/2), Duration: s.window(),
					Load: Load{Records: s.Records, HotRecords: hot},
				}, err
			}
		}
		oursMany, theirsMany, err := s.duel(v.name+": 1000", task(many, churn))
		if err != nil {
			return err
		}
		oursOne, theirsOne, err := s.duel(v.name+": 1", task(1, 0))
		if err != nil {
			return err
		}
		s.relate(v.id, v.name, "commits_per_second", oursMany, oursOne, theirsMany, theirsOne, v.want)
		if !v.neverSync {
			s.relate(v.id+"l", "the same, median latency", "p50_ms", oursMany, oursOne, theirsMany, theirsOne, atMost(1.1))
		}
	}
	return nil
}

// dataBytes is the size of an engine's files without preallocated log.
func dataBytes(dir string) (int64, error) {
	if info, err := os.Stat(dir + "/data"); err == nil {
		return info.Size(), nil
	}
	return DirBytes(dir)
}
