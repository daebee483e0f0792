package wal

import "fmt"

// checkRecord proves, in builds with tag invariants, that what was just sealed
// reads back as what it was made of, and stands where there is room for it. mu
// is held; cur and pos are still the record's.
func (l *Log) checkRecord(b []byte, want *record) {
	got, ok := l.cur.seal.decodeRecord(b, l.pos)
	limit := l.cur.limit()
	if want.is(flagEnd) {
		limit = l.cur.header.size
	}
	switch {
	case !ok || got.lsn != want.lsn || got.flags != want.flags:
		panic(fmt.Sprintf("log record of LSN %v does not read back", want.lsn))
	case l.pos+int64(len(b)) > limit:
		panic(fmt.Sprintf("log record of LSN %v passes the end of its segment", want.lsn))
	case want.synced > want.lsn:
		panic(fmt.Sprintf("log record of LSN %v claims that %v is synced", want.lsn, want.synced))
	}
}
