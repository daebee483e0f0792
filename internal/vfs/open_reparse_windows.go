package vfs

import (
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE

// openExact opens name itself, not what a reparse point at name leads to.
// Modes do not exist here: access follows from the directory.
func openExact(name string, flag int, _ fs.FileMode) (*os.File, error) {
	f, err := createFile(name, access(flag), creation(flag), windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if err != nil {
		return nil, err
	}
	info, err := handleInfo(f)
	const other = windows.FILE_ATTRIBUTE_REPARSE_POINT | windows.FILE_ATTRIBUTE_DIRECTORY
	if err == nil && info.FileAttributes&other != 0 {
		err = ErrNotRegular
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f, nil
}

func createFile(name string, access, creation, flags uint32) (*os.File, error) {
	name16, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	h, err := windows.CreateFile(name16, access, shareAll, nil, creation, windows.FILE_ATTRIBUTE_NORMAL|flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(h), name), nil
}

func access(flag int) uint32 {
	switch flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR) {
	case os.O_WRONLY:
		return windows.GENERIC_WRITE
	case os.O_RDWR:
		return windows.GENERIC_READ | windows.GENERIC_WRITE
	}
	return windows.GENERIC_READ
}

func creation(flag int) uint32 {
	switch flag & (os.O_CREATE | os.O_EXCL) {
	case os.O_CREATE | os.O_EXCL:
		return windows.CREATE_NEW
	case os.O_CREATE:
		return windows.OPEN_ALWAYS
	}
	return windows.OPEN_EXISTING
}

// checkDescriptor has nothing to refuse: handles of the standard streams are
// not reused by number.
func checkDescriptor(uintptr) error { return nil }

func chmodDir(string, fs.FileMode) error { return nil }

// rename returns when the new name is on disk.
func rename(oldname, newname string) error {
	old16, err := windows.UTF16PtrFromString(oldname)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: err}
	}
	new16, err := windows.UTF16PtrFromString(newname)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: err}
	}
	const flags = windows.MOVEFILE_REPLACE_EXISTING | windows.MOVEFILE_WRITE_THROUGH
	if err := windows.MoveFileEx(old16, new16, flags); err != nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: err}
	}
	return nil
}

// syncDir flushes the directory's handle where the system allows it. It
// documents no such thing: where it refuses, a created, linked or removed name
// is as safe as NTFS's own journal makes it (in order, but some seconds late);
// a renamed one is safe, see rename.
func syncDir(name string) error {
	d, err := createFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE,
		windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
	if err == nil {
		defer d.Close()
		err = control(d, func(fd uintptr) error { return windows.FlushFileBuffers(windows.Handle(fd)) })
	}
	if pathErr, ok := err.(*fs.PathError); ok {
		err = pathErr.Err
	}
	switch err {
	case nil, windows.ERROR_ACCESS_DENIED, windows.ERROR_INVALID_FUNCTION:
		return nil
	}
	return &fs.PathError{Op: "sync directory", Path: name, Err: err}
}
