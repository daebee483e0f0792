package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// objectKey names an object of a chain.
type objectKey struct {
	part   uint16
	kind   kind
	number uint32
}

// imageObjectsMax is how many objects an image keeps open while nobody reads them.
const imageObjectsMax = 32

// imageObjects are the objects of a chain, of which a few are open. Safe for
// concurrent use.
type imageObjects struct {
	open func(objectKey) (ObjectReader, error)
	name func(objectKey) string // for errors

	mu     sync.Mutex
	opened map[objectKey]*imageObject // guarded by mu
	uses   uint64                     // guarded by mu
}

type imageObject struct {
	once sync.Once // opens
	r    ObjectReader
	err  error

	users int    // guarded by imageObjects.mu
	last  uint64 // use; guarded by imageObjects.mu
}

// read fills p from offset off of an object.
func (o *imageObjects) read(key objectKey, p []byte, off int64) error {
	e := o.get(key)
	defer o.release(key, e)
	e.once.Do(func() { e.r, e.err = o.open(key) })
	if e.err != nil {
		return e.err
	}
	err := readFull(e.r, p, off)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged(o.name(key), off, "object ends within an entry", nil)
	}
	if err != nil {
		return fmt.Errorf("read %s at offset %d: %w", o.name(key), off, err)
	}
	return nil
}

func (o *imageObjects) get(key objectKey) *imageObject {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.opened[key]
	if e == nil {
		e = new(imageObject)
		if o.opened == nil {
			o.opened = make(map[objectKey]*imageObject)
		}
		o.opened[key] = e
	}
	o.uses++
	e.users++
	e.last = o.uses
	return e
}

// release closes the object that was not used for longest where too many are open,
// and forgets one that could not be opened.
func (o *imageObjects) release(key objectKey, e *imageObject) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e.users--
	if e.err != nil && o.opened[key] == e {
		delete(o.opened, key)
	}
	if len(o.opened) <= imageObjectsMax {
		return
	}
	var oldest objectKey
	var found *imageObject
	for k, e := range o.opened {
		if e.users == 0 && (found == nil || e.last < found.last) {
			oldest, found = k, e
		}
	}
	if found != nil {
		delete(o.opened, oldest)
		found.r.Close()
	}
}

// close closes all; nobody reads any more.
func (o *imageObjects) close() {
	for _, e := range o.opened {
		if e.r != nil {
			e.r.Close()
		}
	}
}

func (img *Image) objectName(key objectKey) string {
	return objectName(img.parts[key.part].manifest.ID, key.kind, key.number)
}

// openObject opens an object of the chain and proves that it is the one: size and
// header. ReadBlock has no context: nobody waits for more than one object.
func (img *Image) openObject(key objectKey) (ObjectReader, error) {
	m := img.parts[key.part].manifest
	name, mg := img.objectName(key), magicBlocks
	switch key.kind {
	case kindIndex:
		mg = magicIndex
	case kindLog:
		mg = magicRedo
	}
	for _, o := range m.Objects {
		if o.Kind == string(key.kind) && o.Number == key.number {
			return openProven(context.Background(), img.repo.objects, name, o.Size, func(header []byte) error {
				return checkObjectHeader(name, header, mg, m.Database, m.ID, key.number)
			})
		}
	}
	return nil, damaged(name, -1, "it is in the index, and not in the manifest", nil)
}

// openProven opens an object of a known size, whose header prove finds good.
func openProven(ctx context.Context, objects Objects, name string, size int64, prove func(header []byte) error) (ObjectReader, error) {
	r, err := openObject(ctx, objects, name)
	if err != nil {
		return nil, err
	}
	var header [objectHeaderSize]byte
	switch {
	case r.Size() != size:
		err = damaged(name, -1, fmt.Sprintf("it has %d bytes, the manifest says %d", r.Size(), size), nil)
	default:
		if err = readFull(r, header[:], 0); err == nil {
			err = prove(header[:])
		}
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}
