package mvcc

import (
	"fmt"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/snapshot"
)

// ReadTx sees the store as of one commit for as long as it is open, whatever
// writers do (L1). It costs nobody anything but the originals it keeps. Not
// safe for concurrent use. Close it: an open one keeps originals.
type ReadTx struct {
	s      *Store
	reader snapshot.Reader
	lsn    block.LSN
	meta   *meta // shared, constant
	open   bool

	touched byte // by Ahead: without a use of it nothing would be read
}

// SnapshotOptions name a read transaction in Status.
type SnapshotOptions struct {
	Owner, Label string
	// AgeMax is how long it may be open: then every use of it returns a BrokenError with
	// the reason that it expired. 0: Options.ReadAgeMax.
	AgeMax time.Duration
}

// BeginRead opens a read transaction at the newest commit that readers see.
func (s *Store) BeginRead() (*ReadTx, error) { return s.BeginSnapshot(SnapshotOptions{}) }

// BeginReadIn is BeginSnapshot for who brings the memory: t is new, or was closed.
func (s *Store) BeginReadIn(t *ReadTx, o SnapshotOptions) error { return s.beginRead(t, o) }

// BeginSnapshot is BeginRead with a name that operators see in Status: for long
// readers.
func (s *Store) BeginSnapshot(o SnapshotOptions) (*ReadTx, error) {
	t := new(ReadTx)
	if err := s.beginRead(t, o); err != nil {
		return nil, err
	}
	return t, nil
}

func (s *Store) beginRead(t *ReadTx, o SnapshotOptions) error {
	if err := s.state.enterUnlessClosed(); err != nil {
		return err
	}
	return s.openRead(t, o)
}

// openRead is beginRead by who has been counted as a user.
func (s *Store) openRead(t *ReadTx, o SnapshotOptions) error {
	*t = ReadTx{s: s, open: true}
	t.reader.Owner, t.reader.Label = o.Owner, o.Label
	if o.AgeMax > 0 {
		t.reader.SetLease(o.AgeMax)
	}
	s.snapshots.OpenReader(&t.reader)
	t.lsn = t.reader.LSN()
	if known := s.knownMeta.Load(); known != nil && known.lsn == t.lsn {
		t.meta = &known.meta
		return nil
	}
	b, err := t.Block(metaBlock)
	if err != nil {
		t.Close()
		return fmt.Errorf("read meta block: %w", err)
	}
	known := &metaAt{t.lsn, decodeMeta(b.Payload())}
	b.Release()
	t.meta = &known.meta
	s.knownMeta.Store(known) // most transactions see what the one before saw
	return nil
}

// LSN is the commit that the transaction sees.
func (t *ReadTx) LSN() block.LSN { return t.lsn }

// Root is the front door's root as of the transaction's LSN.
func (t *ReadTx) Root() Root { return t.meta.root }

// BlocksInUse is how many blocks of users were allocated at the transaction's LSN.
func (t *ReadTx) BlocksInUse() uint64 { return t.meta.inUse }

// Block returns a block as of the transaction's LSN, or *block.CorruptError, or
// *snapshot.BrokenError. Ask for what was allocated then: of another block it is
// ErrNotInUse, or what that held before it was freed, or damage.
func (t *ReadTx) Block(id block.ID) (Block, error) {
	if !t.open {
		return Block{}, ErrTxDone
	}
	b, err := t.s.get(id, view{t.lsn, &t.reader})
	if err != nil {
		t.denied(id, err)
		return Block{}, err
	}
	if err := t.reader.Err(); err != nil {
		b.Release()
		return Block{}, err
	}
	t.s.given(b, t.lsn, "a reader")
	return b, nil
}

// inUse reports whether a block was allocated at the transaction's LSN.
func (t *ReadTx) inUse(id block.ID) (bool, error) {
	return t.s.inUse(id, t.meta.highWater, t.Block)
}

// AheadMax is how many blocks one call of [ReadTx.Ahead] looks at.
const AheadMax = blockcache.AheadMax

// Ahead says which blocks will be asked for soon, at most AheadMax. What of them
// is in memory comes closer to the processor; nothing is read from disk.
func (t *ReadTx) Ahead(ids []block.ID) {
	if t.open {
		t.touched += t.s.cache.Ahead(ids)
	}
}

// Close ends the transaction. Blocks it returned must have been released.
// Calling it again does nothing.
func (t *ReadTx) Close() {
	if t.open {
		t.open = false
		t.s.snapshots.CloseReader(&t.reader)
		t.s.leave()
	}
}
