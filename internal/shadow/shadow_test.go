//go:build invariants

package shadow

import (
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
)

const id = block.ID(7)

// noticed runs f, and returns what would have ended the process.
func noticed(f func()) string {
	var texts []string
	Instead(func(text string) { texts = append(texts, text) })
	defer Instead(nil)
	f()
	return strings.Join(texts, "\n")
}

// of is a version whose payload is all of one byte.
func of(lsn block.LSN, fill byte) Version {
	image := make([]byte, block.SizeMin)
	for i := range block.Payload(image) {
		image[i] = fill
	}
	return Version{lsn, block.TypeLeaf, image}
}

// used is a block that was in use when the store was opened, was changed at 5, freed
// at 8, and is in use again since 10.
func used() *Blocks {
	b := &Blocks{}
	b.Found(id, of(3, 3))
	b.Publish(id, of(5, 5), 3, true)
	b.Free(id, 8, 5)
	b.Publish(id, of(10, 10), 0, false)
	return b
}

// TestShadow_NoticesEachWrongStep: what is right is let pass, and the wrong step of the
// same kind is noticed.
func TestShadow_NoticesEachWrongStep(t *testing.T) {
	const all = block.LSN(1 << 40)
	for name, test := range map[string]struct {
		right, wrong func(b *Blocks)
	}{
		"head": {func(b *Blocks) { b.Head(id, 10, false) }, func(b *Blocks) { b.Head(id, 5, false) }},
		"head that says free": {
			func(b *Blocks) { b.Free(id, 12, 10); b.Head(id, 12, true) },
			func(b *Blocks) { b.Free(id, 12, 10); b.Head(id, 10, false) },
		},
		"given":           {func(b *Blocks) { b.Given(id, 7, of(5, 5), "who") }, func(b *Blocks) { b.Given(id, 7, of(3, 3), "who") }},
		"given the first": {func(b *Blocks) { b.Given(id, 4, of(3, 3), "who") }, func(b *Blocks) { b.Given(id, 5, of(3, 3), "who") }},
		"given while free": {
			func(b *Blocks) { b.Given(id, all, of(10, 10), "who") }, func(b *Blocks) { b.Given(id, 9, of(5, 5), "who") },
		},
		"given other bytes": {func(b *Blocks) { b.Given(id, 10, of(10, 10), "who") }, func(b *Blocks) { b.Given(id, 10, of(10, 9), "who") }},
		"denied":            {func(b *Blocks) { b.Denied(id, 9, "who") }, func(b *Blocks) { b.Denied(id, 7, "who") }},
		"left out":          {func(b *Blocks) { b.LeftOut(id, 7, 5) }, func(b *Blocks) { b.LeftOut(id, 7, 4) }},
		"caught up":         {func(b *Blocks) { b.Caught(id, 10, of(10, 10)) }, func(b *Blocks) { b.Caught(id, 10, of(5, 5)) }},
		"made void by redo": {func(b *Blocks) { b.Caught(id, 6, of(3, 3)) }, func(b *Blocks) { b.Caught(id, 10, of(3, 3)) }},
		"same":              {func(b *Blocks) { b.Same(id, of(5, 5), "who") }, func(b *Blocks) { b.Same(id, of(5, 6), "who") }},
		"of another type": {
			func(b *Blocks) { b.Same(id, of(5, 5), "who") },
			func(b *Blocks) { v := of(5, 5); v.Type = block.TypeBranch; b.Same(id, v, "who") },
		},
		"interval":              {func(b *Blocks) { b.Interval(id, 5, 8, "who") }, func(b *Blocks) { b.Interval(id, 5, 10, "who") }},
		"interval of nothing":   {func(b *Blocks) { b.Interval(id, 3, 5, "who") }, func(b *Blocks) { b.Interval(id, 6, 8, "who") }},
		"found":                 {func(b *Blocks) { b.Placed(id, 10); b.Found(id, of(10, 10)) }, func(b *Blocks) { b.Unplaced(id); b.Found(id, of(5, 5)) }},
		"read from the place":   {func(b *Blocks) { b.Placed(id, 10); b.InPlace(id, 10, "who") }, func(b *Blocks) { b.Placed(id, 10); b.InPlace(id, 5, "who") }},
		"older over newer":      {func(b *Blocks) { b.Placed(id, 5); b.Overwrite(id, of(10, 10), 10) }, func(b *Blocks) { b.Placed(id, 10); b.Overwrite(id, of(5, 5), 10) }},
		"not durable":           {func(b *Blocks) { b.Overwrite(id, of(10, 10), 10) }, func(b *Blocks) { b.Overwrite(id, of(10, 10), 9) }},
		"never published":       {func(b *Blocks) { b.Overwrite(id, of(10, 10), 12) }, func(b *Blocks) { b.Overwrite(id, of(11, 10), 12) }},
		"replaces another":      {func(b *Blocks) { b.Publish(id, of(12, 12), 10, true) }, func(b *Blocks) { b.Publish(id, of(12, 12), 5, true) }},
		"allocates one in use":  {func(b *Blocks) { b.Free(id, 11, 10); b.Publish(id, of(12, 12), 0, false) }, func(b *Blocks) { b.Publish(id, of(12, 12), 0, false) }},
		"frees a free one":      {func(b *Blocks) { b.Free(id, 11, 10) }, func(b *Blocks) { b.Free(id, 11, 10); b.Free(id, 12, 10) }},
		"mended with an older":  {func(b *Blocks) { b.Mended(id, of(10, 10)) }, func(b *Blocks) { b.Mended(id, of(5, 5)) }},
		"mended of a lost one":  {func(b *Blocks) { b.Mended(id+1, of(4, 4)) }, func(b *Blocks) { b.Mended(id, of(11, 4)) }},
		"behind what is known":  {func(b *Blocks) { b.Given(id, 2, of(1, 1), "who") }, func(b *Blocks) { b.Given(id, 3, of(1, 1), "who") }},
		"nothing known of it":   {func(b *Blocks) { b.Given(id+1, 9, of(1, 1), "who") }, func(b *Blocks) { b.Begin(id+1, of(2, 2)); b.Given(id+1, 9, of(1, 1), "who") }},
		"freed before recovery": {func(b *Blocks) { b.BeginFree(id, 12); b.Head(id, 12, true) }, func(b *Blocks) { b.BeginFree(id, 12); b.Head(id, 10, false) }},
	} {
		t.Run(name, func(t *testing.T) {
			if text := noticed(func() { test.right(used()) }); text != "" {
				t.Errorf("what is right: %s", text)
			}
			if noticed(func() { test.wrong(used()) }) == "" {
				t.Error("what is wrong was not noticed")
			}
		})
	}
}

// TestShadow_APlaceThatWasFree: a commit that allocates a block says that what was found
// in its place was nothing; and what nobody looks at any more is forgotten.
func TestShadow_APlaceThatWasFree(t *testing.T) {
	if text := noticed(func() {
		b := &Blocks{}
		b.Found(id, of(3, 3))
		b.Publish(id, of(5, 5), 0, false)
		b.Denied(id, 4, "who")
		b.Floor(6)
		b.Publish(id, of(6, 6), 5, true)
		b.Publish(id, of(7, 7), 6, true)
		b.Given(id, 5, of(9, 9), "who that is not judged")
	}); text != "" {
		t.Error(text)
	}
	if noticed(func() {
		b := &Blocks{}
		b.Found(id, of(3, 3))
		b.Publish(id, of(5, 5), 0, false)
		b.Given(id, 4, of(3, 3), "who")
	}) == "" {
		t.Error("a view is given what was there while the block was free")
	}
}
