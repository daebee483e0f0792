package vfs

import "errors"

// ErrLocked means that another process, or another part of this one, holds the
// file's lock.
var ErrLocked = errors.New("file is locked")

// ErrNotRegular means that a name leads to something that is not a regular
// file: a directory, a symbolic link, a device, a pipe or a socket.
var ErrNotRegular = errors.New("not a regular file")

// ErrStandardDescriptor means that the system gave the file a descriptor of
// standard input, output or error, because the process had closed it. What any
// library prints would end up in the file, so it is not opened.
var ErrStandardDescriptor = errors.New("descriptor 0, 1 or 2 is closed and would be taken by the file")
