//go:build unix

package livebackup

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// ownedFS says that all files are those of a user who is not the one that the test runs
// as, as a mount that maps users does, but for names that end in "-other".
type ownedFS struct{ vfs.FS }

type ownedInfo struct {
	fs.FileInfo
	uid uint32
}

func (i ownedInfo) Sys() any { return &syscall.Stat_t{Uid: i.uid} }

func (f ownedFS) Lstat(name string) (fs.FileInfo, error) {
	info, err := f.FS.Lstat(name)
	uid := uint32(os.Geteuid()) + 1
	if strings.HasSuffix(name, "-other") {
		uid++
	}
	return ownedInfo{info, uid}, err
}

// A drill knows what is its own by whom the file system says that its files belong to: it
// leaves nothing, nor what a dead one left. What another user puts beside it, by whatever
// name, does not keep it from that, and stays.
func TestDrill_OwnersAreTheFileSystems(t *testing.T) {
	a := newArchived(t, 41)
	a.change(5)
	a.full()
	a.tail.Close()
	const scratch, dead = "/d/scratch", "/d/scratch/drill-00112233445566778899aabbccddeeff"
	for _, dir := range []string{scratch, dead} {
		if err := makeDir(a.fs, dir); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := takeLock(a.fs, dead+lockSuffix)
	if err != nil {
		t.Fatal(err)
	}
	lock.f.Close()
	other := ""
	check := func(_ context.Context, dir string) error {
		other = filepath.Join(scratch, place{target: dir}.prefix()+"-other")
		return makeDir(a.fs, other)
	}
	_, err = Drill(t.Context(), a.repo, RestoreTarget{}, scratch, DrillOptions{FS: ownedFS{a.fs}, MaxRAM: 16 << 20, NoRecord: true, Check: check})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := a.fs.ReadDir(scratch)
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(other) {
		t.Fatalf("%v is left, %v", entries, err)
	}
}
