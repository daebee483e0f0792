package prove

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// MatrixOptions of a sweep over single flipped bits.
type MatrixOptions struct {
	Seed uint64
	// Bits is how many bits of each kind of file are flipped, at most, spread over all
	// of them; 0: every one.
	Bits     int
	Duration time.Duration // of each kind, at most; 0: no bound
	Only     string        // kinds with this text in their name; "": all
	Progress func(MatrixCounts)
}

// MatrixCounts are what a sweep over flipped bits has done.
type MatrixCounts struct {
	Kinds   []MatrixKind
	Elapsed time.Duration
}

// MatrixKind is what was done to one kind of file. A bit that is flipped is either told
// of, by an error or by Check, or harmless: what is read then is right all the same.
type MatrixKind struct {
	Name           string
	Bits           int64 // that there are
	Tried          int64 // one at a time, each in every unit that is told apart
	Told, Harmless int64
	Slowest        time.Duration // of opening and reading one that is damaged
}

// Tried is how many bits were flipped, over all kinds.
func (c MatrixCounts) Tried() (n int64) {
	for _, k := range c.Kinds {
		n += k.Tried
	}
	return n
}

func (c MatrixCounts) String() string {
	parts := make([]string, len(c.Kinds))
	for i, k := range c.Kinds {
		parts[i] = fmt.Sprintf("%s: %d of %d, %d told of, %d harmless, at most %v", k.Name, k.Tried, k.Bits, k.Told, k.Harmless, k.Slowest.Round(time.Millisecond))
	}
	return fmt.Sprintf("%d flipped bits, none read wrongly (%s); %v", c.Tried(), strings.Join(parts, "; "), c.Elapsed.Round(time.Second))
}

// rotKind is a kind of file, and how a flipped bit in it is looked for.
type rotKind struct {
	name string
	bits int // places of one unit
	each int // units in which a bit is flipped at once, because each is told apart
	// try flips bit number n and reads all that it could spoil. told is in how many
	// units that was told of. An error is a promise that was not kept.
	try   func(n int) (told int, err error)
	close func() error // nil: there is nothing to close
}

// Matrix flips bits of every kind of file that is written, one at a time, each on a
// sound original, and reads what the file is for: through the same code that opens and
// reads it otherwise. Each is told of, or harmless; none is read wrongly, and none
// panics (D5, D11).
func Matrix(ctx context.Context, o MatrixOptions) (MatrixCounts, error) {
	began := time.Now()
	kinds, err := rotKinds(ctx, o.Seed)
	defer func() {
		for _, k := range kinds {
			if k.close != nil {
				_ = k.close() // what it finds damaged now was damaged
			}
		}
	}()
	if err != nil {
		return MatrixCounts{}, fmt.Errorf("make what is to be damaged: %w", err)
	}
	chosen := slices.DeleteFunc(slices.Clone(kinds), func(k rotKind) bool { return !strings.Contains(k.name, o.Only) })
	m := &matrix{o: o}
	m.counts.Kinds = make([]MatrixKind, len(chosen))
	var workers sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				m.sweep(ctx, i, chosen[i])
			}
		})
	}
	for i := range chosen {
		m.counts.Kinds[i] = MatrixKind{Name: chosen[i].name, Bits: int64(chosen[i].bits) * int64(chosen[i].each)}
	}
	for i := range chosen {
		next <- i
	}
	close(next)
	workers.Wait()
	c := m.read()
	c.Elapsed = time.Since(began)
	if m.err == nil {
		m.err = context.Cause(ctx)
	}
	return c, m.err
}

type matrix struct {
	o      MatrixOptions
	mu     sync.Mutex
	counts MatrixCounts
	err    error
}

func (m *matrix) read() MatrixCounts {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts
	c.Kinds = slices.Clone(c.Kinds)
	return c
}

// sweep flips the bits of one kind, in an order that spreads any part over all of them.
func (m *matrix) sweep(ctx context.Context, at int, k rotKind) {
	began := time.Now()
	tries := k.bits
	if m.o.Bits > 0 {
		tries = min(tries, (m.o.Bits+k.each-1)/k.each)
	}
	step, bit := coprime(k.bits), rand.New(rand.NewPCG(m.o.Seed, uint64(at))).IntN(k.bits)
	for range tries {
		if ctx.Err() != nil || m.o.Duration > 0 && time.Since(began) > m.o.Duration {
			return
		}
		bit = (bit + step) % k.bits
		if !m.one(at, k, bit) {
			return
		}
		if m.o.Progress != nil {
			m.o.Progress(m.read())
		}
	}
}

// one flips one bit, in each unit.
func (m *matrix) one(at int, k rotKind, bit int) (goOn bool) {
	began := time.Now()
	told, err := tryBit(k, bit)
	took := time.Since(began)
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &m.counts.Kinds[at]
	c.Tried += int64(k.each)
	c.Told += int64(told)
	c.Harmless += int64(k.each - told)
	c.Slowest = max(c.Slowest, took)
	if err != nil && m.err == nil {
		m.err = &Failure{What: fmt.Sprintf("%s, bit %d", k.name, bit), Seed: m.o.Seed, Err: err}
	}
	return m.err == nil
}

func tryBit(k rotKind, bit int) (told int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return k.try(bit)
}

// coprime is a step that visits each of n places once, a little more than a third of
// them apart.
func coprime(n int) int {
	step := n*382/1000 + 1
	for gcd(step, n) != 1 {
		step++
	}
	return step
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// sameBytes is an error if what was read is not what was written.
func sameBytes(what string, got, want []byte) error {
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s is read wrongly, and nothing says so", what)
	}
	return nil
}

var errNotDamaged = errors.New("the sound original is refused")
