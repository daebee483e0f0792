// Package mvcc is being written; this in-memory stand-in has its API.
package mvcc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// UserRootSize is the number of bytes a front door may keep at the root.
const UserRootSize = 64

type Root [UserRootSize]byte

var (
	ErrClosed   = errors.New("store is closed")
	ErrPoisoned = errors.New("store has failed and must be reopened") // L8; wraps the first cause
	ErrTxDone   = errors.New("transaction has ended")
	ErrReadOnly = errors.New("read-only transaction")
)

type Durability uint8

const (
	DurableCommit   Durability = iota // every commit waits for its fsync
	DurableInterval                   // an fsync every Options.SyncInterval
	DurableNever                      // bulk load
)

type Options struct {
	BlockSize    int   // only when the database is created; 0: block.SizeDefault
	MaxRAM       int64 // bytes; 0: 25 % of what the host or cgroup allows
	Durability   Durability
	SyncInterval time.Duration
	FS           vfs.FS // nil: vfs.OS
	Logger       *slog.Logger
	// CheckTrees proves what the front door keeps in the blocks: called by
	// Store.Check with a read transaction; visit is called once for every
	// block in use.
	CheckTrees func(ctx context.Context, tx *ReadTx, visit func(block.ID) error) error
}

type Store struct {
	mu   sync.RWMutex
	w    sync.Mutex
	bs   int
	cur  *version
	opts Options
	db   block.DatabaseID
}
type version struct {
	lsn    block.LSN
	blocks map[block.ID][]byte // whole block
	root   Root
	next   block.ID
}

func Open(dir string, o Options) (*Store, error) {
	if o.BlockSize == 0 {
		o.BlockSize = block.SizeDefault
	}
	return &Store{bs: o.BlockSize, opts: o, db: block.NewDatabaseID(), cur: &version{blocks: map[block.ID][]byte{}, next: 16}}, nil
}
func (s *Store) Close() error   { return nil }
func (s *Store) BlockSize() int { return s.bs }

// Block is a pinned block: Payload stays valid and unchanged until Release.
type Block struct {
	id   block.ID
	data []byte
}

func (b Block) ID() block.ID     { return b.id }
func (b Block) Type() block.Type { return block.Type(b.data[len(b.data)-block.TrailerSize+4]) }
func (b Block) Payload() []byte  { return block.Payload(b.data) }
func (b Block) Release()         {}

// ReadTx sees the store as of its LSN. Not safe for concurrent use.
type ReadTx struct{ v *version }

func (s *Store) BeginRead() (*ReadTx, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return &ReadTx{s.cur}, nil
}

// SnapshotOptions name a snapshot in Status.
type SnapshotOptions struct{ Owner, Label string }

// BeginSnapshot is BeginRead with a name in Status: for long readers.
func (s *Store) BeginSnapshot(o SnapshotOptions) (*ReadTx, error) { return s.BeginRead() }
func (t *ReadTx) LSN() block.LSN                                  { return t.v.lsn }
func (t *ReadTx) Root() Root                                      { return t.v.root }
func (t *ReadTx) Block(id block.ID) (Block, error) {
	d, ok := t.v.blocks[id]
	if !ok {
		return Block{}, &block.CorruptError{Path: "data", Offset: -1, Block: id, Reason: "block is not in use"}
	}
	return Block{id, d}, nil
}
func (t *ReadTx) Close() {}

// WriteTx: one at a time. Not safe for concurrent use.
type WriteTx struct {
	s    *Store
	v    *version
	own  map[block.ID]bool
	done bool
}

// BeginWrite waits for the write transaction before it to commit or roll back.
func (s *Store) BeginWrite() (*WriteTx, error) {
	s.w.Lock()
	v := &version{s.cur.lsn, maps.Clone(s.cur.blocks), s.cur.root, s.cur.next}
	return &WriteTx{s: s, v: v, own: map[block.ID]bool{}}, nil
}

// Base is the LSN that the transaction sees.
func (t *WriteTx) Base() block.LSN { return t.v.lsn }
func (t *WriteTx) Root() Root      { return t.v.root }
func (t *WriteTx) SetRoot(r Root)  { t.v.root = r }
func (t *WriteTx) Block(id block.ID) (Block, error) {
	return (&ReadTx{t.v}).Block(id)
}

// Edit returns the transaction's own copy of block id; Payload may be written
// until Release.
func (t *WriteTx) Edit(id block.ID) (Block, error) {
	b, err := t.Block(id)
	if err == nil && !t.own[id] {
		b.data = slices.Clone(b.data)
		t.v.blocks[id] = b.data
		t.own[id] = true
	}
	return b, err
}

// Alloc returns a zeroed block that was free.
func (t *WriteTx) Alloc(typ block.Type) (Block, error) {
	id := t.v.next
	t.v.next++
	d := make([]byte, t.s.bs)
	d[len(d)-block.TrailerSize+4] = byte(typ)
	t.v.blocks[id] = d
	t.own[id] = true
	return Block{id, d}, nil
}

// Free gives a block back. The caller has released it.
func (t *WriteTx) Free(id block.ID) error { delete(t.v.blocks, id); return nil }

// Commit returns the commit's LSN (the base's if nothing changed).
func (t *WriteTx) Commit() (block.LSN, error) {
	if t.done {
		return 0, ErrTxDone
	}
	t.done = true
	t.v.lsn++
	for id := range t.own {
		if d, ok := t.v.blocks[id]; ok {
			block.Seal(d, block.Trailer{Type: block.Type(d[len(d)-block.TrailerSize+4]), ID: id, LSN: t.v.lsn}, block.SeedOf(t.s.db))
		}
	}
	t.s.mu.Lock()
	t.s.cur = t.v
	t.s.mu.Unlock()
	t.s.w.Unlock()
	return t.v.lsn, nil
}

// Rollback may be called after Commit and then does nothing.
func (t *WriteTx) Rollback() error {
	if !t.done {
		t.done = true
		t.s.w.Unlock()
	}
	return nil
}

// ---- backup ----

type BackupOptions struct{ Owner, Label string }

// BackupInfo says what a backup is of.
type BackupInfo struct {
	Database   block.DatabaseID
	Timeline   block.TimelineID
	LSN        block.LSN // S: the backup is exactly the state at S
	Time       time.Time // monotonic commit time of S
	BlockSize  int
	HighWater  block.ID // first block number never used at S
	Blocks     uint64   // blocks that will be handed out
	Opened     time.Time
	StartStall time.Duration // what opening the snapshot cost writers
}

// Backup hands out every allocated block as of S once, in the order that the
// engine chooses.
type Backup struct {
	info BackupInfo
	v    *version
	ids  []block.ID
}

func (s *Store) OpenBackup(ctx context.Context, o BackupOptions) (*Backup, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := slices.Sorted(maps.Keys(s.cur.blocks))
	return &Backup{BackupInfo{Database: s.db, LSN: s.cur.lsn, Time: time.Now(), Opened: time.Now(), BlockSize: s.bs, HighWater: s.cur.next, Blocks: uint64(len(ids))}, s.cur, ids}, nil
}
func (b *Backup) Info() BackupInfo { return b.info }

// Next fills buf with whole verified block images (trailers sealed) and ids
// with their numbers, at most len(ids) and len(buf)/BlockSize, and returns how
// many. io.EOF (with 0) after the last. A snapshot that was broken returns
// *snapshot.BrokenError for ever after.
func (b *Backup) Next(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	if len(b.ids) == 0 {
		return 0, io.EOF
	}
	n := min(len(b.ids), len(ids), len(buf)/b.info.BlockSize)
	for i := range n {
		ids[i] = b.ids[i]
		copy(buf[i*b.info.BlockSize:], b.v.blocks[b.ids[i]])
	}
	b.ids = b.ids[n:]
	return n, nil
}

// Cost is what the backup has cost so far.
type Cost struct {
	OriginalsMade, OriginalsShared, OriginalsSpilled uint64
	RAMPeakBytes, SpillPeakBytes, OverflowPeakBytes  int64
}

func (b *Backup) Cost() Cost   { return Cost{} }
func (b *Backup) Close() error { return nil }

// ---- restore ----

// Builder writes a new database directory from block images.
type Builder struct{}

// NewBuilder starts a database in dir, which must exist and be empty.
func NewBuilder(fs vfs.FS, dir string, info BackupInfo) (*Builder, error) { return &Builder{}, nil }

// Write puts a verified block image (or a run of consecutive ones) in place.
// Safe for concurrent use on different blocks.
func (b *Builder) Write(first block.ID, images []byte) error { return nil }

// Finish proves that every block allocated at S was written, gives the
// database a new timeline id (L14), and makes all durable.
func (b *Builder) Finish() error { return nil }
func (b *Builder) Abort()        {}

// ---- looking ----

type Level struct {
	Name        string // "ram", "temporary", "overflow", "host", "log"
	Used, Limit int64  // bytes
	State       string // "normal", "low", "high", "critical"
}
type SnapshotStatus struct {
	ID           uint64
	Kind         string // "reader", "snapshot", "backup"
	Owner, Label string
	LSN          block.LSN
	Opened       time.Time
	HeldBytes    int64
}
type Status struct {
	Dir                   string
	Database              string
	Timeline              string
	BlockSize             int
	HighWater             block.ID
	AllocatedBlocks       uint64
	NewestLSN, DurableLSN block.LSN
	Levels                []Level
	Snapshots             []SnapshotStatus
	Failed                string // why the store is poisoned, or ""
}

func (s *Store) Status() Status { return Status{} }

type CheckResult struct {
	LSN      block.LSN
	Blocks   uint64
	Bytes    int64
	Problems []string
}

// Check reads every allocated block and proves every tree, as of now, online.
func (s *Store) Check(ctx context.Context, progress func(done, total uint64)) (CheckResult, error) {
	return CheckResult{}, nil
}
