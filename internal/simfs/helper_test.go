package simfs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
)

const sector = 512

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, fs *simfs.FS, name string) vfs.File {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	ok(t, err)
	return f
}

func write(t testing.TB, f vfs.File, data string, off int64) {
	t.Helper()
	_, err := f.WriteAt([]byte(data), off)
	ok(t, err)
}

// durable makes a file whose name and content are on disk.
func durable(t testing.TB, fs *simfs.FS, name, data string) vfs.File {
	t.Helper()
	f := open(t, fs, name)
	write(t, f, data, 0)
	ok(t, f.Sync())
	ok(t, fs.SyncDir("/"))
	return f
}

// sectors is whole sectors, each filled with one letter.
func sectors(letters string) string {
	var b strings.Builder
	for _, c := range letters {
		b.WriteString(strings.Repeat(string(c), sector))
	}
	return b.String()
}

// brief is the opposite of sectors: '.' is zeros, '#' is anything else, and a
// last sector that is not whole is followed by '-'.
func brief(data []byte) string {
	var b strings.Builder
	for s := range slices.Chunk(data, sector) {
		switch {
		case len(bytes.Trim(s, "\x00")) == 0:
			b.WriteByte('.')
		case len(bytes.Trim(s, string(s[:1]))) == 0 && s[0] >= 'A' && s[0] <= 'z':
			b.WriteByte(s[0])
		default:
			b.WriteByte('#')
		}
		if len(s) < sector {
			b.WriteByte('-')
		}
	}
	return b.String()
}

// state is "name=brief content" for every file, in order.
func state(t testing.TB, fs *simfs.FS) string {
	t.Helper()
	var parts []string
	for _, name := range fs.Names() {
		data, err := fs.Bytes(name)
		if err != nil { // a directory
			parts = append(parts, name)
			continue
		}
		parts = append(parts, name+"="+brief(data))
	}
	return strings.Join(parts, " ")
}

// states collects what many random crashes of fs leave.
func states(t testing.TB, fs *simfs.FS) []string {
	t.Helper()
	seen := make(map[string]bool)
	for seed := range uint64(4000) {
		seen[state(t, fs.Crash(rand.New(rand.NewPCG(seed, 0)), simfs.Random))] = true
	}
	var all []string
	for s := range seen {
		all = append(all, s)
	}
	slices.Sort(all)
	return all
}

// exactly checks that random crashes leave each of the states wanted and no
// other.
func exactly(t *testing.T, fs *simfs.FS, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := states(t, fs); !slices.Equal(got, want) {
		t.Errorf("crashes leave\n%s\nwant\n%s", lines(got), lines(want))
	}
}

func lines(states []string) string {
	var b strings.Builder
	for _, s := range states {
		fmt.Fprintf(&b, "\t%q\n", s)
	}
	return b.String()
}
