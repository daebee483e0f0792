package livebackup

import (
	"context"
	"io"
)

// Objects is where a repository keeps its objects: the port that a directory
// implements here, and that a bucket may implement elsewhere. An object
// appears whole or not at all, and never changes. Names are in the alphabet
// [0-9a-z.-], at most 96 bytes. Safe for concurrent use.
type Objects interface {
	// Create starts an object that appears at Commit, if nobody has made one
	// of that name by then.
	Create(ctx context.Context, name string) (ObjectWriter, error)
	// Open opens an object for reading; fs.ErrNotExist if there is none.
	Open(ctx context.Context, name string) (ObjectReader, error)
	// List returns every object that is there, and what dead
	// writers left (names that end in .tmp), in no order.
	List(ctx context.Context) ([]ObjectInfo, error)
	// Delete removes objects, none perhaps, and returns when that is durable, and
	// that all others are there that List would show. A name that is not there is
	// no error. Objects that a living writer has not committed are left alone.
	Delete(ctx context.Context, names ...string) error
	// Claim takes hold of name until Close, or until the process dies, and
	// makes it if need be; ErrClaimed if somebody has hold of it. note is for
	// people who look.
	Claim(ctx context.Context, name string, note []byte) (io.Closer, error)
}

// ObjectWriter writes one object. After any error only Abort may be called.
// Not safe for concurrent use.
type ObjectWriter interface {
	io.Writer
	// Commit makes the object durable, then lets it appear; ErrObjectExists if
	// the name is taken.
	Commit() error
	// Abort removes what was written. It does nothing after Commit returned nil.
	Abort()
}

// ObjectReader reads one object from the medium, not from a cache, where the
// system can do that. Safe for concurrent use.
type ObjectReader interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// ObjectInfo is an object in a list.
type ObjectInfo struct {
	Name string
	Size int64 // bytes
}
