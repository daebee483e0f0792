package mvcc

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/spillwaydb/spillway/block"
)

// markNameMax is the longest name of a mark, in bytes.
const markNameMax = 255

// Mark makes a commit that changes nothing but has a name, to restore to, and
// returns its LSN when it is durable, in every mode. The name is 1 to 255 bytes
// of UTF-8; it need not be unique. It waits for the open write transaction.
func (s *Store) Mark(name string) (block.LSN, error) {
	return s.MarkContext(context.Background(), name)
}

// MarkContext is Mark, and waits for the open write transaction until ctx ends: then
// there is no mark.
func (s *Store) MarkContext(ctx context.Context, name string) (block.LSN, error) {
	if !validMark(name) {
		return 0, optionError("mark of %d bytes: its name is 1 to %d bytes of UTF-8", len(name), markNameMax)
	}
	tx, err := s.beginWriteFor(ctx)
	if err != nil {
		return 0, fmt.Errorf("mark: %w", err)
	}
	lsn, err := tx.mark(name)
	tx.finish()
	if err == nil {
		err = s.awaitCommitted(lsn)
	}
	if err != nil {
		return 0, fmt.Errorf("mark: %w", err)
	}
	if err := s.log.Sync(lsn); err != nil { // also in the weaker modes: a mark is for those outside (R6)
		return 0, s.fail(fmt.Errorf("sync mark %v: %w", lsn, err))
	}
	return lsn, nil
}

func validMark(name string) bool {
	return name != "" && len(name) <= markNameMax && utf8.ValidString(name)
}

// mark logs a commit without blocks.
func (t *WriteTx) mark(name string) (block.LSN, error) {
	s := t.s
	lsn := t.base + 1
	at, raw := s.commitTime()
	w := &s.redo
	w.buf = w.buf[:0]
	w.commit(at, raw)
	w.mark(name)
	if err := s.reserveLog(int64(len(w.buf))); err != nil {
		return 0, err
	}
	return lsn, t.commitRecord(lsn, at, w.buf)
}
