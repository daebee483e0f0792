package mvcc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/hostmem"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/spill"
	"github.com/spillwaydb/spillway/wal"
)

// Durability says when a commit is acknowledged.
type Durability uint8

const (
	// DurableCommit acknowledges a commit, and lets readers see it, when it is
	// durable (L7). Commits share fsyncs.
	DurableCommit Durability = iota
	// DurableInterval acknowledges at once and syncs every SyncInterval: a
	// power cut takes back at most what was committed since the last sync.
	DurableInterval
	// DurableNever acknowledges at once and syncs only for a checkpoint, for a
	// backup, when the log's buffer is full, and at Close: for bulk loads.
	DurableNever
)

// LogBytesMin is the least Options.LogBytesMax: three of the smallest segments.
const LogBytesMin = 3 * wal.SegmentBytesMin

// segmentBytes is the size of new segments of the log: eight of them fit into
// its limit, so that it is recycled in small steps. 0: the log's own default.
func (o *Options) segmentBytes() int64 {
	const most = 16 << 20
	if o.LogBytesMax == 0 {
		return 0
	}
	return min(max(o.LogBytesMax/8&^4095, wal.SegmentBytesMin), most)
}

// TempDir is a directory for temporary storage and how many bytes of it may be
// used.
type TempDir = spill.Dir

// Options of a store. The zero value is usable.
type Options struct {
	// BlockSize in bytes, a power of two from 4 KiB to 64 KiB. It counts only
	// when the database is created. 0: block.SizeDefault.
	BlockSize int
	// MaxRAM in bytes bounds frames and everything else whose size grows with
	// load: at most what the cgroup or the host allows. Half of it may go to what
	// is known of blocks that have no frame, 64 bytes for an original and 24 more
	// for each backup that wants it: when that is used up, temporary storage counts
	// as full. 0: MaxRAMShare.
	MaxRAM int64
	// MaxRAMShare of what the cgroup or the host allows, 0 to 1, where MaxRAM
	// is 0. 0: a quarter.
	MaxRAMShare float64
	// OverflowMax in bytes is what originals may take beyond MaxRAM when
	// temporary storage is full. They never take more than the host, or the process's
	// control group, can give at the moment without swapping and with HostReserve left:
	// that is looked at while the store runs. 0: no cap but that one, or a quarter of
	// MaxRAM where the host does not say; negative: nothing. OverflowUnbounded: no cap
	// at all, whatever becomes of the machine.
	OverflowMax int64
	// HostReserve in bytes is the memory of the host that overflow leaves alone. 0: a
	// sixteenth of what the host or the control group has, from 32 MiB to 1 GiB.
	HostReserve int64
	// HostFloor in bytes: while the host can give less, the store is in emergency, and
	// takes no new backup (ErrEmergency). 0: half of HostReserve; negative: never.
	HostFloor int64
	// Temp is where originals spill to. Nil: up to 1 GiB in unlinked files in
	// the database's directory. Empty but not nil: no temporary storage. With
	// blocks of 4 KiB, more than 23 to 32 times MaxRAM is not used: see there.
	Temp []TempDir
	// EncryptTemp encrypts temporary storage with a key that dies with the
	// process.
	EncryptTemp bool
	// AllowMemoryTemp lets temporary storage be on tmpfs: it is RAM then.
	AllowMemoryTemp bool

	// Existing refuses to create a database: ErrNotDatabase where there is none.
	Existing bool

	// ReadOnly opens a database that is there, without writing anything: not to
	// its files, and not to its directory (R20). What was not closed in good order
	// is redone in memory, or refused with ErrNeedsRecovery if MaxRAM does not
	// suffice, or if its last commits are not known to be durable. Temp nil means no temporary storage then. Write transactions get
	// ErrReadOnly.
	ReadOnly bool

	Durability   Durability
	SyncInterval time.Duration // of DurableInterval; 0: 100 ms

	// LogBytesMax bounds the log that recovery needs, at least LogBytesMin.
	// 0: 256 MiB. A log that was made under a larger limit keeps room for three of
	// its segments.
	LogBytesMax int64
	// LogHoldMax in bytes bounds the log that only a LogTail keeps. Beyond it the
	// tail that wants the oldest is broken (R14). 0: 1 GiB; negative: no bound.
	LogHoldMax int64
	// CloseWait is how long Close waits for open transactions, snapshots and
	// backups before it breaks them (R21). 0: 5 s; negative: not at all.
	CloseWait time.Duration

	// ReadAgeMax is how long a read transaction may be open before it is broken, whatever
	// it keeps: a reader without a name counts from when the first commit was made that
	// it does not see. 0: as long as it likes. SnapshotOptions may say otherwise for one.
	ReadAgeMax time.Duration
	// WriterDelayMax is how long each commit may be held up, at most a second, when
	// temporary storage and overflow together are fuller than WriterDelayShare of what
	// they may have: by nothing there, by all of it when they are full. It slows those
	// down who make originals faster than a backup can take them. 0: no commit ever
	// waits for a snapshot.
	WriterDelayMax   time.Duration
	WriterDelayShare float64 // 0: 0.75

	// Marks are the watermarks of levels, by the level's name; those named "" are for
	// all levels of bytes that have none of their own. What is left out is the default.
	Marks map[string]Marks
	// ArchiveLagWarn is the limit of LevelArchiveLag, and SnapshotAgeWarn that of
	// LevelSnapshotAge: by default they warn at once, twice and four times that age.
	// 0: 5 minutes, and 1 hour. Nothing else happens at these ages.
	ArchiveLagWarn, SnapshotAgeWarn time.Duration

	FS      vfs.FS       // nil: vfs.OS
	Logger  *slog.Logger // nil: silent
	OnEvent func(Event)  // called in order, on one goroutine; it may block only itself

	// Mend, if not nil, is asked for a block that opening needs and whose place is
	// damaged, where neither second copy nor log has a whole image of it: see
	// [Store.RepairBlock]. Without it, or with its error, Open fails.
	Mend func(BlockNeed) (MendImage, error)

	// CheckTrees proves what the front door keeps in the blocks. Store.Check
	// calls it with a read transaction; it calls visit once for every block in
	// use.
	CheckTrees func(ctx context.Context, tx *ReadTx, visit func(block.ID) error) error

	changesClock func() time.Time                      // of a test, which then calls tickChanges itself
	host         func() (blockcache.HostMemory, error) // nil: the system is asked
	stall        func() (float64, error)               // nil: the system is asked
}

// OverflowUnbounded as Options.OverflowMax lets originals take memory without end when
// temporary storage is full. No snapshot is broken and none falls forward then: the
// machine swaps, or the process is killed. This is what the documentation of NexusDB
// describes.
const OverflowUnbounded = blockcache.OverflowUnbounded

// stalled is how much all tasks waited for memory, in percent.
func (o *Options) stalled() (float64, error) {
	if o.stall != nil {
		return o.stall()
	}
	return hostmem.Stall()
}

func optionError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrOptions, fmt.Sprintf(format, args...))
}

// validate fills in defaults and names the first rule that is broken.
func (o *Options) validate() error {
	if o.BlockSize == 0 {
		o.BlockSize = block.SizeDefault
	}
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SyncInterval == 0 {
		o.SyncInterval = 100 * time.Millisecond
	}
	if o.LogHoldMax == 0 {
		o.LogHoldMax = 1 << 30
	}
	if o.CloseWait == 0 {
		o.CloseWait = 5 * time.Second
	}
	switch {
	case !block.ValidSize(o.BlockSize):
		return optionError("BlockSize %d is no power of two from %d to %d", o.BlockSize, block.SizeMin, block.SizeMax)
	case o.MaxRAM < 0:
		return optionError("MaxRAM %d is negative", o.MaxRAM)
	case o.MaxRAMShare < 0 || o.MaxRAMShare > 1:
		return optionError("MaxRAMShare %v is not between 0 and 1", o.MaxRAMShare)
	case o.Durability > DurableNever:
		return optionError("Durability %d is unknown", o.Durability)
	case o.SyncInterval < 0:
		return optionError("SyncInterval %v is negative", o.SyncInterval)
	case o.LogBytesMax != 0 && o.LogBytesMax < LogBytesMin:
		return optionError("LogBytesMax %d is below %d", o.LogBytesMax, LogBytesMin)
	}
	if err := o.validateMarks(); err != nil {
		return err
	}
	return o.sizeRAM()
}

func (o *Options) validateMarks() error {
	for name, m := range o.Marks {
		if err := m.Validate(); err != nil {
			return optionError("Marks of level %q: %v", name, err)
		}
	}
	if o.WriterDelayShare == 0 {
		o.WriterDelayShare = 0.75
	}
	switch {
	case o.ReadAgeMax < 0:
		return optionError("ReadAgeMax %v is negative", o.ReadAgeMax)
	case o.WriterDelayMax < 0 || o.WriterDelayMax > time.Second:
		return optionError("WriterDelayMax %v is not between 0 and a second", o.WriterDelayMax)
	case !(o.WriterDelayShare > 0 && o.WriterDelayShare < 1):
		return optionError("WriterDelayShare %v is not between 0 and 1", o.WriterDelayShare)
	}
	if o.ArchiveLagWarn == 0 {
		o.ArchiveLagWarn = 5 * time.Minute
	}
	if o.SnapshotAgeWarn == 0 {
		o.SnapshotAgeWarn = time.Hour
	}
	if o.ArchiveLagWarn < 0 || o.SnapshotAgeWarn < 0 {
		return optionError("ArchiveLagWarn %v or SnapshotAgeWarn %v is negative", o.ArchiveLagWarn, o.SnapshotAgeWarn)
	}
	return nil
}

// ramMaxUnasked in bytes is the most that MaxRAM may be where the host does not say
// how much there is.
const ramMaxUnasked = 1 << 40

// sizeRAM settles what depends on the host's memory.
func (o *Options) sizeRAM() error {
	if o.host == nil {
		o.host = blockcache.AskHost
	}
	h, err := o.host()
	said := err == nil
	if err != nil && !errors.Is(err, errors.ErrUnsupported) && o.MaxRAM == 0 {
		return fmt.Errorf("ask the host for its memory: %w", err)
	}
	most := int64(ramMaxUnasked)
	if said {
		most = h.Limit
	}
	if o.MaxRAM > most { // what is kept for each frame would take the process down, before the first block is read
		return optionError("MaxRAM %d is more than the %d bytes that there are", o.MaxRAM, most)
	}
	if o.MaxRAM == 0 {
		share := o.MaxRAMShare
		if share == 0 {
			share = 0.25
		}
		if !said {
			h.Limit = 1 << 30
		}
		o.MaxRAM = int64(float64(h.Limit) * share)
	}
	if o.HostReserve == 0 && said {
		o.HostReserve = min(max(h.Limit/16, 32<<20), 1<<30)
	}
	if o.HostFloor == 0 {
		o.HostFloor = o.HostReserve / 2
	}
	switch {
	case o.HostReserve < 0:
		return optionError("HostReserve %d is negative", o.HostReserve)
	case o.OverflowMax < 0:
		o.OverflowMax = 0
	case o.OverflowMax == 0 && said:
		o.OverflowMax = h.Limit
	case o.OverflowMax == 0:
		o.OverflowMax = o.MaxRAM / 4
	}
	return nil
}

// checkRAM is the part of validation that needs the database's block size.
func (o *Options) checkRAM(blockSize int) error {
	if least := blockcache.RAMBytesMin(blockSize); o.MaxRAM < least {
		return optionError("MaxRAM %d is below %d, the least for blocks of %d bytes", o.MaxRAM, least, blockSize)
	}
	return nil
}
