package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// fragile is a database that is served, warns early, and whose log fails when a script
// says so.
type fragile struct {
	held
	disk *logDisk
}

// logDisk is the system's file system, until writes and syncs of logs fail.
type logDisk struct {
	vfs.FS
	failed atomic.Bool
}

func (d *logDisk) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil || !strings.Contains(name, "/log/") {
		return f, err
	}
	return &logFile{f, d}, nil
}

type logFile struct {
	vfs.File
	d *logDisk
}

var errDisk = errors.New("the disk has failed")

func (f *logFile) WriteAt(p []byte, off int64) (int, error) {
	if f.d.failed.Load() {
		return 0, errDisk
	}
	return f.File.WriteAt(p, off)
}

func (f *logFile) Sync() error {
	if f.d.failed.Load() {
		return errDisk
	}
	return f.File.Sync()
}

// fragiles are those that scripts serve, by directory.
var fragiles sync.Map

// cmdServeFragile: serve-fragile DIR serves a database until the script ends. It warns
// of snapshots that are older than a fifth of a second.
func cmdServeFragile(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	f := &fragile{disk: &logDisk{FS: vfs.OS}}
	var err error
	f.db, err = kv.Open(dir, kv.Options{Store: mvcc.Options{
		MaxRAM: 16 << 20, FS: f.disk, SnapshotAgeWarn: 200 * time.Millisecond,
	}})
	ts.Check(err)
	f.server, err = livebackup.Serve(f.db.Store(), livebackup.ServeOptions{})
	ts.Check(err)
	fragiles.Store(dir, f)
	ts.Defer(func() {
		ts.Check(f.server.Close())
		if err := f.db.Close(); err != nil && !f.disk.failed.Load() {
			ts.Check(err)
		}
	})
}

func fragileIn(ts *testscript.TestScript, dir string) *fragile {
	f, there := fragiles.Load(ts.MkAbs(dir))
	if !there {
		ts.Fatalf("%s is not served", dir)
	}
	return f.(*fragile)
}

// cmdBreakLog: break-log DIR makes a commit that counts, has the log fail, and makes one
// that is lost.
func cmdBreakLog(ts *testscript.TestScript, _ bool, args []string) {
	f := fragileIn(ts, args[0])
	put := func(value string) error {
		return f.db.Update(func(tx *kv.Tx) error {
			b, err := tx.Bucket([]byte("records"))
			if err != nil {
				return err
			}
			return b.Put([]byte("key-last"), []byte(value))
		})
	}
	ts.Check(put("counts"))
	f.disk.failed.Store(true)
	if err := put("is lost"); !errors.Is(err, mvcc.ErrPoisoned) {
		ts.Fatalf("a commit whose log cannot be written: %v", err)
	}
}

// cmdSame: same DIR OTHER compares a served database, as it can still be read, with one
// that nobody has open, record by record.
func cmdSame(ts *testscript.TestScript, _ bool, args []string) {
	f := fragileIn(ts, args[0])
	other, err := kv.Open(ts.MkAbs(args[1]), kv.Options{Store: mvcc.Options{MaxRAM: 16 << 20, ReadOnly: true}})
	ts.Check(err)
	want, lsn := everything(ts, f.db)
	got, at := everything(ts, other)
	if lsn != at || len(want) == 0 || !bytes.Equal(want, got) {
		ts.Fatalf("LSN %v with %d bytes, LSN %v with %d bytes", lsn, len(want), at, len(got))
	}
	ts.Check(other.Close())
}

// everything is all records, and the commit that was read at.
func everything(ts *testscript.TestScript, db *kv.DB) (text []byte, lsn string) {
	ts.Check(db.View(func(tx *kv.Tx) error {
		lsn = fmt.Sprint(tx.LSN())
		b, err := tx.Bucket([]byte("records"))
		if err != nil {
			return err
		}
		return b.Scan(nil, nil, func(key, value []byte) error {
			text = fmt.Appendf(text, "%q %q\n", key, value)
			return nil
		})
	}))
	return text, lsn
}
