package spill

import "time"

// State says whether a directory takes writes.
type State uint8

// The states of a directory.
const (
	StateReady  State = iota
	StateFull         // no free slot, and no growth now; it ends by itself
	StateFailed       // an I/O error; it does not end
)

func (s State) String() string {
	return [...]string{"ready", "full", "failed"}[min(s, StateFailed)]
}

// Stats is what a store holds and has done. Sizes are in bytes.
type Stats struct {
	Dirs          []DirStats
	UsedBytes     int64 // in slots that were handed out and not freed
	UsedBytesPeak int64 // at one moment, over all directories
	LimitBytes    int64
}

// DirStats is one directory's part of Stats.
type DirStats struct {
	Path          string
	State         State
	Failure       error  `json:"-"` // *IOError that made it StateFailed, or nil
	FailureText   string // what Failure says, for who reads this from another process
	LimitBytes    int64  // BytesMax, in whole blocks
	UsedBytes     int64  // slots in use, those being written included
	UsedBytesPeak int64
	FileBytes     int64  // reserved on the file system: at least UsedBytes, at most LimitBytes
	FreeBytes     int64  // what the file system has left for anybody; -1: it did not say
	Writes        uint64 // runs
	WrittenBytes  int64
	CorruptSlots  uint64 // that Read found damaged
}

// Stats asks each file system for its free bytes; all else is in RAM. After
// Close it is empty.
func (s *Store) Stats() Stats {
	if s.enter() != nil {
		return Stats{}
	}
	defer s.leave()
	st := Stats{UsedBytes: s.used.Load(), UsedBytesPeak: s.usedPeak.Load()}
	for _, d := range s.dirs {
		ds := d.stats(time.Now())
		st.LimitBytes += ds.LimitBytes
		st.Dirs = append(st.Dirs, ds)
	}
	return st
}

// UsedBytes is what is in slots that were handed out and not freed.
func (s *Store) UsedBytes() int64 { return s.used.Load() }

// PeakSince is the most bytes that were in use since the last call that was fresh.
func (s *Store) PeakSince(fresh bool) int64 {
	if !fresh {
		return s.usedHigh.Load()
	}
	return max(s.usedHigh.Swap(s.used.Load()), s.used.Load())
}

func (d *dir) stats(now time.Time) DirStats {
	free, err := d.fs.FreeBytes(d.path)
	if err != nil {
		free = -1
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	st := DirStats{
		Path:          d.path,
		State:         d.state(now),
		LimitBytes:    d.space.slots * d.blockSize,
		UsedBytes:     d.space.inUse * d.blockSize,
		UsedBytesPeak: d.usedPeak * d.blockSize,
		FileBytes:     d.space.reserved * d.blockSize,
		FreeBytes:     free,
		Writes:        d.writes,
		WrittenBytes:  int64(d.written) * d.blockSize,
		CorruptSlots:  d.corrupt.Load(),
	}
	if d.failed != nil {
		st.Failure = d.failed
		st.FailureText = d.failed.Error()
	}
	return st
}

// state needs mu.
func (d *dir) state(now time.Time) State {
	sp := &d.space
	switch {
	case d.failed != nil:
		return StateFailed
	case now.Before(d.writeAfter):
		return StateFull
	case sp.inUse < sp.reserved:
		return StateReady
	case sp.reserved == sp.slots || now.Before(d.growAfter):
		return StateFull
	}
	return StateReady
}

// MetaBytes is the heap that the store takes, for the owner's budget (L9): the
// staging buffer, fixed, and the maps of slots, which follow the size of the
// files at about 1/25,000 with blocks of 4 KiB.
func (s *Store) MetaBytes() int64 {
	if s.enter() != nil {
		return 0
	}
	defer s.leave()
	n := int64(0)
	if len(s.dirs) > 0 {
		n = int64(max(stageBytes, s.blockSize)) // whether it was made yet or not
	}
	for _, d := range s.dirs {
		d.mu.Lock()
		n += d.space.metaBytes()
		d.mu.Unlock()
	}
	return n
}
