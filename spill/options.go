package spill

import (
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// Dir is a directory that temporary storage may use, and how much of it.
type Dir struct {
	Path string // exists, is no symbolic link, and belongs to us or to root
	// BytesMax is the most that our file there takes: at least one block.
	BytesMax int64
	// FreeBytesMin is what growing leaves free on the file system for others
	// (the database may be on the same one).
	FreeBytesMin int64
}

// Options of a store. BlockSize must be given.
type Options struct {
	Dirs      []Dir // none: no temporary storage, every Write returns ErrFull
	BlockSize int
	Seed      block.Seed // of the database: what Read returns is sealed with it
	// Encrypt writes nothing in clear: AES-256-GCM with a key that is drawn by
	// Open and never leaves the process.
	Encrypt bool
	// AllowMemoryFS accepts a directory on tmpfs or ramfs. The owner then
	// charges BytesMax as RAM (R17).
	AllowMemoryFS bool
	FS            vfs.FS       // nil: vfs.OS
	Logger        *slog.Logger // nil: silent
}

func (o *Options) validate() error {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if !block.ValidSize(o.BlockSize) {
		return fmt.Errorf("temporary storage: block size %d is not valid", o.BlockSize)
	}
	if len(o.Dirs) > dirsMax {
		return fmt.Errorf("temporary storage: %d directories, at most %d are possible", len(o.Dirs), dirsMax)
	}
	for _, d := range o.Dirs {
		if err := o.validateDir(d); err != nil {
			return fmt.Errorf("temporary directory %s: %w", d.Path, err)
		}
	}
	return nil
}

func (o *Options) validateDir(d Dir) error {
	if slots := d.BytesMax / int64(o.BlockSize); slots < 1 || slots > slotsMax {
		return fmt.Errorf("limit of %d bytes is not between 1 and %d blocks of %d bytes",
			d.BytesMax, int64(slotsMax), o.BlockSize)
	}
	if d.FreeBytesMin < 0 {
		return fmt.Errorf("FreeBytesMin is %d", d.FreeBytesMin)
	}
	info, err := o.FS.Lstat(d.Path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("is not a directory (%v)", info.Mode().Type())
	}
	if err := checkPrivate(info); err != nil {
		return err
	}
	if o.AllowMemoryFS || o.FS != vfs.OS {
		return nil
	}
	inMemory, err := onMemoryFS(d.Path)
	if err != nil {
		return fmt.Errorf("find the kind of file system: %w", err)
	}
	if inMemory {
		return ErrMemoryFS
	}
	return nil
}

// checkPrivate refuses a directory in which somebody else could replace a name:
// writable by others without the sticky bit, or owned by another user. Our
// files have no name for longer than it takes to remove it, so a sticky
// directory is private enough.
func checkPrivate(info fs.FileInfo) error {
	if mode := info.Mode(); permissionsCount && mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("%w: others may write to it (%v): chmod go-w", ErrNotPrivate, mode)
	}
	if !ownerTrusted(info) {
		return fmt.Errorf("%w: it belongs to another user: be that one", ErrNotPrivate)
	}
	return nil
}
