package livebackup

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/spillwaydb/spillway/block"
)

// objectSeries writes what a backup has of one kind: a run of bounded objects. One that is
// full is made durable while the next one is written: one at a time, and it counts when
// that is done. Not safe for concurrent use.
type objectSeries struct {
	objects Objects
	pace    *pacer
	meter   *sinkMeter // of who looks how fast this goes
	magic   magic
	kind    kind
	db      block.DatabaseID
	id      BackupID
	limit   int64 // bytes at which an object is closed

	done   []Object   // durable
	last   Object     // the one that is being made durable
	behind chan error // its outcome; nil: there is none
	bytes  int64      // in all objects
	w      ObjectWriter
	sum    hash.Hash
	size   int64  // of the open object
	number uint32 // of the open object
}

// append writes parts one behind the other into one object and returns where.
func (s *objectSeries) append(ctx context.Context, parts ...[]byte) (object uint32, off int64, err error) {
	if s.w == nil {
		if err := s.start(ctx); err != nil {
			return 0, 0, err
		}
	}
	off = s.size
	for _, p := range parts {
		if err := s.write(ctx, p); err != nil {
			return 0, 0, err
		}
	}
	object = s.number
	if s.size >= s.limit {
		err = s.finishBehind()
	}
	return object, off, err
}

// full is how many objects are full, durable or about to be.
func (s *objectSeries) full() int {
	if s.behind != nil {
		return len(s.done) + 1
	}
	return len(s.done)
}

func (s *objectSeries) start(ctx context.Context) error {
	s.number++
	w, err := s.objects.Create(ctx, objectName(s.id, s.kind, s.number))
	if err != nil {
		return writeError("start object", err)
	}
	s.w, s.sum, s.size = w, sha256.New(), 0
	return s.write(ctx, encodeObjectHeader(s.magic, s.db, s.id, s.number))
}

func (s *objectSeries) write(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		n, err := s.pace.wait(ctx, s.meter.piece(len(p)))
		if err != nil {
			return err
		}
		if err := s.putAndSum(p[:n]); err != nil {
			return writeError(fmt.Sprintf("write %s object %d", s.kind, s.number), err)
		}
		s.size += int64(n)
		s.bytes += int64(n)
		p = p[n:]
	}
	return nil
}

// sumBeside is how many bytes are worth another goroutine to hash them.
const sumBeside = 64 << 10

// putAndSum hands bytes to the open object while they are hashed: each takes about as
// long as the other.
func (s *objectSeries) putAndSum(p []byte) error {
	if len(p) < sumBeside {
		s.sum.Write(p)
		return s.put(p)
	}
	var summed sync.WaitGroup
	summed.Go(func() { s.sum.Write(p) })
	err := s.put(p)
	summed.Wait()
	return err
}

// put hands bytes to the open object.
func (s *objectSeries) put(p []byte) error {
	s.meter.begin()
	defer s.meter.end(len(p))
	_, err := s.w.Write(p)
	return err
}

// finish makes the open object durable, if there is one, and all before it.
func (s *objectSeries) finish() error {
	if err := s.finishBehind(); err != nil {
		return err
	}
	return s.settle()
}

// finishBehind has the open object made durable, if there is one.
func (s *objectSeries) finishBehind() error {
	if s.w == nil {
		return nil
	}
	if err := s.settle(); err != nil {
		return err
	}
	w, behind := s.w, make(chan error, 1)
	s.last = Object{Kind: string(s.kind), Number: s.number, Size: s.size, SHA256: Digest(s.sum.Sum(nil))}
	s.w, s.behind = nil, behind
	go func() {
		err := w.Commit()
		if err != nil {
			w.Abort()
		}
		behind <- err
	}()
	return nil
}

// settle waits for the object that is being made durable.
func (s *objectSeries) settle() error {
	if s.behind == nil {
		return nil
	}
	s.meter.begin()
	err := <-s.behind
	s.meter.end(0)
	s.behind = nil
	if err != nil {
		return writeError(fmt.Sprintf("finish %s object %d", s.kind, s.last.Number), err)
	}
	s.done = append(s.done, s.last)
	return nil
}

// abort gives up the open object. Finished ones are the caller's to remove: none comes
// any more.
func (s *objectSeries) abort() {
	_ = s.settle()
	if s.w != nil {
		s.w.Abort()
		s.w = nil
	}
}

// seriesReader reads objects that a manifest has of one kind from first to
// last, proving each: size, header, and SHA-256 when the object ends. Nothing
// that was read from an object counts before its end was reached, unless it was
// proven before. Not safe for concurrent use.
type seriesReader struct {
	objects  Objects
	magic    magic
	kind     kind
	manifest *Manifest
	left     []Object // not yet opened

	// Where somebody keeps count of what is proven, both may be nil:
	trust  func(object uint32) bool  // whether an object was proven before
	proven func(object uint32) error // told of each that was proven now

	trusted bool // the open one was proven before: parts of it may be skipped

	now  Object // open one
	name string
	r    ObjectReader
	sum  hash.Hash
	off  int64
	read int64 // bytes of all objects
}

func newSeriesReader(objects Objects, m *Manifest, list []Object, k kind, mg magic) *seriesReader {
	return &seriesReader{objects: objects, magic: mg, kind: k, manifest: m, left: list}
}

// more opens the next object if the open one is used up. It returns io.EOF
// when all objects are proven.
func (s *seriesReader) more(ctx context.Context) error {
	if s.r != nil && s.off < s.now.Size {
		return nil
	}
	if err := s.finish(); err != nil {
		return err
	}
	if len(s.left) == 0 {
		return io.EOF
	}
	s.now, s.left = s.left[0], s.left[1:]
	s.name = objectName(s.manifest.ID, s.kind, s.now.Number)
	s.trusted = s.trust != nil && s.trust(s.now.Number)
	return s.open(ctx)
}

func (s *seriesReader) open(ctx context.Context) error {
	r, err := openObject(ctx, s.objects, s.name)
	if err != nil {
		return err
	}
	s.r, s.sum, s.off = r, sha256.New(), 0
	if r.Size() != s.now.Size {
		return damaged(s.name, -1, fmt.Sprintf("it has %d bytes, the manifest says %d", r.Size(), s.now.Size), nil)
	}
	var header [objectHeaderSize]byte
	if err := s.fill(header[:]); err != nil {
		return err
	}
	return checkObjectHeader(s.name, header[:], s.magic, s.manifest.Database, s.manifest.ID, s.now.Number)
}

// fill reads the next len(p) bytes of the open object.
func (s *seriesReader) fill(p []byte) error {
	if int64(len(p)) > s.now.Size-s.off {
		return damaged(s.name, s.off, "object ends within an entry", nil)
	}
	if err := readFull(s.r, p, s.off); err != nil {
		return fmt.Errorf("read %s at offset %d: %w", s.name, s.off, err)
	}
	s.sum.Write(p)
	s.off += int64(len(p))
	s.read += int64(len(p))
	return nil
}

// skip passes over the next n bytes of the open object, which is trusted.
func (s *seriesReader) skip(n int64) error {
	if n > s.now.Size-s.off {
		return damaged(s.name, s.off, "object ends within an entry", nil)
	}
	s.off += n
	return nil
}

func (s *seriesReader) finish() error {
	if s.r == nil {
		return nil
	}
	s.r.Close()
	s.r = nil
	if s.trusted {
		return nil
	}
	if Digest(s.sum.Sum(nil)) != s.now.SHA256 {
		return damaged(s.name, -1, "SHA-256 is not the manifest's", nil)
	}
	if s.proven != nil {
		return s.proven(s.now.Number)
	}
	return nil
}

// close lets go of the open object without proving it.
func (s *seriesReader) close() {
	if s.r != nil {
		s.r.Close()
		s.r = nil
	}
}

// readFull reads len(p) bytes, however few the medium gives at a time.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	_, err := io.ReadFull(io.NewSectionReader(r, off, int64(len(p))), p)
	return err
}
