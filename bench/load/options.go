package load

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// Distribution says which records are changed.
type Distribution string

// The distributions.
const (
	Uniform    Distribution = "uniform"    // all alike
	Zipf       Distribution = "zipf"       // a few much more often than others, spread over all
	Sequential Distribution = "sequential" // one after the other, round and round
)

// Distributions that there are.
var Distributions = []Distribution{Uniform, Zipf, Sequential}

// Options of Run. Dir must be given; zero values have the defaults named.
type Options struct {
	Dir          string
	Records      int           // 0: 1,000,000
	ValueBytes   int           // 0: 100
	Duration     time.Duration // of writing; 0: until the context ends
	Distribution Distribution  // "": Uniform
	Writers      int           // 0: 4
	PerTx        int           // records that a transaction changes; 0: 1
	// PerSecond is the rate of transactions, of all writers together; 0: as fast
	// as it goes. Writers that fall behind do not catch up later.
	PerSecond float64
	Seed      uint64
	Store     mvcc.Options // MaxRAM, temporary storage, durability

	// Serving is called when the admin socket answers. Nil: nobody.
	Serving func()
	// Tick is called once a second, by one goroutine at a time. Nil: nobody.
	Tick func(Tick)
}

// ErrOptions means that an option is out of its range.
var ErrOptions = errors.New("invalid option of the load")

func optionError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrOptions, fmt.Sprintf(format, args...))
}

func (o *Options) validate() error {
	for _, d := range []struct {
		v   *int
		def int
	}{{&o.Records, 1_000_000}, {&o.ValueBytes, 100}, {&o.Writers, 4}, {&o.PerTx, 1}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.Distribution == "" {
		o.Distribution = Uniform
	}
	if o.Serving == nil {
		o.Serving = func() {}
	}
	if o.Tick == nil {
		o.Tick = func(Tick) {}
	}
	switch {
	case o.Dir == "":
		return optionError("no directory given for the database")
	case o.Records < 1:
		return optionError("%d records are too few", o.Records)
	case o.ValueBytes < 1 || o.ValueBytes > 16<<20:
		return optionError("values must have 1 byte to 16 MiB, not %d", o.ValueBytes)
	case o.Duration < 0:
		return optionError("duration %v is negative", o.Duration)
	case o.Writers < 1 || o.Writers > 1024:
		return optionError("1 to 1024 writers, not %d", o.Writers)
	case o.PerTx < 1 || o.PerTx > 100_000:
		return optionError("1 to 100,000 records a transaction, not %d", o.PerTx)
	case o.PerSecond < 0:
		return optionError("%v transactions per second are negative", o.PerSecond)
	case !slices.Contains(Distributions, o.Distribution):
		return optionError("distribution %q is unknown", o.Distribution)
	}
	return nil
}
