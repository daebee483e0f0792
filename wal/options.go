package wal

import (
	"fmt"
	"log/slog"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// Limits of what a caller may ask for, in bytes.
const (
	// RecordBytesMax is the longest body of one [Log.Append].
	RecordBytesMax = 1 << 20

	// SegmentBytesMin and SegmentBytesMax bound Options.SegmentBytes.
	SegmentBytesMin = 64 << 10
	SegmentBytesMax = 1 << 30
)

const (
	segmentBytesDefault = 16 << 20
	limitBytesDefault   = 256 << 20
	bufferBytesDefault  = 4 << 20
	limitSegmentsMin    = 3 // one that recovery still needs, the current one, the next one
)

// Options describe a log. FS, Dir, Database and Timeline must be set; the rest
// may be zero.
type Options struct {
	FS  vfs.FS
	Dir string // the log's own directory; exists, mode 0700

	Database block.DatabaseID
	Timeline block.TimelineID

	// SegmentBytes is the size of new segment files: a multiple of 4096 in
	// [SegmentBytesMin, SegmentBytesMax]. 0: 16 MiB. It may differ from one
	// opening to the next.
	SegmentBytes int64

	// LimitBytes bounds, softly, the sum of the segments that recovery needs:
	// [Log.Reserve] refuses with ErrFull what would pass it, except one commit
	// that is larger by itself. Segments kept only for a [Holder] are not
	// counted. At least three segments. 0: 256 MiB.
	LimitBytes int64

	// HoldBytesMax bounds the segments that are kept only for holders: beyond it
	// the holder that wants the oldest is broken, and OnHolderBroken is told
	// (R14). What recovery needs is never let go. 0: no bound.
	HoldBytesMax int64

	// OnHolderBroken is called by [Log.Release], without locks held.
	OnHolderBroken func(HolderStatus)

	// BufferBytes caps what is appended and not yet durable (R3); at the cap
	// Append forces a sync. The log's two buffers hold at most twice this and
	// one record. 0: 4 MiB.
	BufferBytes int

	// RareSyncs says that no commit waits for a sync of its own. New segments are
	// then not prewritten: what that spares a sync, nobody waits for.
	RareSyncs bool

	// OnDurable is told each new durable horizon, in order, never
	// concurrently, before any Sync that it satisfies returns. It runs on the
	// goroutine that synced: that may be one inside Append, MarkIdle or Close,
	// so it must not take a lock that callers of those hold, nor call the log's
	// Append, Sync, MarkIdle or Close. It is not called by Open.
	OnDurable func(v block.LSN)

	Logger *slog.Logger // nil: silent

	readOnly      bool  // nothing is written: OpenReadOnly
	foreground    bool  // tests: no background work, so that histories repeat
	prewriteBelow int64 // tests: see there; negative: nothing is prewritten
}

// validate fills in defaults and names the first rule that o breaks.
func (o *Options) validate() error {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = segmentBytesDefault
	}
	if o.LimitBytes == 0 {
		o.LimitBytes = max(limitBytesDefault, limitSegmentsMin*o.SegmentBytes)
	}
	if o.BufferBytes == 0 {
		o.BufferBytes = bufferBytesDefault
	}
	if o.prewriteBelow == 0 {
		o.prewriteBelow = prewriteBelow
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.FS == nil || o.Dir == "":
		return fmt.Errorf("log options: FS and Dir must be set")
	case o.SegmentBytes < SegmentBytesMin || o.SegmentBytes > SegmentBytesMax || o.SegmentBytes%headerBlockBytes != 0:
		return fmt.Errorf("log options: SegmentBytes is %d; it must be a multiple of %d from %d to %d",
			o.SegmentBytes, headerBlockBytes, SegmentBytesMin, SegmentBytesMax)
	case o.LimitBytes < limitSegmentsMin*o.SegmentBytes:
		return fmt.Errorf("log options: LimitBytes is %d; it must hold %d segments", o.LimitBytes, limitSegmentsMin)
	case o.HoldBytesMax < 0:
		return fmt.Errorf("log options: HoldBytesMax is %d", o.HoldBytesMax)
	case o.BufferBytes < 0:
		return fmt.Errorf("log options: BufferBytes is %d", o.BufferBytes)
	}
	return nil
}
