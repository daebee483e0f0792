package vfs

import (
	"os"
	"sync"
)

// fileID is what stays the same whichever name a file was opened by: device
// and inode, or volume and file index.
type fileID struct {
	volume, index uint64
}

// registry lists the files locked by this process. It is one per process
// because that is what it stands for: the system's own answer to a second lock
// from the same process differs between file systems (a lock over NFS belongs
// to the process, not to the open file).
type registry struct {
	mu     sync.Mutex
	locked map[fileID]struct{}
}

var locks = registry{locked: make(map[fileID]struct{})}

// enter lists id, or returns false if it is listed.
func (r *registry) enter(id fileID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.locked[id]; ok {
		return false
	}
	r.locked[id] = struct{}{}
	return true
}

func (r *registry) leave(id fileID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.locked, id)
}

// heldLock is an entry in the registry together with the system's lock.
type heldLock struct{ id fileID }

func (l *heldLock) release() { locks.leave(l.id) }

// holdLock locks f in this process and in the system.
func holdLock(f *os.File) (*heldLock, error) {
	id, err := identify(f)
	if err != nil {
		return nil, err
	}
	if !locks.enter(id) {
		return nil, ErrLocked
	}
	if err := systemLock(f); err != nil {
		locks.leave(id)
		return nil, err
	}
	return &heldLock{id: id}, nil
}
