package wal

import (
	"fmt"

	"github.com/spillwaydb/spillway/block"
)

// OpenReadOnly finds and proves the end of the log as [Open] does, and changes
// nothing: no file is written, made, removed or renamed. Nothing can be appended,
// released or marked: ErrReadOnly.
//
// What a reader sees must not be taken back by a power cut (L7). So every commit that
// is accepted has to be covered by what the log itself says was synced: a later record,
// a segment's header, a sync mark, the end mark; or by Start.Durable. Each of these was
// written behind a sync that had succeeded. Commits behind them are in doubt: the
// process that wrote them may have died before their sync, or because it failed, and
// then the system may show what is not on the medium, and call it clean: another sync
// proves nothing. Open writes them once more; here they are refused, with ErrInDoubt.
// They cannot just be left out: who appended them may have been told that they are
// durable, and blocks in the data file may be as of them.
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

// settleAccepted is secure for a log that is not written to: nothing may be in doubt.
func (r *recovery) settleAccepted(synced block.LSN) error {
	if r.cut.end <= synced {
		return nil
	}
	return fmt.Errorf("commits behind LSN %v, up to %v: %w", synced, r.cut.end, ErrInDoubt)
}
