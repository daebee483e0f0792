package shadow

import "github.com/spillwaydb/spillway/block"

// Version is a version of a block, as it is told or used.
type Version struct {
	LSN   block.LSN
	Type  block.Type // TypeFree: not known
	Image []byte     // a whole block, whose trailer does not count; nil: not in RAM
}
