package main

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/wal"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"livebackup": main, "make-db": mainMakeDB})
}

// TestScripts runs the command as people do. Run with UPDATE_GOLDEN=1 after a
// help text was changed on purpose.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("UPDATE_GOLDEN") != "",
		RequireExplicitExec: true,
		Condition: func(name string) (bool, error) {
			if name == "tmpfs" {
				return canMount(), nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "hold": cmdHold, "serve": cmdServe, "poke": cmdPoke,
			"flip": cmdFlip, "shape": cmdShape, "await-backup": cmdAwaitBackup, "await-served": cmdAwaitServed, "await-archive": cmdAwaitArchive, "await-match": cmdAwaitMatch, "tmpfs": cmdTmpfs, "newest": cmdNewest,
			"serve-fragile": cmdServeFragile, "break-log": cmdBreakLog, "same": cmdSame, "serve-busy": cmdServeBusy,
		},
	})
}

// cmdExits: exits CODE livebackup ARGS... runs the command and compares its exit
// code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command [args...]")
	}
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// held are the databases that a script has open in the test's own process.
type held struct {
	db     *kv.DB
	server *livebackup.Server
}

func openDB(ts *testscript.TestScript, dir string) *held {
	db, err := kv.Open(ts.MkAbs(dir), kv.Options{Store: mvcc.Options{MaxRAM: 16 << 20}})
	ts.Check(err)
	return &held{db: db}
}

func (h *held) close(ts *testscript.TestScript) {
	if h.server != nil {
		ts.Check(h.server.Close())
	}
	ts.Check(h.db.Close())
}

// mainMakeDB: make-db DIR [RECORDS] makes a database and closes it. It is a
// program of its own: while this process forks for another script, its children
// hold the lock of what it has open for a moment longer than it does.
func mainMakeDB() {
	records := 2000
	if len(os.Args) > 2 {
		records, _ = strconv.Atoi(os.Args[2])
	}
	db, err := kv.Open(os.Args[1], kv.Options{Store: mvcc.Options{MaxRAM: 16 << 20}})
	if err == nil {
		err = errors.Join(db.Update(func(tx *kv.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("records"))
			for i := 0; i < records && err == nil; i++ {
				err = b.Put(fmt.Appendf(nil, "key-%06d", i), slices.Repeat([]byte{byte(i)}, 500))
			}
			return err
		}), db.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// cmdHold: hold DIR keeps a database open until the script ends, unserved.
func cmdHold(ts *testscript.TestScript, _ bool, args []string) {
	h := openDB(ts, args[0])
	ts.Defer(func() { h.close(ts) })
}

// open are the stores that scripts serve, by directory.
var open sync.Map

// cmdServe: serve DIR keeps a database open until the script ends, served, with
// a reader's snapshot.
func cmdServe(ts *testscript.TestScript, _ bool, args []string) {
	h := openDB(ts, args[0])
	var err error
	h.server, err = livebackup.Serve(h.db.Store(), livebackup.ServeOptions{})
	ts.Check(err)
	tx, err := h.db.Store().BeginSnapshot(mvcc.SnapshotOptions{Owner: "test", Label: "monthly report"})
	ts.Check(err)
	open.Store(ts.MkAbs(args[0]), h.db.Store())
	ts.Defer(func() {
		tx.Close()
		h.close(ts)
	})
}

// cmdAwaitBackup: await-backup DIR returns when a backup of a served database
// holds its snapshot.
func cmdAwaitBackup(ts *testscript.TestScript, _ bool, args []string) {
	store := servedHere(ts, args[0])
	await(ts, "no backup began", func() bool {
		return slices.ContainsFunc(store.Status().Snapshots, func(s mvcc.SnapshotStatus) bool { return s.Kind == "backup" })
	})
}

// cmdAwaitArchive: await-archive DIR returns when an archive holds the log of a served
// database.
func cmdAwaitArchive(ts *testscript.TestScript, _ bool, args []string) {
	store := servedHere(ts, args[0])
	await(ts, "no archive began", func() bool {
		return slices.ContainsFunc(store.Status().Holders, func(h wal.HolderStatus) bool { return h.Name == "archive" })
	})
}

// servedHere is the store of a database that this process serves.
func servedHere(ts *testscript.TestScript, dir string) *mvcc.Store {
	value, _ := open.Load(ts.MkAbs(dir))
	store, ok := value.(*mvcc.Store)
	if !ok {
		ts.Fatalf("%s is not served", dir)
	}
	return store
}

// await returns when something is so, and fails if that takes very long.
func await(ts *testscript.TestScript, otherwise string, is func() bool) {
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s", otherwise)
		}
	}
}

// cmdAwaitServed: await-served DIR returns when somebody serves a database.
func cmdAwaitServed(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, "nobody serves "+args[0], func() bool {
		_, err := livebackup.Dial(ts.MkAbs(args[0]))
		return err == nil
	})
}

// cmdAwaitMatch: await-match FILE PATTERN returns when a file is there and a regular
// expression matches what it says.
func cmdAwaitMatch(ts *testscript.TestScript, _ bool, args []string) {
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	await(ts, args[0]+" does not say so", func() bool {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && pattern.Match(text)
	})
}

// cmdPoke: poke FILE OFFSET HEX [SIZE] overwrites bytes, and makes the checksum that ends
// a header of SIZE bytes agree with them.
func cmdPoke(ts *testscript.TestScript, _ bool, args []string) {
	off, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	b, err := hex.DecodeString(args[2])
	ts.Check(err)
	f, err := os.OpenFile(glob(ts, args[0]), os.O_RDWR, 0)
	ts.Check(err)
	_, err = f.WriteAt(b, off)
	if len(args) > 3 {
		size, badSize := strconv.Atoi(args[3])
		header := make([]byte, size)
		_, unread := f.ReadAt(header, 0)
		sum := block.Checksum(0, header[:size-4])
		_, unsealed := f.WriteAt(binary.LittleEndian.AppendUint32(nil, sum), int64(size-4))
		err = errors.Join(err, badSize, unread, unsealed)
	}
	ts.Check(errors.Join(err, f.Close()))
}

// cmdFlip: flip FILE flips a bit in the middle.
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	name := glob(ts, args[0])
	b, err := os.ReadFile(name)
	ts.Check(err)
	b[len(b)/2] ^= 0x10
	ts.Check(os.WriteFile(name, b, 0o600))
}

// glob is the one file that a pattern matches.
func glob(ts *testscript.TestScript, pattern string) string {
	names, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(names) != 1 {
		ts.Fatalf("%s matches %d files", pattern, len(names))
	}
	return names[0]
}

// cmdNewest: newest REPO sets BACKUP to the name of the only backup in REPO.
func cmdNewest(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv("BACKUP", strings.TrimSuffix(filepath.Base(glob(ts, args[0]+"/*.manifest")), ".manifest"))
}

// cmdShape: shape stdout prints the paths and kinds of the JSON that was printed,
// so that a script can compare them.
func cmdShape(ts *testscript.TestScript, _ bool, args []string) {
	var v any
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(d.Decode(&v))
	if d.More() {
		ts.Fatalf("more than one JSON value")
	}
	seen := map[string]bool{}
	shapeOf(v, "", seen)
	lines := make([]string, 0, len(seen))
	for l := range seen {
		lines = append(lines, l)
	}
	slices.Sort(lines)
	fmt.Fprintln(ts.Stdout(), strings.Join(lines, "\n"))
}

func shapeOf(v any, path string, seen map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			shapeOf(e, path+"."+k, seen)
		}
	case []any:
		seen[path+"[]"] = true
		for _, e := range v {
			shapeOf(e, path+"[]", seen)
		}
	default:
		seen[fmt.Sprintf("%s %s", path, kindOf(v))] = true
	}
}

func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case float64:
		return "number"
	case bool:
		return "bool"
	}
	return "null"
}
