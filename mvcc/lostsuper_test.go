package mvcc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// contents are all files of the database, by name.
func contents(fsys *simfs.FS) map[string][]byte {
	all := map[string][]byte{}
	for _, name := range fsys.Names() {
		if b, err := fsys.Bytes(name); err == nil { // no directory
			all[name] = b
		}
	}
	return all
}

// D5, D11: a database that lost its superblocks, or the whole of its data file, is
// damaged. It was taken for a creation that a crash had cut short, and made anew: Open
// destroyed it, and a check called it sound.
func TestD5_LostSuperblocksAreNoUnfinishedCreation(t *testing.T) {
	for name, lose := range map[string]func(data vfs.File, fsys *simfs.FS) error{
		"superblocks": func(data vfs.File, _ *simfs.FS) error {
			_, err := data.WriteAt(make([]byte, superblockStride+superblockSize), 0)
			return err
		},
		"data": func(data vfs.File, _ *simfs.FS) error { return data.Truncate(0) },
		"superblocks and log": func(data vfs.File, fsys *simfs.FS) error {
			_, err := data.WriteAt(make([]byte, superblockStride+superblockSize), 0)
			entries, readErr := fsys.ReadDir(path.Join(testDir, nameLog))
			err = errors.Join(err, readErr, data.Allocate(0, reserved*block.SizeMax+1))
			for _, e := range entries {
				err = errors.Join(err, fsys.Remove(path.Join(testDir, nameLog, e.Name())))
			}
			return err
		},
	} {
		for _, recycled := range []bool{false, true} { // the log's first segment
			t.Run(fmt.Sprintf("%s, recycled=%v", name, recycled), func(t *testing.T) {
				c, disk := newCrashRun(t, chance.Seed(t), nil)
				ok(t, c.commits(1, 5, 20))
				for recycled && c.s.Status().RedoLSN < 3 {
					ok(t, c.commits(5, 30, 500))
					ok(t, c.checkpoint())
				}
				ok(t, c.s.Close())
				data, err := disk.OpenFile(path.Join(testDir, nameData), os.O_RDWR, 0)
				ok(t, err)
				ok(t, lose(data, disk))
				ok(t, data.Close())
				was := contents(disk)
				for _, o := range []Options{smallOptions(disk), {FS: disk, ReadOnly: true}, {FS: disk, Existing: true}} {
					if _, err := Open(testDir, o); !errors.Is(err, block.ErrCorrupt) {
						t.Fatalf("opened: %v", err)
					}
				}
				for name, now := range contents(disk) {
					if !bytes.Equal(was[name], now) {
						t.Errorf("%s was changed", name)
					}
				}
			})
		}
	}
}

// Who says that a database exists gets none made: not where nothing is, and not where a
// creation was cut short.
func TestOpen_ExistingCreatesNothing(t *testing.T) {
	fsys := simfs.New()
	o := smallOptions(fsys)
	o.Existing = true
	for range 2 {
		if _, err := Open(testDir, o); !errors.Is(err, ErrNotDatabase) {
			t.Fatalf("opened: %v", err)
		}
	}
	if _, err := fsys.Lstat(testDir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("made: %v", err)
	}
	ok(t, fsys.Mkdir(testDir, 0o700))
	f, err := fsys.OpenFile(path.Join(testDir, nameData), os.O_RDWR|os.O_CREATE, 0o600)
	ok(t, err)
	ok(t, f.Close())
	was := fmt.Sprint(fsys.Names())
	if _, err := Open(testDir, o); !errors.Is(err, ErrNotDatabase) || fmt.Sprint(fsys.Names()) != was {
		t.Fatalf("%v; %v", err, fsys.Names())
	}
	ok(t, mustOpen(t, smallOptions(fsys)).Close())
	ok(t, mustOpen(t, o).Close())
}

// D11: a database of which log or second copies are missing is damaged, not absent. It was
// told as a file that does not exist, which is what scripts take for "no database here".
func TestD11_MissingFilesAreDamage(t *testing.T) {
	for _, name := range []string{nameLog, nameDoublewrite} {
		c, disk := newCrashRun(t, chance.Seed(t), nil)
		ok(t, c.commits(1, 5, 20))
		ok(t, c.s.Close())
		lost := path.Join(testDir, name)
		if entries, err := disk.ReadDir(lost); err == nil {
			for _, e := range entries {
				ok(t, disk.Remove(path.Join(lost, e.Name())))
			}
		}
		ok(t, disk.Remove(lost))
		for _, o := range []Options{smallOptions(disk), {FS: disk, ReadOnly: true}, {FS: disk, Existing: true}} {
			var damage *block.CorruptError
			if _, err := Open(testDir, o); !errors.As(err, &damage) || damage.Path != lost {
				t.Errorf("without %s: %v", name, err)
			}
		}
	}
}
