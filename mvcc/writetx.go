package mvcc

import (
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
	inRAM   int // private versions that have a frame
	spillAt int // where the search for something to spill goes on
	open    bool
	failed  error // what made the transaction unfit for commit
}

// workspace is memory that one write transaction leaves to the next. The
// transaction itself is new each time: a late Rollback of one that has ended
// must not find its successor.
type workspace struct {
	byID   map[block.ID]int
	blocks []private
	freed  []block.ID
}

// private is one block that the transaction changes.
type private struct {
	v       *blockcache.Version
	base    *blockcache.Version // pinned version that it replaces; nil: log the image
	since   block.LSN           // LSN of the version it replaces, if any
	existed bool                // there is a version to replace
	dropped bool                // freed again
}

// BeginWrite waits for the write transaction before it to end. ErrReadOnly or
// ErrStandby where nobody can write.
func (s *Store) BeginWrite() (*WriteTx, error) {
	switch {
	case s.opts.ReadOnly:
		return nil, ErrReadOnly
	case s.standby:
		return nil, ErrStandby
	}
	return s.beginWrite()
}

func (s *Store) beginWrite() (*WriteTx, error) {
	s.writer.Lock()
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
	t.inRAM++
	return &t.blocks[len(t.blocks)-1]
}

// Block returns a block as the transaction has it.
func (t *WriteTx) Block(id block.ID) (Block, error) {
	if !t.open {
		return Block{}, ErrTxDone
	}
	if p := t.find(id); p != nil {
		return t.pin(p)
	}
	return t.s.get(id, view{lsn: newest})
}

// pin returns a private block, from temporary storage if it was spilled.
func (t *WriteTx) pin(p *private) (Block, error) {
	if p.dropped {
		return Block{}, fmt.Errorf("read block %v: %w", p.v.ID, ErrNotInUse)
	}
	if p.v.Data() == nil {
		if err := t.unspill(p); err != nil {
			return Block{}, err
		}
	}
	p.v.Pin()
	return Block{p.v, p.v.Data(), t.s.cache}, nil
}

// Edit returns the transaction's own copy of a block. Its payload may be
// written until Release.
func (t *WriteTx) Edit(id block.ID) (Block, error) {
	if !t.open {
		return Block{}, ErrTxDone
	}
	if p := t.find(id); p != nil {
		return t.pin(p)
	}
	if err := t.makeRoom(); err != nil {
		return Block{}, err
	}
	old, err := t.s.get(id, view{lsn: newest})
	if err != nil {
		return Block{}, err
	}
	v, err := t.version(id, old.Type())
	if err != nil {
		old.Release()
		return Block{}, err
	}
	copy(v.Data(), old.data)
	p := t.add(private{v: v, base: old.v, since: old.v.LSN, existed: true}) // keeps old's pin
	return t.pin(p)
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
	if err := t.makeRoom(); err != nil {
		return Block{}, err
	}
	v, err := t.version(id, typ)
	if err != nil {
		return Block{}, err
	}
	clear(v.Data())
	if p := t.find(id); p != nil { // freed earlier in this transaction
		p.v, p.dropped = v, false
		t.inRAM++
		return t.pin(p)
	}
	return t.pin(t.add(private{v: v}))
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
func (t *WriteTx) discard(id block.ID) error {
	if p := t.find(id); p != nil {
		t.unbase(p)
		t.kill(p)
		p.dropped = true
		return nil
	}
	old, err := t.s.get(id, view{lsn: newest}) // its LSN is what redo and chain go by
	if err != nil {
		return err
	}
	defer old.Release()
	t.byID[id] = len(t.blocks)
	t.blocks = append(t.blocks, private{
		v: &blockcache.Version{ID: id, Role: blockcache.RoleDead}, since: old.v.LSN, existed: true, dropped: true,
	})
	return nil
}

func (t *WriteTx) unbase(p *private) {
	if p.base != nil {
		t.s.cache.Unpin(p.base)
		p.base = nil
	}
}

// kill ends a private version.
func (t *WriteTx) kill(p *private) {
	if p.v.Role == blockcache.RolePrivate {
		if p.v.Data() != nil {
			t.inRAM--
		}
		t.s.cache.Kill(p.v)
	}
}

// makeRoom spills private versions when the transaction has used up its share
// of MaxRAM (L5).
func (t *WriteTx) makeRoom() error {
	for t.inRAM >= t.s.privateMax {
		batch := t.spillable()
		if len(batch) == 0 {
			return fmt.Errorf("%w: every private block is in use", ErrTxTooLarge)
		}
		err := t.s.cache.SpillPrivate(batch)
		for _, v := range batch {
			if v.Data() == nil {
				t.inRAM--
			}
		}
		if errors.Is(err, spill.ErrFull) {
			return fmt.Errorf("%w: %d blocks", ErrTxTooLarge, len(t.blocks))
		}
		if err != nil {
			return fmt.Errorf("spill private blocks: %w", err)
		}
	}
	return nil
}

const privateBatch = 128

// spillable picks private versions that nobody has pinned, going round. What
// they replace is not kept in RAM for the diff: they will be logged whole.
func (t *WriteTx) spillable() (batch []*blockcache.Version) {
	for range t.blocks {
		t.spillAt = (t.spillAt + 1) % len(t.blocks)
		p := &t.blocks[t.spillAt]
		if p.dropped || p.v.Data() == nil || p.v.Pinned() || t.s.geo.isReserved(p.v.ID) {
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
func (t *WriteTx) unspill(p *private) error {
	if err := t.makeRoom(); err != nil {
		return err
	}
	d, err := t.s.cache.NewFrame()
	if err != nil {
		return err
	}
	if err := t.s.cache.Unspill(p.v, d); err != nil {
		t.s.cache.GiveFrame(d)
		t.failed = err
		return fmt.Errorf("read private block %v: %w", p.v.ID, err)
	}
	t.inRAM++
	return nil
}

// Rollback forgets all changes. After Commit or Rollback it does nothing. It
// returns when what the transaction saw is durable (R3).
func (t *WriteTx) Rollback() error {
	if !t.open {
		return nil
	}
	s, base := t.s, t.base
	for i := range t.blocks {
		p := &t.blocks[i]
		t.unbase(p)
		t.kill(p)
		s.allocHint(p.v.ID)
	}
	t.finish()
	return s.awaitDurable(base)
}

// finish lets the next write transaction in.
func (t *WriteTx) finish() {
	s := t.s
	t.open = false
	if len(t.blocks) > 1<<13 {
		s.workspace = workspace{byID: map[block.ID]int{}}
	} else {
		clear(t.byID)
		clear(t.blocks)
		s.workspace = workspace{t.byID, t.blocks[:0], t.freed[:0]}
	}
	t.workspace = workspace{}
	s.writer.Unlock()
	s.leave()
}
