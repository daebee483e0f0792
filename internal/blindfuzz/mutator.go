package blindfuzz

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"reflect"
)

// mutator makes inputs of seeds. Not safe for concurrent use.
type mutator struct {
	rng   *rand.Rand
	seeds [][]reflect.Value // all so far; the last one is that which inputs are made of

	kept []reflect.Value // the input
	args []reflect.Value // what the body gets: room for the test, then a copy of the input
}

const (
	changesMax = 6  // made to a seed for one input
	pieceMax   = 64 // bytes that come, go or move at once; now and then it is as many as there are
)

// take takes in another seed, of which the next inputs are made.
func (m *mutator) take(seed []reflect.Value, rng *rand.Rand) {
	own := make([]reflect.Value, len(seed))
	m.kept, m.args = make([]reflect.Value, len(seed)), make([]reflect.Value, 1+len(seed))
	for i, v := range seed {
		own[i] = copyOf(v)
		m.kept[i], m.args[1+i] = reflect.New(v.Type()).Elem(), reflect.New(v.Type()).Elem()
	}
	m.rng, m.seeds = rng, append(m.seeds, own)
}

// copyOf shares no bytes with v.
func copyOf(v reflect.Value) reflect.Value {
	to := reflect.New(v.Type()).Elem()
	to.Set(v)
	if v.Kind() == reflect.Slice {
		to.SetBytes(append([]byte{}, v.Bytes()...))
	}
	return to
}

// next makes the next input, in kept, and its copy in args.
func (m *mutator) next() {
	seed := m.seeds[len(m.seeds)-1]
	for i, v := range seed {
		if v.Kind() == reflect.Slice {
			m.kept[i].SetBytes(append(m.kept[i].Bytes()[:0], v.Bytes()...))
		} else {
			m.kept[i].Set(v)
		}
	}
	for range 1 + m.rng.IntN(changesMax) {
		if len(m.kept) > 0 {
			m.change(m.rng.IntN(len(m.kept)))
		}
	}
	for i, v := range m.kept {
		to := m.args[1+i]
		if v.Kind() == reflect.Slice {
			to.SetBytes(append(to.Bytes()[:0], v.Bytes()...))
		} else {
			to.Set(v)
		}
	}
}

// change changes one argument in one place.
func (m *mutator) change(i int) {
	v := m.kept[i]
	switch {
	case v.Kind() == reflect.Slice:
		v.SetBytes(m.changed(v.Bytes(), m.another(i).Bytes()))
	case v.Kind() == reflect.String:
		v.SetString(string(m.changed([]byte(v.String()), []byte(m.another(i).String()))))
	case v.Kind() == reflect.Bool:
		v.SetBool(v.Bool() != (m.rng.IntN(4) == 0))
	case v.CanInt():
		v.SetInt(int64(m.number(uint64(v.Int()))))
	case v.CanUint():
		v.SetUint(m.number(v.Uint()))
	case v.CanFloat():
		v.SetFloat(m.float(v.Float()))
	}
}

// another is that argument of some seed.
func (m *mutator) another(i int) reflect.Value { return m.seeds[m.rng.IntN(len(m.seeds))][i] }

// piece draws a place in n bytes, and how many from there on.
func (m *mutator) piece(n int) (at, size int) {
	if n == 0 {
		return 0, 0
	}
	at = m.rng.IntN(n)
	most := n - at
	if m.rng.IntN(8) > 0 {
		most = min(most, pieceMax)
	}
	return at, 1 + m.rng.IntN(most)
}

// changed changes b, which it may write to, in one place. other are bytes of a seed.
func (m *mutator) changed(b, other []byte) []byte {
	if len(b) == 0 {
		at, size := m.piece(len(other))
		return append(append(b, other[at:at+size]...), byte(m.rng.Uint32()))
	}
	at, size := m.piece(len(b))
	switch m.rng.IntN(10) {
	case 0, 1:
		b[at] ^= 1 << m.rng.IntN(8)
	case 2:
		b[at] = byte(m.rng.Uint32())
	case 3:
		b[at] += byte(m.rng.IntN(33) - 16)
	case 4, 5:
		m.word(b[at:])
	case 6:
		return append(b[:at], b[at+size:]...)
	case 7: // the same bytes once more, or other ones
		room := make([]byte, size)
		if m.rng.IntN(2) == 0 {
			copy(room, b[at:])
		} else {
			from, _ := m.piece(len(other))
			copy(room, other[from:])
		}
		return append(b[:at], append(room, b[at:]...)...)
	case 8: // bytes of this seed, from another place, or of another seed, from the same one
		from, _ := m.piece(len(b))
		if copy(b[at:at+size], b[from:]); at < len(other) && m.rng.IntN(2) == 0 {
			copy(b[at:at+size], other[at:])
		}
	case 9:
		return b[:at]
	}
	return b
}

// word changes the number of 2, 4 or 8 bytes that b begins with, in one of both orders.
func (m *mutator) word(b []byte) {
	order := binary.ByteOrder(binary.LittleEndian)
	if m.rng.IntN(4) == 0 {
		order = binary.BigEndian
	}
	switch size := 2 << m.rng.IntN(3); {
	case len(b) < size:
		b[0] = byte(m.number(uint64(b[0])))
	case size == 2:
		order.PutUint16(b, uint16(m.number(uint64(order.Uint16(b)))))
	case size == 4:
		order.PutUint32(b, uint32(m.number(uint64(order.Uint32(b)))))
	default:
		order.PutUint64(b, m.number(order.Uint64(b)))
	}
}

// number is a number near n, near a power of two, or any.
func (m *mutator) number(n uint64) uint64 {
	switch m.rng.IntN(4) {
	case 0:
		return n + m.rng.Uint64N(33) - 16
	case 1:
		return uint64(1)<<m.rng.IntN(64) + m.rng.Uint64N(3) - 1
	case 2:
		return -(uint64(1) << m.rng.IntN(64)) + m.rng.Uint64N(3) - 1
	}
	return m.rng.Uint64() >> m.rng.IntN(64)
}

func (m *mutator) float(f float64) float64 {
	switch m.rng.IntN(4) {
	case 0:
		return f * (1 + m.rng.NormFloat64()/8)
	case 1:
		return []float64{0, math.Copysign(0, -1), -1, 1, math.Inf(1), math.Inf(-1), math.NaN(), math.MaxFloat64, math.SmallestNonzeroFloat64}[m.rng.IntN(9)]
	case 2:
		return math.Float64frombits(math.Float64bits(f) ^ 1<<m.rng.IntN(64))
	}
	return math.Float64frombits(m.rng.Uint64())
}
