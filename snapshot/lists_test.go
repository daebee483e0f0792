package snapshot

import (
	"testing"

	"github.com/spillwaydb/spillway/block"
)

// TestL2_R11_FewListsLookedAt: the newest of a thousand readers holds a list for
// each older one; who adds an original looks at few of them.
func TestL2_R11_FewListsLookedAt(t *testing.T) {
	const readers = 1000
	n := newNaive(t, 1)
	for i := range block.LSN(readers) {
		n.reader(10 * (i + 1))
	}
	n.set.Advance(20_000)
	for i := range block.ID(readers) {
		n.inPlace(i, block.LSN(10*i+5), 20_000)
	}
	p := n.set.points[readers-1]
	seen, id := 0, block.ID(readers)
	for i, sub := range p.dead {
		p.dead[i] = nil
		if n.looksAt(func() { id++; n.inPlace(id, 5, 20_000) }) {
			seen++
		}
		p.dead[i] = sub
	}
	if seen > 11 {
		t.Errorf("%d lists of %d were looked at", seen, len(p.dead))
	}
	n.end()
}

// TestL2_OneOriginalShared: the counters tell who shares.
func TestL2_OneOriginalShared(t *testing.T) {
	n := newNaive(t, 1)
	n.reader(1)
	b, err := n.set.OpenBackup("", "")
	ok(t, err)
	n.backups = append(n.backups, &naiveBackup{Backup: b, done: map[block.ID]bool{}})
	n.set.Advance(9)
	n.original(1, 1, 4)
	if c := n.set.Counters(); c.OriginalsMade != 1 || c.OriginalsShared != 1 || c.Originals != 1 {
		t.Fatalf("%+v", c)
	}
	n.compare()
	n.end()
}
