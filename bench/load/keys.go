package load

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
)

// keyOf is the key of a record.
func keyOf(record uint64) []byte { return fmt.Appendf(nil, "record-%012d", record) }

// chooser chooses records for one writer.
type chooser struct {
	records uint64
	rng     *rand.Rand
	zipf    *rand.Zipf
	next    *atomic.Uint64 // shared by all writers, or nil
}

// zipfExponent is how much the frequent are more frequent: with a million
// records the first hundred get half of the changes.
const zipfExponent = 1.1

func newChooser(o *Options, writer int, next *atomic.Uint64) *chooser {
	c := &chooser{records: uint64(o.Records), rng: rand.New(rand.NewPCG(o.Seed, uint64(writer)))}
	switch o.Distribution {
	case Zipf:
		c.zipf = rand.NewZipf(c.rng, zipfExponent, 1, c.records-1)
	case Sequential:
		c.next = next
	}
	return c
}

func (c *chooser) record() uint64 {
	switch {
	case c.zipf != nil:
		return spread(c.zipf.Uint64()) % c.records
	case c.next != nil:
		return (c.next.Add(1) - 1) % c.records
	}
	return c.rng.Uint64N(c.records)
}

// spread puts the frequent records all over the database.
func spread(rank uint64) uint64 {
	rank *= 0x9e3779b97f4a7c15
	return rank ^ rank>>29
}

// fillValue makes a value: every other four bytes are random.
func (c *chooser) fillValue(v []byte) {
	clear(v)
	for rest := v; len(rest) >= 4; rest = rest[min(8, len(rest)):] {
		binary.LittleEndian.PutUint32(rest, c.rng.Uint32())
	}
}
