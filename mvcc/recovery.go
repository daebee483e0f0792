package mvcc

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/shadow"
	"github.com/spillwaydb/spillway/snapshot"
)

// recovery redoes the commits that the checkpoint in force does not cover. It
// can be cut and begun again at any point: it writes in place only by the rules
// of the cleaner, and no checkpoint record before it is through.
type recovery struct {
	s        *Store
	lastFree map[block.ID]block.LSN // newest free of a block in the accepted log (R8)
	void     map[block.LSN]struct{} // commits that were given up
	freed    []block.ID             // by the commit that survey reads
	bad      map[block.ID]error     // blocks that cannot be read and had no image yet
	marking  []block.ID             // blocks whose marks are to be raised
	lsn      block.LSN
	at       time.Time
}

// recover opens the log, repairs torn blocks, redoes, and leaves the store as
// it was at the newest durable commit.
func (s *Store) recover() error {
	openLog := s.openLogToRead
	if !s.opts.ReadOnly {
		openLog = s.openLog
		if err := s.secureFiles(); err != nil {
			return fmt.Errorf("secure what was found: %w", err)
		}
	}
	a := &s.anchor.now
	log, err := openLog()
	if err != nil {
		return err
	}
	s.log = log
	s.snapshots = snapshot.New(s.cache, log.End(), s.onBroken)
	s.newest.Store(uint64(log.End()))
	if err := s.repairTorn(); err != nil {
		return err
	}
	r := &recovery{s: s, lastFree: map[block.ID]block.LSN{}, void: map[block.LSN]struct{}{}, bad: map[block.ID]error{}, at: a.durableTime}
	if err := log.Replay(a.redo, r.survey); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if err := log.Replay(a.redo, r.redo); err != nil {
		return fmt.Errorf("redo: %w", err)
	}
	for id, err := range r.bad {
		if err := r.mend(id, err); err != nil {
			return fmt.Errorf("redo: no sound copy: %w", errors.Join(err, s.unreadSecond()))
		}
	}
	s.lastTime = r.at
	s.lastCommit.Store(r.at.UnixNano())
	err = s.loadMeta()
	if errors.Is(err, block.ErrCorrupt) {
		if err = r.mend(metaBlock, err); err == nil {
			err = s.loadMeta()
		}
	}
	return err
}

// secureFiles makes durable what is about to be relied on. Who wrote it may
// have been killed, or its sync may have failed: then the system's cache shows
// what the disk does not hold. Blocks follow when they are redone (mistrust).
func (s *Store) secureFiles() error {
	if err := s.data.file.Truncate(s.data.size); err != nil { // to what it is: the size may be in the cache only
		return fmt.Errorf("set size of %s: %w", s.data.path, err)
	}
	if err := s.writeSuperblock(&s.anchor.now, s.anchor.slot); err != nil {
		return err
	}
	return s.opts.FS.SyncDir(s.dir)
}

// onDurable is called by the log before anyone is told that v is durable. In the
// weaker modes readers may see more already, but whoever has waited for a sync
// relies on every mode having swept what it covers: the cleaner would else end a
// head behind which a version is pending (R1).
func (s *Store) onDurable(v block.LSN) {
	s.advance(v)
	s.horizon.move()
}

// repairTorn puts second copies over blocks whose checksum is bad: only copies
// written since the checkpoint in force, whose in-place write may have been torn.
//
// A block that is the same as its copy is written again, too: if it was the sync
// that failed, the system may show what is not on the medium, and the copy would
// be overwritten before the block is.
//
// One read that fails must not cost the block: the copy may be the only one. So as long
// as some were not read, or not held against their places, none is overwritten: redo
// keeps to RAM. If it turns out that one was needed the store is not opened, and whoever
// opens it once more finds it.
func (s *Store) repairTorn() error {
	if s.sealed {
		return nil
	}
	repaired, again := 0, 0
	now := make([]byte, s.geo.size)
	err := s.second.each(s.checkpoint(), s.data.seed, func(id block.ID, image []byte) error {
		t, err := s.data.read(id, now)
		if err != nil && !errors.Is(err, block.ErrCorrupt) {
			s.second.passedOver(err)
			return nil
		}
		if s.opts.ReadOnly {
			if err == nil {
				return nil
			}
			return s.adoptSecond(id, image)
		}
		if err == nil {
			if second, _ := block.Verify(image, id, s.data.seed); second.LSN != t.LSN {
				return nil
			}
			again++
		} else {
			repaired++
		}
		if _, err := s.data.file.WriteAt(image, s.geo.offset(id)); err != nil {
			return fmt.Errorf("repair block %v: %w", id, err)
		}
		return nil
	})
	if err != nil || repaired+again == 0 {
		return err
	}
	if repaired > 0 {
		s.logger.Info("torn blocks repaired from second copies", "blocks", repaired)
	}
	if err := s.data.file.Sync(); err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	return nil
}

// unreadSecond is why second copies that may be needed were not used, or nil.
func (s *Store) unreadSecond() error {
	if s.second == nil {
		return nil
	}
	return s.second.unread
}

// each decodes a record.
func eachEntry(lsn block.LSN, body []byte, f func(e *redoEntry) error) error {
	rd := redoReader{body}
	for {
		e, more, err := rd.next()
		if err == nil && more {
			err = f(&e)
		}
		if err != nil {
			return fmt.Errorf("commit %v: %w", lsn, err)
		}
		if !more {
			return nil
		}
	}
}

// survey is the first pass: which blocks are freed, and when; which commits are
// void. What a commit frees counts with its last record, which says if it is void. No
// commit can fail behind its frees today; recovery does not rely on that, since a free that
// counted would make the redo before it void, too (R8).
func (r *recovery) survey(lsn block.LSN, body []byte, last bool) error {
	err := eachEntry(lsn, body, func(e *redoEntry) error {
		switch e.kind {
		case entryFree:
			r.freed = append(r.freed, e.ids...)
		case entryCommit:
			if e.at.After(r.at) {
				r.at = e.at
			}
		case entryVoid:
			r.void[lsn] = struct{}{}
		}
		return nil
	})
	if err != nil || !last {
		return err
	}
	if _, void := r.void[lsn]; !void {
		for _, id := range r.freed {
			r.lastFree[id] = lsn
		}
	}
	r.freed = r.freed[:0]
	return nil
}

// redo is the second pass.
func (r *recovery) redo(lsn block.LSN, body []byte, last bool) error {
	r.lsn = lsn
	_, void := r.void[lsn]
	err := eachEntry(lsn, body, func(e *redoEntry) error {
		if !void {
			if err := r.entry(e); err != nil {
				return err
			}
		}
		return r.mark(e)
	})
	if err != nil {
		return err
	}
	return r.raiseMarks()
}

// mark notes the blocks of an entry, applied or not, for the changed-block map (R16).
func (r *recovery) mark(e *redoEntry) error {
	switch e.kind {
	case entryImage, entryDiff:
		r.marking = append(r.marking, e.id)
	case entryFree:
		r.marking = append(r.marking, e.ids...)
	}
	if len(r.marking) < raiseBatch {
		return nil
	}
	return r.raiseMarks()
}

// raiseMarks raises the marks that were noted. It can dirty as many map blocks as
// there are entries, so it looks at the limit on the way.
func (r *recovery) raiseMarks() error {
	s := r.s
	const most = 32 // each may be in two map blocks of its own
	for ids := range slices.Chunk(r.marking, most) {
		if err := r.roomForRedo(); err != nil {
			return err
		}
		if err := s.raise(ids, r.lsn); err != nil {
			return err
		}
	}
	r.marking = r.marking[:0]
	return nil
}

func (r *recovery) entry(e *redoEntry) error {
	switch e.kind {
	case entryImage:
		return r.change(e, r.image)
	case entryDiff:
		return r.change(e, r.diff)
	case entryFree:
		for _, id := range e.ids {
			r.free(id)
		}
	}
	return nil
}

// change applies an entry to its block, unless a later free makes it void (R8).
func (r *recovery) change(e *redoEntry, apply func(*redoEntry) error) error {
	s := r.s
	if !s.geo.isVersioned(e.id) {
		return fmt.Errorf("%w: block %v has no versions", errRedo, e.id)
	}
	if r.lsn < r.lastFree[e.id] {
		return nil
	}
	if !s.opts.ReadOnly {
		if err := s.data.reserve(e.id); err != nil {
			return err
		}
	}
	if err := r.roomForRedo(); err != nil {
		return err
	}
	return apply(e)
}

// mistrust has a block written again that is at or past this commit already: it
// was written after the checkpoint in force, so perhaps not to the disk.
func (r *recovery) mistrust(v *blockcache.Version, image block.LSN) {
	s := r.s
	s.published().Begin(v.ID, v.Shadow())
	if s.opts.ReadOnly {
		return
	}
	l := s.cache.Latch(v.ID)
	defer l.Unlock()
	v.Image = max(v.Image, image)
	if v.Dirty || v.Role != blockcache.RoleHead {
		return
	}
	s.cache.Forget(v)
	from := s.cache.ClassOf(v)
	v.Dirty, v.Rec = true, r.lsn
	s.cache.Reclass(v, from)
}

// image replaces the block, whatever it holds, readable or not, unless it is
// past this commit.
func (r *recovery) image(e *redoEntry) error {
	s := r.s
	delete(r.bad, e.id)
	b, err := s.get(e.id, view{lsn: newest})
	if err == nil {
		past := b.v.LSN >= r.lsn
		if past {
			r.mistrust(b.v, r.lsn)
		}
		b.Release()
		if past {
			return nil
		}
	} else if !errors.Is(err, block.ErrCorrupt) && !errors.Is(err, ErrNotInUse) {
		return err
	}
	d, err := s.cache.NewFrame()
	if err != nil {
		return err
	}
	clear(d)
	if err := e.apply(block.Payload(d), nil); err != nil {
		s.cache.GiveFrame(d)
		return err
	}
	r.install(e, d, r.lsn)
	return nil
}

// diff applies on exactly the predecessor's LSN and skips what is past (R8).
func (r *recovery) diff(e *redoEntry) error {
	s := r.s
	if _, ok := r.bad[e.id]; ok {
		return nil // an image must follow
	}
	b, err := s.get(e.id, view{lsn: newest})
	if errors.Is(err, block.ErrCorrupt) {
		r.bad[e.id] = err
		return nil
	}
	if err != nil {
		return err
	}
	defer b.Release()
	have, want := b.v.LSN, r.lsn-e.since
	if have >= r.lsn {
		r.mistrust(b.v, 0)
		return nil
	}
	if have != want {
		return s.data.corrupt(e.id, fmt.Sprintf("commit %v changes its version %v, but it holds %v", r.lsn, want, have))
	}
	d, err := s.cache.NewFrame()
	if err != nil {
		return err
	}
	copy(d, b.data)
	if err := e.apply(block.Payload(d), b.Payload()); err != nil {
		s.cache.GiveFrame(d)
		return err
	}
	r.install(e, d, 0)
	return nil
}

// install makes a frame the block's head. Nobody reads yet: what it replaces
// goes at once.
func (r *recovery) install(e *redoEntry, d []byte, image block.LSN) {
	s := r.s
	v := &blockcache.Version{ID: e.id, LSN: r.lsn, Type: e.typ, Role: blockcache.RoleHead, Dirty: true, Rec: r.lsn, Image: image}
	l := s.cache.Latch(e.id)
	defer l.Unlock()
	s.published().Begin(e.id, shadow.Version{LSN: v.LSN, Type: v.Type, Image: d})
	if h := l.Head(e.id); h != nil {
		if h.Dirty {
			v.Rec = h.Rec
		}
		if v.Image == 0 {
			v.Image = h.Image
		}
		l.Remove(h)
		s.cache.Kill(h)
	}
	l.Insert(v)
	s.cache.Adopt(v, d)
}

// free forgets the block: what was before needs no redo, and was passed over, so that
// nobody has found it bad; what comes is an image.
func (r *recovery) free(id block.ID) {
	s := r.s
	if r.lsn < r.lastFree[id] || !s.geo.isVersioned(id) {
		return
	}
	l := s.cache.Latch(id)
	defer l.Unlock()
	if h := l.Head(id); h != nil && h.LSN < r.lsn {
		l.Remove(h)
		s.cache.Kill(h)
	}
	s.published().BeginFree(id, r.lsn)
}

// loadMeta reads what the writer keeps in RAM.
func (s *Store) loadMeta() error {
	b, err := s.current(metaBlock)
	if err != nil {
		return fmt.Errorf("read meta block: %w", err)
	}
	s.meta = decodeMeta(b.Payload())
	b.Release()
	if uint64(s.meta.highWater) < reserved {
		return s.data.corrupt(metaBlock, fmt.Sprintf("high-water mark %v is below the reserved places", s.meta.highWater))
	}
	groups := s.geo.groups(s.meta.highWater)
	if int64(groups) > s.data.length()/s.geo.offset(1)+1 {
		return s.data.corrupt(metaBlock, fmt.Sprintf("high-water mark %v is beyond the file", s.meta.highWater))
	}
	s.hints = make([]uint64, groups)
	for g := range s.hints {
		s.hints[g] = reserved
	}
	return nil
}
