package forecast

import (
	"cmp"
	"math"
	"slices"

	"github.com/spillwaydb/spillway/mvcc"
)

// point says that x changes hit d different blocks.
type point struct{ x, d float64 }

// curve is how many different blocks a number of changes hits.
type curve struct {
	n      float64 // blocks in use: there are no more to hit
	points []point // the first changes first
	m      []float64
}

// sane makes a number that is none, negative or infinite one that can be worked with.
func sane(v, most float64) float64 {
	if !(v > 0) { // nor is NaN
		return 0
	}
	return min(v, most)
}

// numberMax bounds whatever is counted: beyond, sums would lose what is added.
const numberMax = 1 << 52

// newCurve takes what windows saw. Where one contradicts a shorter one, or two say
// something about the same number of changes, the one that hit more blocks counts.
func newCurve(n float64, windows []mvcc.ChangeWindow) *curve {
	c := &curve{n: max(n, 1)}
	for _, w := range windows {
		p := point{sane(w.Overwrites, numberMax), sane(w.Distinct, numberMax)}
		p.d = min(p.d, p.x, c.n)
		if p.d > 0 {
			c.points = append(c.points, p)
		}
	}
	slices.SortStableFunc(c.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	kept := c.points[:0]
	for _, p := range c.points {
		last := len(kept) - 1
		switch {
		case last >= 0 && p.d < kept[last].d: // a window that began before most blocks were born
		case last >= 0 && p.x < kept[last].x*1.1:
			kept[last] = p
		default:
			kept = append(kept, p)
		}
	}
	c.points = kept
	for _, p := range c.points {
		c.m = append(c.m, mvcc.ChangeWindow{Overwrites: p.x, Distinct: p.d}.Population(c.n))
	}
	return c
}

// hits is how many different of m blocks x changes hit if all are equally likely.
func hits(x, m float64) float64 { return -m * math.Expm1(-x/m) }

// at is how many different blocks x changes hit.
func (c *curve) at(x float64) float64 {
	x = sane(x, numberMax)
	i, _ := slices.BinarySearchFunc(c.points, x, func(p point, x float64) int { return cmp.Compare(p.x, x) })
	d := hits(x, c.populationAt(x, i))
	if i > 0 {
		d = max(d, c.points[i-1].d) // more changes never hit fewer blocks
	}
	if i > 1 && i == len(c.points) {
		d = max(d, c.beyond(x))
	}
	return min(d, x, c.n)
}

// again is how many of d blocks, which are those that changed since some moment, x changes
// behind that hit: see the package's comment on incrementals.
func (c *curve) again(d float64) func(x float64) float64 {
	low, high := 0.0, float64(numberMax)
	for range 100 { // how many changes hit d blocks; more never hit fewer
		if m := (low + high) / 2; c.at(m) < d {
			low = m
		} else {
			high = m
		}
	}
	first, hit := high, c.at(high)
	return func(x float64) float64 { return max(hit+c.at(x)-c.at(first+x), 0) }
}

// beyond goes on behind the last point as steeply as between the last two, as if all
// blocks that were not hit were equally likely. Of a load with hot blocks and others
// only that finds the others, and where the two ways differ the higher one warns.
func (c *curve) beyond(x float64) float64 {
	a, b := c.points[len(c.points)-2], c.points[len(c.points)-1]
	left, slope := c.n-b.d, max(b.d-a.d, 0)/(b.x-a.x)
	if left <= 0 {
		return c.n
	}
	return b.d - left*math.Expm1(-slope*(x-b.x)/left)
}

// populationAt goes between points, and on from the last two, by a power of x. i is the
// first point at or above x.
func (c *curve) populationAt(x float64, i int) float64 {
	switch {
	case len(c.points) == 0:
		return c.n // nothing is known: every change may hit another block
	case i == 0 || len(c.points) == 1:
		return c.m[0]
	}
	a, b := i-1, i
	if b == len(c.points) {
		a, b = b-2, b-1
	}
	slope := math.Log(c.m[b]/c.m[a]) / math.Log(c.points[b].x/c.points[a].x)
	if i == len(c.points) {
		slope = min(max(slope, 0), 1)
	}
	return min(c.m[b]*math.Pow(x/c.points[b].x, slope), c.n)
}
