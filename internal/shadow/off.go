//go:build !invariants

package shadow

import "github.com/spillwaydb/spillway/block"

// On says that the program is built with the tag invariants.
const On = false

// Blocks is what was published of each block: nothing, without the tag.
type Blocks struct{}

// Publish does nothing.
func (b *Blocks) Publish(id block.ID, v Version, since block.LSN, existed bool) {}

// Free does nothing.
func (b *Blocks) Free(id block.ID, lsn, since block.LSN) {}

// Begin does nothing.
func (b *Blocks) Begin(id block.ID, v Version) {}

// BeginFree does nothing.
func (b *Blocks) BeginFree(id block.ID, lsn block.LSN) {}

// Found does nothing.
func (b *Blocks) Found(id block.ID, v Version) (free bool) { return false }

// Mended does nothing.
func (b *Blocks) Mended(id block.ID, v Version) {}

// Head does nothing.
func (b *Blocks) Head(id block.ID, lsn block.LSN, freed bool) {}

// Given does nothing.
func (b *Blocks) Given(id block.ID, at block.LSN, v Version, who string) {}

// Denied does nothing.
func (b *Blocks) Denied(id block.ID, at block.LSN, who string) {}

// LeftOut does nothing.
func (b *Blocks) LeftOut(id block.ID, at, base block.LSN) {}

// Caught does nothing.
func (b *Blocks) Caught(id block.ID, from block.LSN, v Version) {}

// Same does nothing.
func (b *Blocks) Same(id block.ID, v Version, who string) {}

// Interval does nothing.
func (b *Blocks) Interval(id block.ID, lsn, until block.LSN, who string) {}

// Overwrite does nothing.
func (b *Blocks) Overwrite(id block.ID, v Version, durable block.LSN) {}

// Placed does nothing.
func (b *Blocks) Placed(id block.ID, lsn block.LSN) {}

// InPlace does nothing.
func (b *Blocks) InPlace(id block.ID, lsn block.LSN, who string) {}

// Unplaced does nothing.
func (b *Blocks) Unplaced(id block.ID) {}

// Cut does nothing.
func (b *Blocks) Cut(first block.ID) {}

// Floor does nothing.
func (b *Blocks) Floor(lsn block.LSN) {}

// Fail does nothing.
func Fail(format string, args ...any) {}
