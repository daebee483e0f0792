package snapshot

import (
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/block"
)

// TestL9_DoneOutOfOrderIsCheap: a few blocks of each page take a list, not a bitmap;
// what is asked for follows, whatever comes and goes.
func TestL9_DoneOutOfOrderIsCheap(t *testing.T) {
	const pages = 1000
	var d doneSet
	for i := range block.ID(doneFew) {
		for p := range block.ID(pages) {
			d.add(p*donePageBits + (i*7919)%donePageBits)
			d.add(p*donePageBits + (i*7919)%donePageBits)
		}
	}
	if got := d.heapBytes(); got != pages*DoneBytesMax || d.dense != 0 {
		t.Fatalf("%d bytes for %d pages, %d of them with a bitmap", got, pages, d.dense)
	}
	for i := range block.ID(donePageBits) {
		d.add(5*donePageBits + i)
		if i == donePageBits/2 && d.dense != 1 {
			t.Fatalf("%d bitmaps", d.dense)
		}
	}
	d.add(6*donePageBits + 1)
	if d.dense != 1 || len(d.full) != 1 || len(d.pages) != pages-1 {
		t.Fatalf("%d bitmaps, %d full pages, %d pages", d.dense, len(d.full), len(d.pages))
	}
	for i := range block.ID(doneFew) {
		if id := 6*donePageBits + (i*7919)%donePageBits; !d.has(id) || d.has(id+1) && id > 6*donePageBits {
			t.Fatalf("block %v of a page that got a bitmap", id)
		}
	}
	d.below(pages * donePageBits)
	if d.dense != 0 || d.heapBytes() != 0 {
		t.Fatalf("%d bitmaps and %d bytes are left", d.dense, d.heapBytes())
	}
}

// TestDoneSet compares with a map.
func TestDoneSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var d doneSet
	want := map[block.ID]bool{}
	const top = 3*donePageBits + 100
	for i := range block.ID(top) {
		if i%7 != 0 {
			d.add(i)
			want[i] = true
		}
	}
	for range 20000 {
		id := block.ID(rng.IntN(top))
		d.add(id)
		want[id] = true
	}
	for id := range block.ID(top + 100) {
		if d.has(id) != want[id] {
			t.Fatalf("block %v: %v", id, d.has(id))
		}
	}
	d = doneSet{}
	for id := range block.ID(3 * donePageBits) {
		d.add(id ^ donePageBits) // pages out of order
	}
	if len(d.pages) != 0 || len(d.full) != 1 || d.run != 2 { // 0, 1 and 3
		t.Fatalf("%d pages, %d full, run %d", len(d.pages), len(d.full), d.run)
	}
}
