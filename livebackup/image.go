package livebackup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// ErrImageClosed: the image was closed.
var ErrImageClosed = errors.New("image of a backup is closed")

// ImageOptions of OpenBackup. The zero value is good.
type ImageOptions struct {
	// CacheBytes is how much is kept decoded at most; 0: 64 MiB, and never less than
	// 16 MiB. Each goroutine that reads takes two groups more while it decodes one.
	CacheBytes int64

	singly bool // blocks are wanted here and there: of a group that is not compressed only they are read
}

// Image reads a backup in place: blocks, in any order, of a full backup or of an
// incremental with all that it needs. It is an [mvcc.Image], so mvcc.OpenImage makes
// a database of it that can be read. Safe for concurrent use.
//
// It keeps the headers of index sections in memory (48 bytes for each stretch of up to
// 1024 groups), everything else in a cache with a limit. What it reads, it proves:
// checksums of sections and groups, and of each block the trailer, each time. That whole
// objects are the manifest's it does not prove: see [Verify].
type Image struct {
	repo    *Repository
	parts   []*imagePart // of all backups of the chain, the newest first
	info    mvcc.BackupInfo
	layout  mvcc.Layout
	seed    block.Seed
	redos   []*imageRedo // the oldest first
	cache   *imageCache
	objects imageObjects
	decoder chan *decoder
	singly  bool
	lease   io.Closer // nil: whoever opened it has one

	mu     sync.RWMutex // held for reading by those who read
	closed bool         // guarded by mu
}

// imagePart is a part of a backup of the chain.
type imagePart struct {
	*part
	number   uint16
	sections []sectionPlace // by lowest block
	reach    []block.ID     // of sections[:i+1] the highest block
}

// sectionPlace is where a section of an index is.
type sectionPlace struct {
	header sectionHeader
	object uint32
	off    int64 // of the header
}

// sectionsMax bounds the sections that an image keeps in mind: for less than 1 TiB
// in the smallest groups, and hundreds in the usual ones.
const sectionsMax = 1 << 20

// chainMax is how many backups a chain may have that is opened in place.
const chainMax = 1 << 12

// OpenBackup opens backup id (the newest if id is zero) in place. Until the image is
// closed, a prune leaves the backup alone. Close the image.
func OpenBackup(ctx context.Context, repo *Repository, id BackupID, o ImageOptions) (*Image, error) {
	if o.CacheBytes < 0 {
		return nil, fmt.Errorf("open backup %v in place: %w", id, optionError("cache bytes must not be negative"))
	}
	members, lease, err := repo.leaseChain(ctx, "open in place", id)
	if err != nil {
		return nil, fmt.Errorf("open backup in place: %w", err)
	}
	img, err := openChain(ctx, repo, members, o)
	if err != nil {
		lease.Close()
		return nil, fmt.Errorf("open backup %v in place: %w", members[0].ID, err)
	}
	img.lease = lease
	return img, nil
}

// openChain opens a chain that nobody removes meanwhile.
func openChain(ctx context.Context, repo *Repository, members []Entry, o ImageOptions) (*Image, error) {
	windows, err := surveyRedo(ctx, repo.objects, members)
	if err != nil {
		return nil, err
	}
	return openImage(ctx, repo, members, windows, o, nil)
}

// openImage opens a chain whose redo was surveyed. only tells which blocks will be read;
// nil: all.
func openImage(ctx context.Context, repo *Repository, members []Entry, windows []redoWindow, o ImageOptions, only func(block.ID) bool) (*Image, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	o.CacheBytes = max(o.CacheBytes, imageCacheMin)
	parts := partsOf(members)
	if len(parts) > chainMax {
		return nil, optionError("chain of %d backups and their parts, %d can be read in place", len(parts), chainMax)
	}
	m := &members[0].Manifest
	img := &Image{
		repo: repo, info: infoOf(m), layout: mvcc.LayoutOf(m.BlockSize), seed: block.SeedOf(m.Database),
		decoder: make(chan *decoder, min(4, runtime.GOMAXPROCS(0))), singly: o.singly,
	}
	img.objects.open, img.objects.name = img.openObject, img.objectName
	var err error
	if img.cache, err = newImageCache(o.CacheBytes); err != nil {
		return nil, err
	}
	for range cap(img.decoder) {
		d, err := newDecoder()
		if err != nil {
			img.Close()
			return nil, err
		}
		img.decoder <- d
	}
	if err := img.readIndex(ctx, parts, windows, only); err != nil {
		img.Close()
		return nil, err
	}
	return img, nil
}

// readIndex reads what says where everything is.
func (img *Image) readIndex(ctx context.Context, parts []part, windows []redoWindow, only func(block.ID) bool) error {
	sections := 0
	for i := range parts {
		p := &imagePart{number: uint16(i), part: &parts[i]}
		img.parts = append(img.parts, p)
		if err := img.readSections(ctx, p, sectionsMax-sections); err != nil {
			return err
		}
		sections += len(p.sections)
	}
	for _, w := range windows {
		r, err := img.readRedo(ctx, w, only)
		if err != nil {
			return err
		}
		img.redos = append(img.redos, r)
	}
	return nil
}

// Close lets go of the image, after the reads that are going on. The second call
// does nothing.
func (img *Image) Close() error {
	img.mu.Lock()
	defer img.mu.Unlock()
	if img.closed {
		return nil
	}
	img.closed = true
	img.objects.close()
	img.cache.close()
	for range len(img.decoder) {
		(<-img.decoder).close()
	}
	if img.lease != nil {
		return img.lease.Close()
	}
	return nil
}

// Info says what state the image is.
func (img *Image) Info() mvcc.BackupInfo { return img.info }

// ReadBlock fills dst, of the block size, with the whole image of block id. What is
// free at the image's LSN is mvcc.ErrNotInUse: the bitmaps say so, and what they say
// is in use and not there is damage.
func (img *Image) ReadBlock(id block.ID, dst []byte) error {
	img.mu.RLock()
	defer img.mu.RUnlock()
	if img.closed {
		return ErrImageClosed
	}
	if len(dst) != img.info.BlockSize {
		return fmt.Errorf("read block %v of backup %v: buffer of %d bytes", id, img.id(), len(dst))
	}
	used, err := img.inUse(id)
	if err == nil && !used {
		err = mvcc.ErrNotInUse
	}
	if err == nil {
		err = img.read(id, dst)
	}
	if err != nil {
		return fmt.Errorf("read block %v of backup %v: %w", id, img.id(), err)
	}
	return nil
}

func (img *Image) id() BackupID { return img.parts[0].manifest.ID }

// inUse asks the bitmap of the block's group.
func (img *Image) inUse(id block.ID) (bool, error) {
	if id >= img.info.HighWater {
		return false, nil
	}
	g := img.layout.GroupOf(id)
	bits, err := img.cache.get(imageKey{kind: keyBitmap, number: g}, func() (any, int64, error) {
		b := make([]byte, img.info.BlockSize)
		err := img.read(img.layout.Bitmap(g), b)
		return b, int64(len(b)), err
	})
	if err != nil {
		return false, err
	}
	return img.layout.InUse(id, block.Payload(bits.([]byte))), nil
}

// read copies the image of a block that must be there.
func (img *Image) read(id block.ID, dst []byte) error {
	at, there, err := img.locate(id)
	if err == nil && there {
		err = img.copy(at, id, dst)
	}
	if err == nil && len(img.redos) > 0 {
		there, err = img.redo(id, dst, there)
	}
	if err == nil && !there {
		err = &block.CorruptError{Path: img.id().String(), Offset: -1, Block: id, Reason: "it is in use, and missing"}
	}
	return err
}

// copy copies the image of a block as a backup has it.
func (img *Image) copy(at imagePlace, id block.ID, dst []byte) error {
	image, err := img.image(at, dst)
	if err != nil {
		return err
	}
	if _, reason := at.part.bounds().wrong(image, id); reason != "" {
		name := at.name()
		return &block.CorruptError{Path: name, Offset: int64(at.entry.offset), Block: id, Reason: reason}
	}
	copy(dst, image)
	return nil
}

// image is what is at a place, not proven yet. It may use buf, a block.
func (img *Image) image(at imagePlace, buf []byte) ([]byte, error) {
	slot := int(at.slot) * img.info.BlockSize
	if img.singly && at.entry.codec == codecNone {
		key := objectKey{at.part.number, kindBlocks, at.entry.object}
		return buf, img.objects.read(key, buf, int64(at.entry.offset)+groupHeaderSize+int64(slot))
	}
	images, err := img.group(at)
	if err != nil {
		return nil, err
	}
	return images[slot:][:img.info.BlockSize], nil
}

// imagePlace is where a block is.
type imagePlace struct {
	part  *imagePart
	group uint32
	entry groupEntry
	slot  uint32
}

// name of the object that holds it.
func (at imagePlace) name() string {
	return objectName(at.part.manifest.ID, kindBlocks, at.entry.object)
}

// locate finds block id in the newest part that has it, if one does.
func (img *Image) locate(id block.ID) (at imagePlace, there bool, err error) {
	for _, p := range img.parts {
		for i := p.last(id); i >= 0 && p.reach[i] >= id; i-- {
			if p.sections[i].header.highest < id {
				continue
			}
			s, err := img.section(p, i)
			if err != nil {
				return imagePlace{}, false, err
			}
			if run, ok := s.find(id); ok {
				return imagePlace{
					part: p, group: run.group, entry: s.groups[run.group-s.first],
					slot: run.slot + uint32(id-run.first),
				}, true, nil
			}
		}
	}
	return imagePlace{}, false, nil
}

// last is the last section that begins at or below block id, -1 if there is none.
func (p *imagePart) last(id block.ID) int {
	n, _ := slices.BinarySearchFunc(p.sections, id, func(s sectionPlace, id block.ID) int {
		if s.header.lowest <= id {
			return -1
		}
		return 1
	})
	return n - 1
}

// section returns section i of a part, its runs in order of blocks.
func (img *Image) section(p *imagePart, i int) (*section, error) {
	place := &p.sections[i]
	key := imageKey{keySection, p.number, uint64(place.header.first)}
	s, err := img.cache.get(key, func() (any, int64, error) {
		buf := make([]byte, place.header.bytes())
		key := objectKey{p.number, kindIndex, place.object}
		if err := img.objects.read(key, buf, place.off+sectionHeaderSize); err != nil {
			return nil, 0, err
		}
		s := new(section)
		if reason := s.decode(place.header, buf, img.info.BlockSize); reason != "" {
			return nil, 0, damaged(objectName(p.manifest.ID, kindIndex, place.object), place.off, reason, nil)
		}
		s.byBlock()
		return s, int64(cap(s.groups)*groupEntrySize + cap(s.runs)*runEntrySize), nil
	})
	if err != nil {
		return nil, err
	}
	return s.(*section), nil
}

// group returns the images of a group.
func (img *Image) group(at imagePlace) ([]byte, error) {
	images, err := img.cache.get(imageKey{keyGroup, at.part.number, uint64(at.group)}, func() (any, int64, error) {
		b, err := img.decode(at)
		return b, int64(cap(b)), err
	})
	if err != nil {
		return nil, err
	}
	return images.([]byte), nil
}

// decode reads and expands a group.
func (img *Image) decode(at imagePlace) ([]byte, error) {
	e, name := at.entry, at.name()
	buf := make([]byte, groupHeaderSize+int(e.stored)) // capped by the section's decoder
	if err := img.objects.read(objectKey{at.part.number, kindBlocks, e.object}, buf, int64(e.offset)); err != nil {
		return nil, err
	}
	stored := buf[groupHeaderSize:]
	if want := encodeGroupHeader(at.group, e); !bytes.Equal(buf[:groupHeaderSize], want[:]) {
		return nil, damaged(name, int64(e.offset), fmt.Sprintf("group header is not that of group %d", at.group), nil)
	}
	if checksum(stored) != e.crc {
		return nil, damaged(name, int64(e.offset), "group's checksum does not agree", nil)
	}
	d := <-img.decoder
	defer func() { img.decoder <- d }()
	images, err := d.decode(e.codec, stored, make([]byte, int(e.blocks)*img.info.BlockSize))
	if err != nil {
		return nil, damaged(name, int64(e.offset), "group does not decode", err)
	}
	return images, nil
}

// readSections reads the headers of a part's index.
func (img *Image) readSections(ctx context.Context, p *imagePart, room int) error {
	next := p.first
	for _, o := range p.index {
		name := objectName(p.manifest.ID, kindIndex, o.Number)
		for off := int64(objectHeaderSize); off < o.Size; {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			var head [sectionHeaderSize]byte
			if err := img.objects.read(objectKey{p.number, kindIndex, o.Number}, head[:], off); err != nil {
				return err
			}
			h, err := decodeSectionHeader(name, off, head[:])
			switch {
			case err != nil:
				return err
			case h.first != next:
				return damaged(name, off, fmt.Sprintf("section starts with group %d where %d was due", h.first, next), nil)
			case len(p.sections) >= room:
				return damaged(name, off, "more sections than can be kept in mind", nil)
			}
			p.sections = append(p.sections, sectionPlace{h, o.Number, off})
			next += h.groups
			off += sectionHeaderSize + int64(h.bytes())
		}
	}
	if next != p.first+p.Groups {
		return damaged(objectName(p.manifest.ID, kindManifest, 0), -1, fmt.Sprintf("it says %d groups, there are %d", p.Groups, next-p.first), nil)
	}
	slices.SortFunc(p.sections, func(a, b sectionPlace) int { return cmp.Compare(a.header.lowest, b.header.lowest) })
	highest := block.ID(0)
	for _, s := range p.sections {
		highest = max(highest, s.header.highest)
		p.reach = append(p.reach, highest)
	}
	return nil
}
