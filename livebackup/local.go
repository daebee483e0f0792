package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spillwaydb/spillway/internal/vfs"
)

const (
	dirMode  = 0o700
	fileMode = 0o600
)

// localObjects keeps objects as files of one directory.
//
// An object is written under a temporary name, synced, then linked to its own
// name, which fails if that is taken, and the directory is synced (L12). A
// living writer holds a lock on its temporary file, a living run on its claim:
// what can be locked is a leftover of the dead.
type localObjects struct {
	fs  vfs.FS
	dir string
}

func (l *localObjects) path(name string) string { return filepath.Join(l.dir, name) }

// check stops a name that could leave the directory.
func (l *localObjects) check(ctx context.Context, op, name string) error {
	if !validName(name) {
		return fmt.Errorf("%s object %q: %w", op, name, fs.ErrInvalid)
	}
	return context.Cause(ctx)
}

func (l *localObjects) Create(ctx context.Context, name string) (ObjectWriter, error) {
	if err := l.check(ctx, "create", name); err != nil {
		return nil, err
	}
	var err error
	for range nameTries {
		temp := fmt.Sprintf("%s.%08x%s", name, randomNumber(), tempSuffix)
		var f vfs.File
		if f, err = l.createLocked(temp); err == nil {
			return &localWriter{l: l, name: name, temp: temp, f: f}, nil
		}
		if !errors.Is(err, vfs.ErrLocked) && !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("create object %s: %w", name, err)
}

// createLocked makes a file and locks it. Between the two a sweeper may have
// taken the file for a leftover: vfs.ErrLocked, or fs.ErrNotExist when it is gone.
func (l *localObjects) createLocked(name string) (vfs.File, error) {
	f, err := l.fs.OpenFile(l.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	if err = f.Lock(); err == nil {
		_, err = l.fs.Lstat(l.path(name))
	}
	if err != nil {
		f.Close()
		l.fs.Remove(l.path(name)) // the first error is the one to tell
		return nil, err
	}
	return f, nil
}

func (l *localObjects) Open(ctx context.Context, name string) (ObjectReader, error) {
	if err := l.check(ctx, "open", name); err != nil {
		return nil, err
	}
	f, err := l.fs.OpenFile(l.path(name), os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open object %s: %w", name, err)
	}
	size, err := f.Size()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open object %s: %w", name, err)
	}
	f.DropCache(0, size)
	return &localReader{File: f, size: size}, nil
}

func (l *localObjects) List(ctx context.Context) ([]ObjectInfo, error) {
	entries, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("list repository: %w", err)
	}
	list := make([]ObjectInfo, 0, len(entries))
	for _, e := range entries {
		if !validName(e.Name()) || !e.Type().IsRegular() {
			continue // nothing of ours
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, fmt.Errorf("list repository: %w", err)
		}
		list = append(list, ObjectInfo{Name: e.Name(), Size: info.Size()})
	}
	return list, context.Cause(ctx)
}

func (l *localObjects) Delete(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := l.check(ctx, "delete", name); err != nil {
			return err
		}
		if err := l.remove(name); err != nil {
			return fmt.Errorf("delete object %s: %w", name, err)
		}
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return fmt.Errorf("delete objects: %w", err)
	}
	return nil
}

func (l *localObjects) remove(name string) error {
	if strings.HasSuffix(name, tempSuffix) {
		f, err := l.fs.OpenFile(l.path(name), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Lock(); errors.Is(err, vfs.ErrLocked) {
			return nil // its writer lives
		} else if err != nil {
			return err
		}
	}
	err := l.fs.Remove(l.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (l *localObjects) Claim(ctx context.Context, name string, note []byte) (io.Closer, error) {
	if err := l.check(ctx, "claim", name); err != nil {
		return nil, err
	}
	f, err := l.fs.OpenFile(l.path(name), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", name, err)
	}
	if err := l.lockClaim(f, name, note); err != nil {
		f.Close()
		return nil, fmt.Errorf("claim %s: %w", name, err)
	}
	return f, nil
}

func (l *localObjects) lockClaim(f vfs.File, name string, note []byte) error {
	if err := f.Lock(); errors.Is(err, vfs.ErrLocked) {
		return ErrClaimed
	} else if err != nil {
		return err
	}
	// The one before us may have removed it, and the one after us made another.
	err := proveName(l.fs, l.path(name), f)
	if errors.Is(err, errLostName) {
		return fmt.Errorf("%w: %w", ErrClaimed, err)
	}
	if err == nil {
		_, err = f.WriteAt(note, 0)
	}
	if err == nil && note != nil { // what a dead one said there may have been longer
		err = f.Truncate(int64(len(note)))
	}
	if err != nil {
		l.fs.Remove(l.path(name)) // ours; the first error is the one to tell
		return err
	}
	return nil
}

// localWriter is an object under its temporary name, locked.
type localWriter struct {
	l          *localObjects
	name, temp string
	f          vfs.File
	size       int64
	err        error // the first one: it sticks (L8)
	ended      bool
}

func (w *localWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.f.WriteAt(p, w.size)
	w.f.WriteOut(w.size, int64(n)) // not all at once at Commit, which others would feel
	w.size += int64(n)
	w.err = err
	return n, err
}

func (w *localWriter) Commit() error {
	if w.err == nil {
		w.err = w.commit()
	}
	if w.err != nil {
		return w.err
	}
	w.f.DropCache(0, w.size)
	w.dropTemp()
	return nil
}

// dropTemp ends the writer. It removes before it closes: the lock keeps the
// name ours until then. A name that stays is a leftover that Sweep takes; the
// object, once committed, is durable whatever Close says.
func (w *localWriter) dropTemp() {
	w.ended = true
	removed := w.l.fs.Remove(w.l.path(w.temp)) == nil
	w.f.Close()
	if !removed { // a system that removes no open files
		w.l.fs.Remove(w.l.path(w.temp))
	}
}

func (w *localWriter) commit() error {
	if err := w.f.Sync(); err != nil {
		return err
	}
	err := w.l.fs.Link(w.l.path(w.temp), w.l.path(w.name))
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrObjectExists, err)
	}
	if err != nil {
		return err
	}
	return w.l.fs.SyncDir(w.l.dir)
}

func (w *localWriter) Abort() {
	if !w.ended {
		w.dropTemp()
	}
}

type localReader struct {
	vfs.File
	size int64
}

func (r *localReader) Size() int64 { return r.size }

// Close forgets what was read: a verify is not to wash out the caches of
// those who work.
func (r *localReader) Close() error {
	r.DropCache(0, r.size)
	return r.File.Close()
}

// writeError dresses an error of writing to the repository.
func writeError(what string, err error) error {
	if noSpace(err) {
		return fmt.Errorf("%s: %w: %w: %w", what, ErrRepositoryWrite, ErrRepositoryFull, err)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrRepositoryWrite, err)
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || diskFull(err)
}
