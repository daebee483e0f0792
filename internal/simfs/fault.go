package simfs

import (
	"path"
	"slices"
	"strings"
	"syscall"
)

// Fault says which operations fail, and how. The zero value fails the next
// operation of the kinds in [IO] with EIO.
type Fault struct {
	Ops  Op     // kinds that count; 0 is [IO]
	File string // pattern of path.Match for the base name, or for the whole name if it has a slash; "" is every file

	// Off and Len narrow reads, writes, allocations and holes to those that
	// touch Len bytes from Off on; Len 0 does not narrow.
	Off, Len int64

	Match func(Event) bool // asked last; nil is every one. On the caller's goroutine; it must not call the file system

	Skip   int   // how many that match pass before
	Err    error // nil is EIO
	Sticky bool  // all that match from then on fail, not just one
	Short  bool  // half of a read or write is done before it fails
	Late   bool  // the operation is done whole, and then reports the error
	Sync   SyncFailure

	// WriteBack fails not a write, but what the system does with it later. Only writes
	// are struck. They succeed; their data reaches no disk unless it is written again.
	// The next Sync of the file, whoever asks for it, makes all else durable and fails;
	// no later one does, and none if everybody closes the file before. SyncPending is
	// SyncCacheNew here.
	WriteBack bool
}

// SyncFailure says what becomes of a file's pending changes when its Sync
// fails. Of a failure one Sync tells: the next one of the file succeeds, and saves
// nothing of what was lost.
type SyncFailure int

const (
	// SyncPending leaves them pending: a later Sync or luck may save them.
	SyncPending SyncFailure = iota
	// SyncCacheNew loses them, while reads go on to show them: the page is
	// marked clean though it was never written (ext4, XFS).
	SyncCacheNew
	// SyncCacheOld loses them, and reads show what is on disk (btrfs).
	SyncCacheOld
)

// Armed is a fault that was put in place.
type Armed struct {
	fs    *FS
	fault Fault
	seen  int
	fired int
}

// Fail puts a fault in place. Faults are asked in the order in which they were
// put; an operation fails by the first that fires, and counts for all before.
func (f *FS) Fail(fault Fault) *Armed {
	if fault.Ops == 0 {
		fault.Ops = IO
	}
	if fault.Err == nil {
		fault.Err = syscall.EIO
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	a := &Armed{fs: f, fault: fault}
	f.faults = append(f.faults, a)
	return a
}

// Seen returns how many operations matched. A sweep over Skip is at its end
// when Seen is not above Skip.
func (a *Armed) Seen() int {
	a.fs.mu.Lock()
	defer a.fs.mu.Unlock()
	return a.seen
}

// Fired returns how many operations failed by this fault.
func (a *Armed) Fired() int {
	a.fs.mu.Lock()
	defer a.fs.mu.Unlock()
	return a.fired
}

// Disarm takes the fault away; its counts stay.
func (a *Armed) Disarm() {
	a.fs.mu.Lock()
	defer a.fs.mu.Unlock()
	a.fs.faults = slices.DeleteFunc(a.fs.faults, func(b *Armed) bool { return a == b })
}

// perform carries an operation out, or as much of it as the faults leave.
func (f *FS) perform(ev *Event, do func(*Event) error) error {
	fault := f.strike(ev)
	if fault == nil {
		return do(ev)
	}
	switch {
	case fault.Late:
		if err := do(ev); err != nil {
			return err
		}
	case fault.WriteBack:
		before := len(ev.handle.node.pending)
		err := do(ev)
		ev.handle.node.loseFrom(before, fault)
		return err
	case fault.Short && ev.Op&(OpRead|OpWrite) != 0:
		ev.Len /= 2
		if err := do(ev); err != nil {
			return err
		}
	case ev.Op == OpSync && !ev.handle.closed:
		ev.handle.node.failSync(fault.Sync)
		f.recount()
	}
	return fault.Err
}

// strike counts the operation and returns the fault that hits it, or nil.
func (f *FS) strike(ev *Event) *Fault {
	for _, a := range f.faults {
		if !a.fault.matches(ev) {
			continue
		}
		a.seen++
		due := a.seen == a.fault.Skip+1 || a.fault.Sticky && a.seen > a.fault.Skip
		if due {
			a.fired++
			ev.Struck = true
			return &a.fault
		}
	}
	return nil
}

func (f *Fault) matches(ev *Event) bool {
	if ev.Op&f.Ops == 0 || f.WriteBack && ev.Op != OpWrite {
		return false
	}
	const ranged = OpRead | OpWrite | OpAllocate | OpPunch
	if f.Len > 0 && ev.Op&ranged != 0 && (ev.Off >= f.Off+f.Len || ev.Off+ev.Len <= f.Off) {
		return false
	}
	named := f.File == "" || f.matchesName(ev.File) || ev.To != "" && f.matchesName(ev.To)
	return named && (f.Match == nil || f.Match(*ev))
}

func (f *Fault) matchesName(name string) bool {
	if !strings.Contains(f.File, "/") {
		name = path.Base(name)
	}
	ok, err := path.Match(f.File, name)
	if err != nil {
		panic("simfs: bad pattern in Fault.File: " + f.File) // a mistake in the test
	}
	return ok
}
