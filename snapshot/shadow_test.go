//go:build invariants

package snapshot

import (
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/shadow"
)

// TestShadow_NothingGoesThatIsWanted: an original that goes while a reader or a backup
// needs it is noticed, and so is one that is left when nobody reads.
func TestShadow_NothingGoesThatIsWanted(t *testing.T) {
	var text string
	shadow.Instead(func(s string) { text = s })
	defer shadow.Instead(nil)
	n := newNaive(t, 1)
	s := n.set
	goes := func(id block.ID, lsn, until block.LSN) string {
		text = ""
		s.mu.Lock()
		defer s.mu.Unlock()
		s.checkUnwanted(id, lsn, until)
		return text
	}
	s.Advance(5)
	r, named := &Reader{}, &Reader{Owner: "a"}
	s.OpenReader(r)
	s.Advance(7)
	s.OpenReader(named)
	s.Advance(9)
	expect := func(what, part string, lsn, until block.LSN) {
		t.Helper()
		if got := goes(3, lsn, until); !strings.Contains(got, part) || (part == "") != (got == "") {
			t.Errorf("%s: noticed is %q", what, got)
		}
	}
	expect("a reader without a name", "a reader at 5", 4, 6)
	expect("one with a name", "a reader at 7", 6, 8)
	expect("between them", "", 6, 7)
	expect("the horizon", "the horizon is at 9", 8, 10)
	s.Release(named.id, ReasonReleased)
	expect("one that was released", "", 6, 8)
	b, err := s.OpenBackup("", "")
	ok(t, err)
	s.Advance(11)
	expect("a backup", "the backup at 9", 8, 10)
	b.Done(3)
	expect("a backup that has it", "", 8, 10)
	b.Close()
	s.CloseReader(r)
	s.CloseReader(named)
	expect("nobody", "", 4, 10)
	text = ""
	s.mu.Lock()
	s.lists++
	s.checkLeft()
	s.lists--
	s.mu.Unlock()
	if !strings.Contains(text, "are left") {
		t.Errorf("what is left when nobody reads: noticed is %q", text)
	}
	s.Close()
	ok(t, n.cache.Close())
}
