package prove

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// Order watches what a store and its backups do to the disk, write by write, and
// holds it against the order that the laws ask for:
//
//	log first     a block goes in place only when the redo of its version is synced (L6)
//	second copy   ... and a second copy of that version is synced and counts for the
//	              checkpoint in force, or its whole image is in the log from the redo
//	              start of the newest superblock on (L6, R8)
//	half in use   a second copy is overwritten only when the write in place that it
//	              covers is synced (R8)
//	image counts  a superblock that moves the redo start past such an image is written
//	              only when the write in place that relied on it is synced (R8)
//	in place      a superblock names a redo start only when all that was logged below
//	              is in place and synced, or freed (R8)
//	recycle       a log segment is used again only when a synced superblock needs
//	              nothing of it (R8)
//	told once     what a sync that failed should have covered is not durable for the next
//	              one that succeeds: only what was written again is (L8)
//	publish       a manifest gets its name only when every object of its backup has
//	              its bytes and its name synced (L12)
//
// It reads the formats as their packages describe them, and knows nothing else of
// how the store works. It is for one database of 4 KiB blocks, from its creation on.
type Order struct {
	mu  sync.Mutex
	err error

	log    map[string]*segmentFile
	synced block.LSN // newest commit whose redo is synced, whole
	record []byte    // body of a record that goes on in the next

	logged map[block.ID][]block.LSN // versions in the log that are not known to be in place
	images map[block.ID]block.LSN   // newest whole image in the log
	freed  map[block.ID]block.LSN

	seconds map[block.ID]secondCopy
	unseen  []secondPlace // written to the double-write file and not synced

	placed  map[block.ID]placement // in place, not synced
	inPlace map[block.ID]block.LSN // in place and synced

	super       superblock // the newest one written
	superSynced superblock

	files map[string]*orderFile // of the repository
}

// segmentFile is a file of the log.
type segmentFile struct {
	newest  block.LSN // of its records
	pending block.LSN // newest whole commit that ends in it and is not synced
}

// secondCopy is a version in the double-write file.
type secondCopy struct {
	off        int64
	lsn        block.LSN
	checkpoint uint64
}

type secondPlace struct {
	id block.ID
	c  secondCopy
}

// placement is a write in place, and what it relied on.
type placement struct {
	lsn    block.LSN
	second int64     // where its second copy is; -1: none
	image  block.LSN // else the whole image in the log
}

type superblock struct {
	checkpoint uint64
	redo       block.LSN
}

type orderFile struct{ unsynced, unnamed bool }

func newOrder() *Order {
	return &Order{
		log: map[string]*segmentFile{}, logged: map[block.ID][]block.LSN{}, images: map[block.ID]block.LSN{},
		freed: map[block.ID]block.LSN{}, seconds: map[block.ID]secondCopy{}, placed: map[block.ID]placement{},
		inPlace: map[block.ID]block.LSN{}, files: map[string]*orderFile{},
	}
}

// Err is the first thing that was done out of order, or nil.
func (o *Order) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

func (o *Order) fail(format string, args ...any) {
	if o.err == nil {
		o.err = fmt.Errorf("out of order: "+format, args...)
	}
}

// note takes an operation in. It is a trace function of package simfs.
func (o *Order) note(ev simfs.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if ev.Err != nil {
		if ev.Op == simfs.OpSync {
			o.noteFailedSync(ev)
		}
		return
	}
	switch base := path.Base(ev.File); {
	case path.Dir(ev.File) == repoDir || ev.File == repoDir:
		o.noteRepository(ev)
	case ev.File == dbDir+"/data":
		o.noteData(ev)
	case ev.File == dbDir+"/doublewrite":
		o.noteSecond(ev)
	case strings.HasSuffix(base, ".wal"):
		o.noteLog(base, ev)
	}
}

// noteFailedSync forgets what is not durable, and will not be by a sync that succeeds.
func (o *Order) noteFailedSync(ev simfs.Event) {
	switch base := path.Base(ev.File); {
	case ev.File == dbDir+"/data":
		clear(o.placed)
	case ev.File == dbDir+"/doublewrite":
		o.unseen = nil
	case strings.HasSuffix(base, ".wal") && o.log[base] != nil:
		o.log[base].pending = 0
	}
}

const orderBlock = 4096

func (o *Order) noteData(ev simfs.Event) {
	switch ev.Op {
	case simfs.OpSync:
		for id, p := range o.placed {
			o.inPlace[id] = max(o.inPlace[id], p.lsn)
		}
		clear(o.placed)
		o.superSynced = o.super
	case simfs.OpWrite:
		if ev.Off < 2*superblockStride {
			o.noteSuperblock(ev.Data)
			return
		}
		for at := 0; at+orderBlock <= len(ev.Data); at += orderBlock {
			o.noteBlock(ev.Data[at : at+orderBlock])
		}
	}
}

// noteBlock judges a write of one block in place.
func (o *Order) noteBlock(b []byte) {
	tr := b[orderBlock-block.TrailerSize:]
	id, lsn := block.ID(binary.LittleEndian.Uint64(tr[8:])), block.LSN(binary.LittleEndian.Uint64(tr[16:]))
	if lsn > o.synced {
		o.fail("block %v of LSN %v goes in place, the log is synced up to %v", id, lsn, o.synced)
	}
	p := placement{lsn: lsn, second: -1}
	c, has := o.seconds[id]
	switch {
	case has && c.lsn == lsn && c.checkpoint == o.super.checkpoint:
		p.second = c.off
	case o.images[id] >= o.super.redo && o.images[id] > 0:
		p.image = o.images[id]
	case o.super.checkpoint > 1 || o.synced > 0: // not while the file is made
		o.fail("block %v of LSN %v goes in place without a second copy that counts; redo starts at %v, its newest image is of %v", id, lsn, o.super.redo, o.images[id])
	}
	o.placed[id] = p
}

// noteSuperblock judges a checkpoint.
func (o *Order) noteSuperblock(b []byte) {
	if len(b) < 512 {
		return
	}
	next := superblock{
		checkpoint: binary.LittleEndian.Uint64(b[72:]) - uint64(b[123]),
		redo:       block.LSN(binary.LittleEndian.Uint64(b[80:])),
	}
	for id, p := range o.placed {
		if p.second < 0 && p.image > 0 && p.image < next.redo {
			o.fail("redo is to start at %v, block %v in place relies on its image of %v and is not synced", next.redo, id, p.image)
		}
	}
	for id, versions := range o.logged {
		var need block.LSN
		for _, v := range versions {
			if v < next.redo {
				need = max(need, v)
			}
		}
		if need > o.inPlace[id] && o.freed[id] < need {
			o.fail("redo is to start at %v, block %v of LSN %v is in place as of %v only", next.redo, id, need, o.inPlace[id])
		}
		versions = slices.DeleteFunc(versions, func(v block.LSN) bool { return v < next.redo })
		if o.logged[id] = versions; len(versions) == 0 {
			delete(o.logged, id)
		}
	}
	o.super = next
}

// noteSecond takes in second copies.
func (o *Order) noteSecond(ev simfs.Event) {
	switch {
	case ev.Op == simfs.OpSync:
		for _, p := range o.unseen {
			o.seconds[p.id] = p.c
		}
		o.unseen = nil
	case ev.Op == simfs.OpWrite && len(ev.Data) > 8192 && string(ev.Data[:8]) == "SPILLDBW":
		for id, p := range o.placed {
			if p.second >= ev.Off && p.second < ev.Off+ev.Len {
				o.fail("the second copy of block %v at %d is overwritten, its write in place is not synced", id, p.second)
			}
		}
		for id, c := range o.seconds {
			if c.off >= ev.Off && c.off < ev.Off+ev.Len {
				delete(o.seconds, id)
			}
		}
		checkpoint := binary.LittleEndian.Uint64(ev.Data[32:])
		for i := range int(binary.LittleEndian.Uint32(ev.Data[12:])) {
			at := ev.Data[40+16*i:]
			o.unseen = append(o.unseen, secondPlace{
				block.ID(binary.LittleEndian.Uint64(at)),
				secondCopy{ev.Off + 8192 + int64(i)*orderBlock, block.LSN(binary.LittleEndian.Uint64(at[8:])), checkpoint},
			})
		}
	}
}

func (o *Order) noteLog(name string, ev simfs.Event) {
	f := o.log[name]
	if f == nil {
		f = &segmentFile{}
		o.log[name] = f
	}
	switch {
	case ev.Op == simfs.OpSync:
		o.synced = max(o.synced, f.pending)
	case ev.Op == simfs.OpRemove, ev.Op == simfs.OpWrite && ev.Off == 0:
		if f.newest > 0 && f.newest >= o.superSynced.redo {
			o.fail("log file %s has commits up to %v and goes, redo starts at %v", name, f.newest, o.superSynced.redo)
		}
		*f = segmentFile{}
	case ev.Op == simfs.OpWrite && ev.Off >= 8192:
		o.noteRecords(f, ev.Data)
	}
}

const (
	recordHeaderBytes = 40
	recordLast        = 1
	recordPart        = 2
	recordMark        = 4
)

// noteRecords reads the records of one write.
func (o *Order) noteRecords(f *segmentFile, b []byte) {
	for len(b) >= recordHeaderBytes {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		whole := (recordHeaderBytes + n + 7) &^ 7
		flags, lsn := b[12], block.LSN(binary.LittleEndian.Uint64(b[16:]))
		if whole > len(b) || lsn == 0 {
			return // what fills the page
		}
		body := b[recordHeaderBytes : recordHeaderBytes+n]
		b = b[whole:]
		if flags&recordMark != 0 {
			continue
		}
		f.newest = max(f.newest, lsn)
		o.record = append(o.record, body...)
		if flags&recordPart != 0 {
			continue
		}
		if err := o.entries(o.record, lsn); err != nil {
			o.fail("the log cannot be read: %v", err)
		}
		o.record = o.record[:0]
		if flags&recordLast != 0 {
			f.pending = max(f.pending, lsn)
		}
	}
}

// entries notes what a record says of blocks.
func (o *Order) entries(b []byte, lsn block.LSN) error {
	r := entryReader{rest: b}
	for len(r.rest) > 0 && !r.bad {
		switch kind := r.byte(); kind {
		case 1: // commit
			r.skip(16)
		case 2, 3, 7: // image, diff, diff with moves
			id := block.ID(r.uvarint())
			r.skip(1)
			if kind != 2 {
				r.uvarint()
			}
			r.runs(kind == 7)
			if versions := o.logged[id]; len(versions) == 0 || versions[len(versions)-1] < lsn {
				o.logged[id] = append(versions, lsn)
			}
			if kind == 2 {
				o.images[id] = max(o.images[id], lsn)
			}
		case 4: // free
			for range r.uvarint() {
				id := block.ID(r.uvarint())
				o.freed[id] = max(o.freed[id], lsn)
			}
		case 5: // mark
			r.skip(r.uvarint())
		case 6: // void: no entry before it counts
			return nil
		default:
			return fmt.Errorf("entry of kind %d", kind)
		}
	}
	if r.bad {
		return fmt.Errorf("a record of LSN %v ends in the middle of an entry", lsn)
	}
	return nil
}

// entryReader decodes numbers.
type entryReader struct {
	rest []byte
	bad  bool
}

func (r *entryReader) skip(n uint64) {
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return
	}
	r.rest = r.rest[n:]
}

func (r *entryReader) byte() byte {
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *entryReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	r.skip(uint64(max(n, 0)))
	r.bad = r.bad || n <= 0
	return v
}

// runs skips a list of runs.
func (r *entryReader) runs(moves bool) {
	for !r.bad {
		r.uvarint()
		size := r.uvarint()
		switch {
		case size == 0:
			return
		case !moves:
			r.skip(size)
		case size&1 != 0:
			r.uvarint() // a distance: signed, of the same length
		default:
			r.skip(size / 2)
		}
	}
}

// noteRepository judges what is published.
func (o *Order) noteRepository(ev simfs.Event) {
	file := func(name string) *orderFile {
		if o.files[name] == nil {
			o.files[name] = &orderFile{}
		}
		return o.files[name]
	}
	switch ev.Op {
	case simfs.OpCreate:
		file(ev.File).unnamed = true
	case simfs.OpWrite, simfs.OpTruncate:
		file(ev.File).unsynced = true
	case simfs.OpSync:
		file(ev.File).unsynced = false
	case simfs.OpSyncDir:
		for _, f := range o.files {
			f.unnamed = false
		}
	case simfs.OpRemove:
		delete(o.files, ev.File)
	case simfs.OpLink:
		from := *file(ev.File)
		if from.unsynced {
			o.fail("%s gets its name before its bytes are synced", ev.To)
		}
		if id, kind, _ := strings.Cut(path.Base(ev.To), "."); kind == "manifest" {
			for name, f := range o.files {
				_, its, _ := strings.Cut(path.Base(name), ".")
				object := strings.HasPrefix(its, "blocks-") || strings.HasPrefix(its, "index-")
				if object && !strings.HasSuffix(its, ".tmp") && strings.HasPrefix(path.Base(name), id+".") && (f.unsynced || f.unnamed) {
					o.fail("%s is published, its object %s is not durable", ev.To, name)
				}
			}
		}
		o.files[ev.To] = &orderFile{unsynced: from.unsynced, unnamed: true}
	}
}
