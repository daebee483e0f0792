package simfs

import "strings"

// Op is a kind of operation, or a set of kinds.
type Op uint32

const (
	OpOpen Op = 1 << iota
	OpCreate
	OpTemp
	OpMkdir
	OpRemove
	OpRename
	OpLink
	OpReadDir
	OpLstat
	OpSyncDir
	OpFreeBytes
	OpRead
	OpWrite
	OpSize
	OpTruncate
	OpAllocate
	OpPunch
	OpSync
	OpLock
	OpDropCache
	OpClose

	// Events are the operations that change something: cuts are counted in
	// them. An open with O_CREATE is an OpCreate whether or not it creates.
	Events = OpCreate | OpTemp | OpMkdir | OpRemove | OpRename | OpLink | OpSyncDir |
		OpWrite | OpTruncate | OpAllocate | OpPunch | OpSync

	// IO is what a [Fault] hits that names no kinds.
	IO = Events | OpOpen | OpReadDir | OpRead
)

var opNames = []string{
	"open", "create", "open temporary file", "mkdir", "remove", "rename", "link",
	"read directory", "lstat", "sync directory", "free bytes", "read", "write", "size",
	"truncate", "allocate", "punch hole", "sync", "lock", "drop cache", "close",
}

// String names the kinds in the set.
func (o Op) String() string {
	var names []string
	for i := range opNames {
		if o&(1<<i) != 0 {
			names = append(names, opNames[i])
		}
	}
	return strings.Join(names, "|")
}

// Event is one operation.
type Event struct {
	Op   Op
	File string // as the caller named it; for directories too
	To   string // new name, of OpRename and OpLink
	Off  int64  // of OpRead, OpWrite, OpAllocate, OpPunch and OpDropCache
	Len  int64  // bytes asked for; new size, of OpTruncate
	Data []byte // what OpWrite wrote, on loan until the trace function returns
	N    int    // how many of [Events] there were, this one included
	Err  error  // how it ended

	Struck bool // a fault hit it; with [Fault.WriteBack] it succeeds all the same

	handle *file // of operations on open files
}

// Trace has fn called after every operation, in the order in which they took
// effect. fn must not call the file system. nil ends it.
func (f *FS) Trace(fn func(Event)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trace = fn
}

// Before has fn called at the start of every operation, on the goroutine that
// asked for it and without any lock: a place to hold an operation back until
// another one has happened. Only what fits the caller's call is set in Event.
// Set it before the file system is used.
func (f *FS) Before(fn func(Event)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = fn
}

// Events returns how many operations of the kinds in [Events] there were.
func (f *FS) Events() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events
}

// CutAfter lets k more of [Events] happen and then cuts the power: every later
// operation, reads too, fails with [ErrPowerCut].
func (f *FS) CutAfter(k int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutAt = f.events + k
	f.cutArmed = true
	f.dead = f.dead || k <= 0
}

// IsCut tells whether the power is off, or the process was killed.
func (f *FS) IsCut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// run performs one operation: every operation comes through here. do carries
// it out under the lock; it takes ev.Len for the length, which a fault may have
// cut down.
func (f *FS) run(ev Event, do func(ev *Event) error) error {
	f.mu.Lock()
	before := f.before
	f.mu.Unlock()
	if before != nil {
		before(ev)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return ev.wrap(ErrPowerCut)
	}
	if ev.Op&Events != 0 {
		f.events++
	}
	ev.N = f.events
	asked := ev.Len
	err := ev.wrap(f.perform(&ev, do))
	ev.Len, ev.Err = asked, err
	if f.trace != nil {
		f.trace(ev)
	}
	if f.moment != nil && ev.Op&Events != 0 {
		f.moment(ev, f.capture())
	}
	if f.cutArmed && f.events >= f.cutAt {
		f.dead = true
	}
	return err
}
