package mvcc

import (
	"testing"

	"github.com/spillwaydb/spillway/block"
)

// BenchmarkChanges is what counting costs a commit for each block that it replaces: one
// that has just been changed, and one that is the first of all windows.
func BenchmarkChanges(b *testing.B) {
	for name, lsn := range map[string]block.LSN{"hot": 101, "cold": 7} {
		b.Run(name, func(b *testing.B) {
			var c changeCounter
			for i := range c.starts {
				c.begin(i, 100)
			}
			for b.Loop() {
				c.replaced(lsn)
			}
		})
	}
}
