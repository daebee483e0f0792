package livebackup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// place is where a restore goes: a directory that is not there yet, or empty.
type place struct {
	fs     vfs.FS
	target string // absolute, no symbolic links on the way
	parent string
}

// findPlace resolves target. A target that is a symbolic link stands for what
// it leads to.
func findPlace(fsys vfs.FS, target string) (place, error) {
	abs, err := resolve(fsys, target)
	if err != nil {
		return place{}, err
	}
	p := place{fs: fsys, target: abs, parent: filepath.Dir(abs)}
	info, err := fsys.Lstat(p.parent)
	if err != nil {
		return place{}, fmt.Errorf("look at the target's parent: %w", err)
	}
	if !info.IsDir() || abs == p.parent {
		return place{}, fmt.Errorf("%w: %s cannot be made there", ErrTargetNotEmpty, abs)
	}
	return p, nil
}

// resolve makes name absolute and follows symbolic links, also where the last
// parts do not exist yet. Only the system's own file system has links.
func resolve(fsys vfs.FS, name string) (string, error) {
	if fsys != vfs.OS {
		return filepath.Clean(name), nil
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if !errors.Is(err, fs.ErrNotExist) {
		return real, err
	}
	if info, err := os.Lstat(abs); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return "", fmt.Errorf("%s is a symbolic link that leads nowhere", abs)
	}
	if parent := filepath.Dir(abs); parent != abs {
		if real, err = resolve(fsys, parent); err == nil {
			real = filepath.Join(real, filepath.Base(abs))
		}
	}
	return real, err
}

// refuse says why nothing may be restored to p.
func (p place) refuse(repo *Repository, databases []string) error {
	for dir := p.target; ; dir = filepath.Dir(dir) {
		if repo.dir != "" && samePlace(p.fs, repo.fs, dir, repo.dir) {
			return fmt.Errorf("%w: %s", ErrTargetIsRepository, dir)
		}
		for _, db := range databases {
			if samePlace(p.fs, p.fs, dir, db) {
				return fmt.Errorf("%w: %s", ErrTargetIsDatabase, dir)
			}
		}
		if looksLikeDatabase(p.fs, dir) {
			return fmt.Errorf("%w: %s", ErrTargetIsDatabase, dir)
		}
		if filepath.Dir(dir) == dir {
			break
		}
	}
	return p.checkEmpty()
}

// checkEmpty refuses a target that holds anything: so it cannot contain a
// database or a repository either.
func (p place) checkEmpty() error {
	info, err := p.fs.Lstat(p.target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: it is no directory", ErrTargetNotEmpty)
	}
	parent, err := p.fs.Lstat(p.parent)
	if err != nil {
		return err
	}
	if onOtherDevice(info, parent) {
		return ErrTargetMountPoint
	}
	entries, err := p.fs.ReadDir(p.target)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%w: it holds %s", ErrTargetNotEmpty, entries[0].Name())
	}
	return err
}

// looksLikeDatabase reports whether dir holds the names of a database.
func looksLikeDatabase(fsys vfs.FS, dir string) bool {
	data, err := fsys.Lstat(filepath.Join(dir, "data"))
	if err != nil || !data.Mode().IsRegular() {
		return false
	}
	log, err := fsys.Lstat(filepath.Join(dir, "log"))
	return err == nil && log.IsDir()
}

// samePlace compares what a and b lead to, by device and inode where there
// are such, by name elsewhere.
func samePlace(afs, bfs vfs.FS, a, b string) bool {
	if afs != bfs {
		return false
	}
	b, err := resolve(bfs, b)
	if err != nil {
		return false
	}
	if a == b {
		return true
	}
	ai, aerr := afs.Lstat(a)
	bi, berr := bfs.Lstat(b)
	return aerr == nil && berr == nil && os.SameFile(ai, bi)
}

// prefix starts the names of all that restores to p keep beside it.
func (p place) prefix() string { return "." + filepath.Base(p.target) + ".restoring" }

// sweep removes what dead restores to p left, all but what b goes on with. The
// caller holds p's lock, so none of them lives.
func (p place) sweep(fsys vfs.FS, b building) error {
	entries, err := fsys.ReadDir(p.parent)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(p.parent, e.Name())
		if name == b.dir || !p.isBuilding(e.Name()) || !e.IsDir() {
			continue
		}
		if err := removeTree(fsys, name); err != nil {
			return err
		}
	}
	return nil
}

// placeLock keeps two restores from building at one place, and says that a drill lives.
type placeLock struct {
	fs   vfs.FS
	name string
	f    vfs.File
}

// lockPlace takes the lock file beside p.
func lockPlace(fsys vfs.FS, p place) (*placeLock, error) {
	return takeLock(fsys, filepath.Join(p.parent, p.prefix()))
}

// takeLock makes a lock file, if it is not there, and takes it. Whoever holds it removes
// it at the end; a token tells whether the file we locked still has the name.
func takeLock(fsys vfs.FS, name string) (*placeLock, error) {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	err = f.Lock()
	if errors.Is(err, vfs.ErrLocked) {
		err = ErrRestoreRunning
	}
	if err == nil {
		if err = proveName(fsys, name, f); errors.Is(err, errLostName) {
			err = fmt.Errorf("%w: %w", ErrRestoreRunning, err)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &placeLock{fs: fsys, name: name, f: f}, nil
}

// errLostName says that a file that was just locked has lost its name: who held
// the lock before has removed it.
var errLostName = errors.New("the one before has just ended")

// proveName proves that name leads to the file f.
func proveName(fsys vfs.FS, name string, f vfs.File) error {
	id := newRepositoryID() // 16 random bytes
	if _, err := f.WriteAt(id[:], 0); err != nil {
		return err
	}
	again, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return errLostName
	}
	if err != nil {
		return err
	}
	defer again.Close()
	var back RepositoryID
	err = readFull(again, back[:], 0)
	if err == nil && back != id || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errLostName
	}
	return err
}

// release lets go. Removing an open file fails on some systems; closing first
// would let somebody lock a file that is about to lose its name, which
// proveName catches.
func (l *placeLock) release() {
	if l.fs.Remove(l.name) == nil {
		l.f.Close()
		return
	}
	l.f.Close()
	l.fs.Remove(l.name)
}
