package bench

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// RepositoryRows are the groups of rows about backups by themselves, chains, log and
// compression. No rival has these: they are compared with cp, cmp, or each other.
func RepositoryRows() []int { return []int{9, 10, 11, 12, 13} }

// blocks is the database of rows 9 to 11, of 250,000 blocks that do not compress.
func (s *suite) blocks() (string, error) {
	key := s.Ours.Name() + " blocks"
	if dir, ok := s.dirs[key]; ok {
		return dir, nil
	}
	dir, err := s.newDir("blocks")
	if err != nil {
		return "", err
	}
	_, err = s.run("prepare blocks", Task{Measure: "fill-blocks", Engine: s.Ours.Name(), Dir: dir, Records: pick(s.Quick, 4000, 250_000)})
	return dir, errors.Join(err, s.keep(s.Ours, "blocks", dir))
}

// blocksTask is a task on the database of blocks with a repository of its own.
func (s *suite) blocksTask(measure string) func() (Task, error) {
	n := 0
	return func() (Task, error) {
		dir, err := s.blocks()
		if err != nil {
			return Task{}, err
		}
		sink, err := s.newDir("backup")
		n++
		return Task{Measure: measure, Engine: s.Ours.Name(), Dir: dir, Backup: BackupOptions{Dir: sink}, Reverse: n%2 == 0}, err
	}
}

// incrementalRows: row 9, an incremental of a database of which 0.1 % of the blocks
// changed, and a full backup.
func (s *suite) incrementalRows() error {
	o, err := s.repeatOurs("incremental, 0.1 % changed", s.Repeats, s.blocksTask("incremental"))
	if err != nil {
		return err
	}
	s.own("9a", "incremental, 0.1 % of blocks changed: reads of it, map and audit included / its size", "incremental_read_share", o, atMost(0.01))
	s.own("9a a", "  with what the audit reads of the base", "incremental_read_all_share", o, Want{})
	s.relateOwn("9b", "  the same, time / full backup", "incremental_seconds", "full_seconds", o, atMost(0.03))
	return nil
}

// copyRows: row 10, a full backup and cp, its proof and cmp.
func (s *suite) copyRows() error {
	o, err := s.repeatOurs("full backup and cp, verify and cmp", s.Repeats, s.blocksTask("copying"))
	if err != nil {
		return err
	}
	s.relateOwn("10a", "full backup, no compression, until durable / cp and fsync", "backup_seconds", "cp_seconds", o, atMost(1.25))
	s.relateOwn("10b", "  its proof, uncached / cmp", "verify_seconds", "cmp_seconds", o, Want{})
	return nil
}

// chainRows: row 11, restoring a full backup with ten incrementals, and a full backup
// of the same state.
func (s *suite) chainRows() error {
	task := s.blocksTask("make-chain")
	t, err := task()
	if err != nil {
		return err
	}
	sink := t.Backup.Dir
	defer os.RemoveAll(sink)
	if _, err := s.run("prepare chain", t); err != nil {
		return err
	}
	var o outcomes
	for i := range s.Repeats {
		t.Measure, t.Reverse = "restore-chain", i%2 == 1
		m, err := s.run("restore of chain and full", t)
		if err != nil {
			return err
		}
		o = append(o, m)
	}
	s.relateOwn("11", "restore of full + 10 incrementals / of one full", "restore_chain_seconds", "restore_full_seconds", o, atMost(1.2))
	return nil
}

// rollRows: row 12, rolling forward what 8 durable clients have committed.
func (s *suite) rollRows() error {
	records := pick(s.Quick, 2000, 200_000)
	n := 0
	o, err := s.repeatOurs("roll forward", s.Repeats, func() (Task, error) {
		dir, err := s.newDir("forward")
		if err := errors.Join(err, s.keep(s.Ours, "forward", dir)); err != nil {
			return Task{}, err
		}
		sink, err := s.newDir("backup")
		n++
		return Task{
			Measure: "roll-forward", Engine: s.Ours.Name(), Dir: dir, Records: records, ValueBytes: ValueBytes,
			Load: Load{Records: records, Writers: 8, ValueBytes: ValueBytes}, Reverse: n%2 == 0,
			Backup: BackupOptions{Dir: sink}, Warmup: pick(s.Quick, 100*time.Millisecond, time.Second/2),
			Duration: pick(s.Quick, time.Second/2, 8*time.Second),
		}, err
	})
	if err != nil {
		return err
	}
	s.relateOwn("12", "commits rolled forward / made by 8 durable clients", "rolled_per_second", "clients_per_second", o, atLeast(5))
	return nil
}

// compressionRows: row 13, what each compression costs writers, while how long. Half
// of each value compresses.
func (s *suite) compressionRows() error {
	dir, err := s.prepared(s.Ours, "compressible", Task{Records: s.largeRecords(), InOrder: true, Load: Load{Compressible: true}})
	if err != nil {
		return err
	}
	size, err := dataBytes(dir)
	if err != nil {
		return err
	}
	config := Config{RAMBytesMax: size / ramShare, TempBytesMax: 2 * size}
	modes := []string{"none", "fastest", "smaller"}
	all := make([]outcomes, len(modes))
	for i := range s.Repeats {
		for k := range modes {
			if i%2 == 1 {
				k = len(modes) - 1 - k
			}
			l := live{load: Load{Writers: 8, Compressible: true}, backup: BackupOptions{Compression: modes[k]}}
			o, err := s.repeatOurs("compression "+modes[k], 1, s.shorter(s.backupTask("live-backups", dir, config, l)))
			if err != nil {
				return err
			}
			all[k] = append(all[k], o...)
		}
	}
	for k, mode := range modes {
		id := fmt.Sprintf("13%c", 'a'+k)
		for _, m := range all[k] {
			lost := m["updates_before_per_second"] - m["updates_during_per_second"]
			m["updates_lost"] = lost * m["backup_seconds"]
		}
		s.relateOwn(id, "compression "+mode+", 8 writers: updates, during / before", "updates_during_per_second", "updates_before_per_second", all[k], Want{})
		s.own(id+" a", "  time", "backup_seconds", all[k], Want{})
		s.own(id+" b", "  updates that the backup cost: lost a second x time", "updates_lost", all[k], Want{})
		s.own(id+" c", "  size", "stored_bytes", all[k], Want{})
	}
	return nil
}

// shorter is a task of half the windows.
func (s *suite) shorter(task func() (Task, error)) func() (Task, error) {
	return func() (Task, error) {
		t, err := task()
		t.Warmup, t.Duration = t.Warmup/2, t.Duration/2
		return t, err
	}
}
