package bench

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// ramShare is the database's size over MaxRAM in row 7.
const ramShare = 16

// logBytes is the log's limit in row 7: small, so that segments are switched and
// released while it is measured.
func (s *suite) logBytes() int64 { return pick[int64](s.Quick, 4<<20, 16<<20) }

// throttled is what the slow sink of row 7b takes, in bytes per second.
const throttled = 20_000_000

// updatesPerTx of the writers in row 7.
const updatesPerTx = 10

// storage is how much temporary storage a backup of row 7 has.
type storage struct {
	name  string
	share float64 // of the database
}

func storages() []storage {
	return []storage{{"ample", 2}, {"1 %", 0.01}}
}

// live is one kind of live backup.
type live struct {
	id, name    string
	load        Load
	backup      BackupOptions
	storage     storage
	want        Want // of the throughput during the backup over that before
	repeats     int
	mayBreakOff bool
}

// backupRows: row 7, live backups of a database of 16 times MaxRAM.
func (s *suite) backupRows() error {
	dir, err := s.large(s.Ours)
	if err != nil {
		return err
	}
	size, err := dataBytes(dir)
	if err != nil {
		return err
	}
	config := Config{RAMBytesMax: size / ramShare, LogBytesMax: s.logBytes()}
	s.note("7", "database of %d bytes, MaxRAM %d bytes, log limit %d bytes", size, config.RAMBytesMax, config.LogBytesMax)
	idle, err := s.repeatOurs("idle backup, uncompressed", s.Repeats, s.backupTask("idle-backup", dir, config, live{}))
	if err != nil {
		return err
	}
	s.own("7t", "backup of the idle database, uncompressed", "backup_seconds", idle, Want{})
	var errs []error
	for _, l := range s.lives() {
		config.TempBytesMax = int64(float64(size) * l.storage.share)
		o, err := s.repeatOurs(l.name, l.repeats, s.backupTask("live-backups", dir, config, l))
		if err != nil {
			s.skip(l.id, l.name, err.Error())
			if errs = append(errs, err); s.ctx.Err() != nil {
				break
			}
			continue
		}
		s.liveRows(l, o, idle)
	}
	return errors.Join(errs...)
}

func count(writers int) string {
	if writers == 1 {
		return "1 writer"
	}
	return fmt.Sprintf("%d writers", writers)
}

// lives are the backups of row 7. Those behind a slow sink take so long that
// they are done once.
func (s *suite) lives() (list []live) {
	for _, st := range storages() {
		breaks := st.share < 1
		for _, writers := range []int{1, 8} {
			name := fmt.Sprintf("%s, %s", count(writers), st.name)
			list = append(list, live{
				id: fmt.Sprintf("7a%d-%c", writers, st.name[0]), name: name, storage: st, repeats: s.Repeats, mayBreakOff: breaks,
				load: Load{Writers: writers}, backup: BackupOptions{Compress: true}, want: atLeast(0.9),
			})
		}
		for _, rate := range []float64{0, 2000} {
			name := fmt.Sprintf("sink of 20 MB/s, %s, %s", pick(rate > 0, "2000 updates/s", "full speed"), st.name)
			list = append(list, live{
				id: fmt.Sprintf("7b%c-%c", pick(rate > 0, 'p', 'f'), st.name[0]), name: name, storage: st, repeats: 1, mayBreakOff: breaks,
				load:   Load{Writers: 8, UpdatesPerSecond: rate},
				backup: BackupOptions{Compress: true, BytesPerSecond: throttled}, want: atLeast(0.95),
			})
		}
	}
	for _, writers := range []int{1, 8} {
		list = append(list, live{
			id: fmt.Sprintf("7a%d-u", writers), name: count(writers) + ", ample, uncompressed",
			storage: storages()[0], repeats: s.Repeats, load: Load{Writers: writers},
		})
	}
	return list
}

// repeatOurs does a task with our engine alone.
func (s *suite) repeatOurs(label string, repeats int, task func() (Task, error)) (all outcomes, err error) {
	for range repeats {
		t, err := task()
		if err != nil {
			return nil, err
		}
		m, err := s.run(label, t)
		if err := errors.Join(err, os.RemoveAll(t.Backup.Dir)); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func (s *suite) backupTask(measure, dir string, config Config, l live) func() (Task, error) {
	return func() (Task, error) {
		sink, err := s.newDir("backup")
		if err != nil {
			return Task{}, err
		}
		records := s.largeRecords()
		l.load.Records, l.load.UpdatesPerTx, l.load.ValueBytes = records, updatesPerTx, ValueBytes
		l.backup.Dir = sink
		return Task{
			Measure: measure, Engine: s.Ours.Name(), Dir: dir, Config: config,
			Records: records, ValueBytes: ValueBytes, Load: l.load, Backup: l.backup,
			Warmup: pick(s.Quick, time.Second/2, 2*time.Second), Duration: pick(s.Quick, time.Second, 6*time.Second),
		}, DropFileCache(dir)
	}
}

// longerMax is by how much a commit may take longer because of a backup, in milliseconds.
const longerMax = 20

// liveRows adds what one kind of backup has shown.
func (s *suite) liveRows(l live, o, idle outcomes) {
	s.relateOwn(l.id, l.name+": updates, during / before", "updates_during_per_second", "updates_before_per_second", o, l.want)
	s.relateOwn(l.id+" a", "  updates, after / before", "updates_after_per_second", "updates_before_per_second", o, Want{})
	if !l.backup.Compress && l.backup.BytesPerSecond == 0 {
		r := Row{ID: l.id + " a", Name: "  time / idle", Unit: "s", Ours: o.series("backup_seconds"), Theirs: idle.series("backup_seconds"), Want: atMost(2)}
		r.Value = share(r.Ours.Median, r.Theirs.Median)
		s.add(r)
	}
	whole := atMost(0)
	if l.mayBreakOff {
		whole = Want{}
	}
	s.own(l.id+" b", "  broken off", "broken", o, whole)
	for _, phase := range []string{"start", "during", "end", "log_switch", "log_release"} {
		s.own(l.id+" c", "  longest commit, "+phase+", longer by", phase+"_max_longer_ms", o, atMost(longerMax))
	}
	// Elsewhere there are too few commits: the percentile is the longest one.
	s.own(l.id+" c", "  p99.99, during, longer by", "during_p9999_longer_ms", o, atMost(longerMax))
	s.own(l.id+" d", "  growth of the data file", "data_growth_bytes", o, atMost(0))
	s.own(l.id+" e", "  peak RSS / granted", "rss_share", o, atMost(1))
}

// relateOwn adds a row of two numbers of the same runs.
func (s *suite) relateOwn(id, name, metric, base string, o outcomes, want Want) {
	r := Row{ID: id, Name: name, Unit: unitOf(metric), Ours: o.series(metric), Theirs: o.series(base), Want: want}
	var shares []float64
	for i := range r.Ours.Samples {
		shares = append(shares, share(r.Ours.Samples[i], r.Theirs.Samples[i]))
	}
	r.Value = newSeries(shares).Median
	s.add(r)
}
