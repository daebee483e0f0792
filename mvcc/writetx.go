package mvcc

import (
	"context"
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/spill"
)

// WriteTx is the write transaction: there is one at a time. It edits private
// copies of blocks, which become the newest versions at Commit. It sees its
// predecessor's commit, durable or not (R3). Not safe for concurrent use. End
// it with Commit or Rollback: until then no other can begin.
type WriteTx struct {
	s    *Store
	base block.LSN
	meta meta // as the transaction has it
	was  meta // as it was at the base

	workspace
	promised int64 // bytes asked of the budget and not taken yet
	taken    int64 // bytes of entries in away, and what leads to them
	spillAt  int   // where the search for something to spill goes on
	open     bool
	failed   error // what made the transaction unfit for commit
}

// workspace is memory that one write transaction leaves to the next. The
// transaction itself is new each time: a late Rollback of one that has ended
// must not find its successor.
type workspace struct {
	byID   map[block.ID]int       // places in blocks
	blocks []private              // those that have a frame: at most the transaction's share
	away   *blockcache.EntryTable // the others: spilled, or freed
	freed  []block.ID
}

// private is one block that the transaction changes and that has a frame.
type private struct {
	v       *blockcache.Version
	base    *blockcache.Version // pinned version that it replaces; nil: log the image
	since   block.LSN           // LSN of the version it replaces, if any
	existed bool                // there is a version to replace
}

// The transaction's flags of an entry in away. Until is private.since.
const (
	awayExisted = blockcache.EntryOwn << iota // private.existed
	awayFreed                                 // the block's version ends here; there is no new one
)

// What the transaction asks the budget for with each block, in bytes (R7): entries,
// and the heap that leads to them.
//
//	with a frame   awayBytes + publishBytes, and replacedBytes if it existed
//	spilled        publishBytes, and replacedBytes if it existed
//	freed          publishBytes: one entry says all
//
// What it takes before it commits is counted as it is taken.
const (
	awayBytes     = blockcache.EntryBytes + blockcache.EntryTableBytes // the entry becomes the head's
	publishBytes  = blockcache.EntryTableBytes + 2*(4+8+8)             // place in the latch's table, in the lists of spilled, of replaced and of dirty blocks
	replacedBytes = blockcache.EntryBytes                              // of the version that is replaced, while it is pending
	privateBytes  = awayBytes + publishBytes
)

// BeginWrite waits for the write transaction before it to end. ErrReadOnly or
// ErrStandby where nobody can write.
func (s *Store) BeginWrite() (*WriteTx, error) { return s.beginWriteFor(context.Background()) }

// beginWriteFor is BeginWrite, until ctx ends.
func (s *Store) beginWriteFor(ctx context.Context) (*WriteTx, error) {
	switch {
	case s.opts.ReadOnly:
		return nil, ErrReadOnly
	case s.standby:
		return nil, ErrStandby
	}
	return s.beginWrite(ctx)
}

func (s *Store) beginWrite(ctx context.Context) (*WriteTx, error) {
	if err := s.lockWriter(ctx); err != nil {
		return nil, err
	}
	if err := s.state.writable(); err != nil {
		s.writer.Unlock()
		return nil, err
	}
	s.state.enter()
	return &WriteTx{s: s, base: s.newestLSN(), open: true, meta: s.meta, was: s.meta, workspace: s.workspace}, nil
}

// Base is the commit that the transaction sees.
func (t *WriteTx) Base() block.LSN { return t.base }

// Root is the front door's root as the transaction has it.
func (t *WriteTx) Root() Root { return t.meta.root }

// SetRoot changes the front door's root.
func (t *WriteTx) SetRoot(r Root) { t.meta.root = r }

func (t *WriteTx) find(id block.ID) *private {
	if i, ok := t.byID[id]; ok {
		return &t.blocks[i]
	}
	return nil
}

func (t *WriteTx) add(p private) *private {
	t.byID[p.v.ID] = len(t.blocks)
	t.blocks = append(t.blocks, p)
	return &t.blocks[len(t.blocks)-1]
}

// remove takes a block out of those that have a frame.
func (t *WriteTx) remove(p *private) {
	at, last := t.byID[p.v.ID], len(t.blocks)-1
	delete(t.byID, p.v.ID)
	if at != last {
		t.blocks[at] = t.blocks[last]
		t.byID[t.blocks[at].v.ID] = at
	}
	t.blocks[last] = private{}
	t.blocks = t.blocks[:last]
}

// changed is how many blocks the transaction changes or frees.
func (t *WriteTx) changed() int { return len(t.blocks) + t.away.Len() }

// own returns the transaction's own version of a block, from temporary storage if
// it was spilled; nil if it has none.
func (t *WriteTx) own(id block.ID) (*private, error) {
	if p := t.find(id); p != nil {
		return p, nil
	}
	h := t.away.Find(id)
	if h == 0 {
		return nil, nil
	}
	if t.s.cache.Entry(h).Flags&awayFreed != 0 {
		return nil, fmt.Errorf("read block %v: %w", id, ErrNotInUse)
	}
	return t.unspill(h)
}

// Block returns a block as the transaction has it.
func (t *WriteTx) Block(id block.ID) (Block, error) {
	if !t.open {
		return Block{}, ErrTxDone
	}
	if p, err := t.own(id); p != nil || err != nil {
		return t.pin(p), err
	}
	return t.s.current(id)
}

// pin lends a private block; nil is none.
func (t *WriteTx) pin(p *private) Block {
	if p == nil {
		return Block{}
	}
	p.v.Pin()
	return Block{p.v, p.v.Data(), t.s.cache}
}

// Edit returns the transaction's own copy of a block. Its payload may be
// written until Release.
func (t *WriteTx) Edit(id block.ID) (Block, error) {
	if !t.open {
		return Block{}, ErrTxDone
	}
	if p, err := t.own(id); p != nil || err != nil {
		return t.pin(p), err
	}
	if err := t.promise(privateBytes + replacedBytes); err != nil {
		return Block{}, err
	}
	if err := t.makeRoom(); err != nil {
		return Block{}, err
	}
	old, err := t.s.current(id)
	if err != nil {
		return Block{}, err
	}
	v, err := t.version(id, old.Type())
	if err != nil {
		old.Release()
		return Block{}, err
	}
	copy(v.Data(), old.data)
	return t.pin(t.add(private{v: v, base: old.v, since: old.v.LSN, existed: true})), nil // keeps old's pin
}

// version makes a private version. It has the LSN that the commit will get:
// there is one write transaction at a time, and LSNs have no gaps.
func (t *WriteTx) version(id block.ID, typ block.Type) (*blockcache.Version, error) {
	v, err := t.s.cache.NewVersion(id, typ)
	if err == nil {
		v.LSN = t.base + 1
	}
	return v, err
}

// Alloc returns a zeroed block that was free. Its space on disk is reserved.
func (t *WriteTx) Alloc(typ block.Type) (Block, error) {
	if !t.open {
		return Block{}, ErrTxDone
	}
	id, err := t.allocate()
	if err != nil {
		return Block{}, err
	}
	return t.blank(id, typ)
}

// blank gives the transaction a zeroed private version of a block that was
// free before, or in this transaction became so.
func (t *WriteTx) blank(id block.ID, typ block.Type) (Block, error) {
	h := t.away.Find(id) // freed earlier in this transaction
	bytes := int64(privateBytes)
	if h != 0 {
		bytes = awayBytes + replacedBytes
	}
	if err := t.promise(bytes); err != nil {
		return Block{}, err
	}
	if err := t.makeRoom(); err != nil {
		return Block{}, err
	}
	v, err := t.version(id, typ)
	if err != nil {
		return Block{}, err
	}
	clear(v.Data())
	p := private{v: v}
	if h != 0 {
		p = t.s.privateOf(h)
		p.v = v
		t.forget(h)
	}
	return t.pin(t.add(p)), nil
}

// forget takes an entry out of away.
func (t *WriteTx) forget(h blockcache.Handle) {
	t.away.Remove(t.s.cache.Entry(h).ID)
	t.s.cache.FreeEntry(h)
	t.taken -= awayBytes
}

// Free gives a block back, for use at once (L11): by this transaction, too. The
// caller has released it.
func (t *WriteTx) Free(id block.ID) error {
	if !t.open {
		return ErrTxDone
	}
	if t.s.geo.isReserved(id) {
		return fmt.Errorf("free block %v: %w", id, ErrNotInUse)
	}
	if err := t.release(id); err != nil {
		return err
	}
	return t.discard(id)
}

// discard ends a block's newest version as of this transaction.
//
// The version that ends is read, from the disk if it is not in RAM, although only
// its LSN is asked for. Nobody else knows it: the map of changed blocks has the
// highest of an extent. And it cannot be left open until someone needs it, because
// it decides who can see the version: which readers want it as an original, from
// when on (L1, L2), and where it stands in the index among older originals of the
// same block. A reader of the place in the file proves by it that the file holds
// that version and no other (R4).
func (t *WriteTx) discard(id block.ID) error {
	if p := t.find(id); p != nil {
		since, existed := p.since, p.existed
		t.unbase(p)
		t.s.cache.Kill(p.v)
		t.remove(p)
		if existed {
			t.noteFree(id, since)
			t.unpromise(replacedBytes)
		} else {
			t.unpromise(privateBytes)
		}
		return nil
	}
	if h := t.away.Find(id); h != 0 {
		return t.discardAway(h)
	}
	if err := t.promise(privateBytes); err != nil {
		return err
	}
	old, err := t.s.current(id)
	if err != nil {
		return err
	}
	t.noteFree(id, old.v.LSN)
	old.Release()
	return nil
}

// noteFree remembers that the version of a block since an LSN ends.
func (t *WriteTx) noteFree(id block.ID, since block.LSN) {
	h := t.s.cache.NewEntry()
	e := t.s.cache.Entry(h)
	e.ID, e.Until, e.Flags = id, since, awayExisted|awayFreed
	t.away.Insert(h)
	t.take(1)
}

// discardAway is discard for a block that was spilled.
func (t *WriteTx) discardAway(h blockcache.Handle) error {
	e := t.s.cache.Entry(h)
	if e.Flags&awayFreed != 0 {
		return fmt.Errorf("free block %v: %w", e.ID, ErrNotInUse)
	}
	t.s.cache.FreeSlot(e.Slot)
	if e.Slot = 0; e.Flags&awayExisted == 0 {
		t.forget(h)
		t.unpromise(publishBytes)
	} else {
		e.Flags |= awayFreed
		t.unpromise(replacedBytes)
	}
	return nil
}

func (t *WriteTx) unbase(p *private) {
	if p.base != nil {
		t.s.cache.Unpin(p.base)
		p.base = nil
	}
}

// drop ends every private version.
func (t *WriteTx) drop() {
	s := t.s
	for i := range t.blocks {
		p := &t.blocks[i]
		t.unbase(p)
		s.cache.Kill(p.v)
		s.allocHint(p.v.ID)
	}
	t.away.All(func(h blockcache.Handle) {
		e := s.cache.Entry(h)
		s.allocHint(e.ID)
		s.cache.FreeSlot(e.Slot)
		s.cache.FreeEntry(h)
	})
	t.away.Clear()
}

// privateMax is the transaction's share of the frames that MaxRAM has for
// versions now.
func (s *Store) privateMax() int { return int(max(s.cache.Room()/4, privateMin)) }

// privateMin is more than a front door uses at once.
const privateMin = 32

// makeRoom makes room for one more private block: it spills others when the
// transaction has used up its share of MaxRAM (L5). What snapshots hold in temporary
// storage makes no transaction fail. In a store that has failed it takes no more: it
// cannot be committed, and readers may wait for what it has (L8).
func (t *WriteTx) makeRoom() error {
	if err := t.s.state.failure(); err != nil {
		return err
	}
	for rounds := 0; len(t.blocks) >= t.s.privateMax(); {
		batch := t.spillable(false)
		if len(batch) == 0 {
			batch = t.spillable(true)
		}
		if len(batch) == 0 {
			return fmt.Errorf("%w: every private block is in use", ErrTxTooLarge)
		}
		err := t.s.cache.SpillPrivate(batch)
		for _, v := range batch {
			if v.Data() == nil {
				t.putAway(v)
			}
		}
		if errors.Is(err, spill.ErrFull) {
			err = t.awaitRoom(&rounds)
		}
		if err != nil {
			return fmt.Errorf("spill private blocks: %w", err)
		}
	}
	return nil
}

// awaitRoom is for a transaction that others leave no room in memory or in temporary
// storage: first what the cleaner can bring into place has to go, then a snapshot (R13).
//
// Neither count shows what is on its way: slots of blocks that the cleaner has in hand,
// and versions that are pending until their commit is durable. A round that began since
// has both behind it when it ends; the first to end may have begun before, the second has
// not. Nobody else can fill the room meanwhile, because the transaction is the only one
// (R3). So only after two rounds, and with no snapshot left to end, it is too large.
//
// It may be called with the writer's lock held, but no latch: the cleaner waits for
// neither (R7).
func (t *WriteTx) awaitRoom(rounds *int) error {
	s := t.s
	switch {
	case s.cache.FrozenHeads() > 0:
	case s.exhausted():
		return nil
	case *rounds < 2:
		*rounds++
	default:
		return fmt.Errorf("%w: %d blocks", ErrTxTooLarge, t.changed())
	}
	s.waits.room.Add(1)
	return s.cleaner.awaitRound(s.cleaner.rounds())
}

// privateOf is what an entry in away says, without the version.
func (s *Store) privateOf(h blockcache.Handle) private {
	e := s.cache.Entry(h)
	return private{since: e.Until, existed: e.Flags&awayExisted != 0}
}

// putAway makes an entry of a private block that was spilled.
func (t *WriteTx) putAway(v *blockcache.Version) {
	p := t.find(v.ID)
	since, existed := p.since, p.existed
	t.remove(p)
	h := t.s.cache.Freeze(v)
	e := t.s.cache.Entry(h)
	if e.Until = since; existed {
		e.Flags |= awayExisted
	}
	t.away.Insert(h)
	t.take(1)
}

// promise asks the budget for what the transaction will need beside frames (R7, L9).
func (t *WriteTx) promise(bytes int64) error {
	for rounds := 0; ; {
		ok, err := t.s.cache.Promise(bytes, t.promised+t.taken)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", ErrTxTooLarge, err)
		case ok:
			t.promised += bytes
			return nil
		}
		if err := t.awaitRoom(&rounds); err != nil {
			return fmt.Errorf("make room for what is known of blocks: %w", err)
		}
	}
}

// take says that the bytes of an entry more are counted as such now; or, of one
// less, that they will be again.
func (t *WriteTx) take(entries int64) {
	t.taken += entries * awayBytes
	t.unpromise(entries * awayBytes)
}

// unpromise says that bytes will not be needed.
func (t *WriteTx) unpromise(bytes int64) {
	t.promised -= bytes
	t.s.cache.Unpromise(bytes)
}

const privateBatch = 128

// spillable picks private versions that nobody has pinned, going round. What
// they replace is not kept in RAM for the diff: they will be logged whole. The
// store's own blocks, which every transaction uses again and again, only if
// asked.
func (t *WriteTx) spillable(also bool) (batch []*blockcache.Version) {
	for range t.blocks {
		t.spillAt = (t.spillAt + 1) % len(t.blocks)
		p := &t.blocks[t.spillAt]
		if p.v.Pinned() || t.s.geo.isReserved(p.v.ID) && !also {
			continue
		}
		t.unbase(p)
		if batch = append(batch, p.v); len(batch) == privateBatch {
			break
		}
	}
	return batch
}

// unspill brings a private version back. Its slot is given up: it may be
// written to now.
func (t *WriteTx) unspill(h blockcache.Handle) (*private, error) {
	c := t.s.cache
	if err := t.makeRoom(); err != nil {
		return nil, err
	}
	d, err := c.NewFrame()
	if err != nil {
		return nil, err
	}
	id := c.Entry(h).ID
	p := t.s.privateOf(h)
	t.away.Remove(id)
	if p.v, err = c.Unspill(h, d); err != nil {
		c.GiveFrame(d)
		t.away.Insert(h)
		t.failed = err
		return nil, fmt.Errorf("read private block %v: %w", id, err)
	}
	t.take(-1)
	return t.add(p), nil
}

// Rollback forgets all changes. After Commit or Rollback it does nothing. It
// returns when what the transaction saw is durable (R3).
func (t *WriteTx) Rollback() error {
	if !t.open {
		return nil
	}
	s, base := t.s, t.base
	t.drop()
	t.finish()
	return s.awaitDurable(base)
}

// finish lets the next write transaction in.
func (t *WriteTx) finish() {
	s := t.s
	t.open = false
	s.cache.Unpromise(t.promised)
	if len(t.blocks) > 1<<13 {
		t.byID, t.blocks = map[block.ID]int{}, nil
	}
	clear(t.byID)
	clear(t.blocks)
	s.workspace = workspace{t.byID, t.blocks[:0], t.away, t.freed[:0]}
	t.workspace = workspace{}
	s.writer.Unlock()
	s.leave()
}
