package kv

import (
	"fmt"

	"github.com/spillwaydb/spillway/mvcc"
)

// Options are what a database is opened with. The zero value is good.
type Options struct {
	// Store are the options of the store below: block size, MaxRAM, durability.
	// Its CheckTrees must be nil: it is set by Open.
	Store mvcc.Options

	// BatchSizeMax is the number of calls that one transaction of DB.Batch may
	// serve; 0 is 1000.
	BatchSizeMax int
}

const batchSizeMaxDefault = 1000

// validate names the first option that may not be as it is.
func (o *Options) validate() error {
	if o.Store.CheckTrees != nil {
		return fmt.Errorf("%w: Store.CheckTrees is set", ErrOptions)
	}
	if o.BatchSizeMax < 0 {
		return fmt.Errorf("%w: BatchSizeMax is %d", ErrOptions, o.BatchSizeMax)
	}
	if o.BatchSizeMax == 0 {
		o.BatchSizeMax = batchSizeMaxDefault
	}
	return nil
}
