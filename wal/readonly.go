package wal

import (
	"fmt"
	"os"

	"github.com/spillwaydb/spillway/block"
)

// OpenReadOnly finds and proves the end of the log as [Open] does, and changes
// nothing: no file is written, made, removed or renamed. What it accepts and is
// not known synced it has the system sync, by way of files that are open for
// reading: what a reader sees must not be taken back by a power cut (L7). If
// the system refuses that, so does OpenReadOnly.
//
// Nothing can be appended, released or marked: ErrReadOnly.
func OpenReadOnly(o Options, s Start) (*Log, error) {
	o.readOnly = true
	return Open(o, s)
}

// Sealed is a log without files that ends at LSN at: for a store that is only
// read, and whose blocks are all as of that commit.
func Sealed(at block.LSN) *Log {
	o := Options{readOnly: true}
	l := newLog(o)
	l.lsn, l.end, l.claimed, l.floor = at, at, at, at+1
	l.durable.Store(uint64(at))
	l.announced.Store(uint64(at))
	return l
}

// settleAccepted is secure for a log that is not written to.
func (r *recovery) settleAccepted(synced block.LSN) error {
	for _, s := range r.chain {
		if s.last <= synced {
			continue
		}
		f, err := r.o.FS.OpenFile(s.path(r.o.Dir), os.O_RDONLY, 0)
		if err != nil {
			return fmt.Errorf("sync the end of the log: %w", err)
		}
		err = f.Sync()
		f.Close() // opened for reading
		if err != nil {
			return fmt.Errorf("sync the end of the log, which was not closed in good order: %w", err)
		}
	}
	return nil
}
