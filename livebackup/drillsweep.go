package livebackup

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// What a drill keeps in its scratch directory, by a name of its own:
//
//	drill-ID.lock        locked while the drill lives; there before all else, gone after it
//	drill-ID             what was restored
//	.drill-ID.restoring  and what begins so: what the restore builds
//
// So a lock file that can be locked is that of a drill that was killed, and what has its
// name is nobody's. Without a lock file nothing is touched, whatever it is called. The
// scratch directory may be one that other users write to as well: they are not to lead us
// to files elsewhere, so what is not our own is left alone. Our own is what has the owner
// of a file that we have just made there: who that is, a mount may decide.

const (
	drillPrefix = "drill-"
	lockSuffix  = ".lock"
)

// drillDir is where the drill with a lock file restores to.
func drillDir(lock string) string { return strings.TrimSuffix(lock, lockSuffix) }

// newDrill takes the lock file of a drill that begins.
func newDrill(fsys vfs.FS, scratch string) (lock *placeLock, err error) {
	for range 3 { // one that begins may find it not locked yet
		lock, err = takeLock(fsys, filepath.Join(scratch, drillPrefix+newRepositoryID().String()+lockSuffix))
		if !errors.Is(err, ErrRestoreRunning) {
			break
		}
	}
	return lock, err
}

// removeDrill removes what the drill with a lock file restored, and what it built for
// that.
func removeDrill(fsys vfs.FS, lock string) error {
	own, err := fsys.Lstat(lock)
	if err != nil {
		return err
	}
	scratch, dir := filepath.Dir(lock), filepath.Base(drillDir(lock))
	entries, err := fsys.ReadDir(scratch)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != dir && !strings.HasPrefix(e.Name(), place{target: dir}.prefix()) {
			continue
		}
		name := filepath.Join(scratch, e.Name())
		info, err := fsys.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && !sameOwner(info, own):
			continue
		case err == nil && info.IsDir():
			err = removeTree(fsys, name)
		case err == nil:
			err = fsys.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepDrills removes what drills that were killed have left, beside the one with a lock
// file, which begins. It is no matter of that whether it succeeds.
func sweepDrills(fsys vfs.FS, lock string) {
	own, err := fsys.Lstat(lock)
	if err != nil {
		return
	}
	scratch := filepath.Dir(lock)
	entries, err := fsys.ReadDir(scratch)
	if err != nil {
		return
	}
	for _, e := range entries {
		id, isLock := strings.CutSuffix(e.Name(), lockSuffix)
		id, isDrill := strings.CutPrefix(id, drillPrefix)
		if raw, err := hex.DecodeString(id); isLock && isDrill && err == nil && len(raw) == len(RepositoryID{}) && e.Name() != own.Name() {
			sweepDrill(fsys, filepath.Join(scratch, e.Name()), own)
		}
	}
}

// sweepDrill removes what the drill with a lock file has left, if it is dead, and of the
// owner of a file of our own.
func sweepDrill(fsys vfs.FS, lock string, own fs.FileInfo) {
	if info, err := fsys.Lstat(lock); err != nil || !info.Mode().IsRegular() || !sameOwner(info, own) {
		return
	}
	f, err := fsys.OpenFile(lock, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if f.Lock() == nil && removeDrill(fsys, lock) == nil {
		fsys.Remove(lock) // the last: a sweep that is cut short begins again
	}
}
