package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
)

// KeyBytes is the size of every key.
const KeyBytes = 16

// AppendKey appends the key of record i. The keys of 0, 1, 2... are in random
// order, and all different.
func AppendKey(dst []byte, i uint64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, scatter(i))
	return binary.BigEndian.AppendUint64(dst, i)
}

// scatter is the finalizer of splitmix64: a bijection without visible pattern.
func scatter(i uint64) uint64 {
	i += 0x9e3779b97f4a7c15
	i = (i ^ i>>30) * 0xbf58476d1ce4e5b9
	i = (i ^ i>>27) * 0x94d049bb133111eb
	return i ^ i>>31
}

// recordsInKeyOrder lists records 0 to n-1 in the order of their keys.
func recordsInKeyOrder(n int) []uint32 {
	order := make([]uint32, n)
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int {
		if scatter(uint64(a)) < scatter(uint64(b)) {
			return -1
		}
		return 1
	})
	return order
}

// source is where random numbers come from, and values.
type source struct {
	*rand.Rand
	pcg *rand.PCG
}

func newSource(seed, stream uint64) source {
	pcg := rand.NewPCG(seed, stream)
	return source{rand.New(pcg), pcg}
}

// fill makes value random: no engine can compress it, or find half of it
// unchanged.
func (s source) fill(value []byte) {
	for len(value) >= 8 {
		binary.LittleEndian.PutUint64(value, s.pcg.Uint64())
		value = value[8:]
	}
	for i := range value {
		value[i] = byte(s.pcg.Uint64())
	}
}

// thin makes the second half of each value compressible.
func thin(values []byte, size int) {
	for ; size > 0 && len(values) >= size; values = values[size:] {
		clear(values[size/2 : size])
	}
}

// Distribution says which of the records are drawn how often.
type Distribution string

// The distributions.
const (
	Uniform Distribution = "uniform" // the default
	Zipf    Distribution = "zipf"    // skewed, exponent 1.1; the hot records are spread over all blocks
)

// draw returns a function that draws records from [0, n).
func (d Distribution) draw(s source, n int) (func() uint64, error) {
	switch d {
	case "", Uniform:
		return func() uint64 { return s.Uint64N(uint64(n)) }, nil
	case Zipf:
		return rand.NewZipf(s.Rand, 1.1, 1, uint64(n-1)).Uint64, nil
	}
	return nil, fmt.Errorf("distribution %q is unknown", d)
}
