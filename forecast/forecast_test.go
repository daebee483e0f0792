package forecast

import (
	"math"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// steady is a history of a load that has gone on for ever: perHour changes, which hit
// distinct(x) different blocks in x of them.
func steady(at time.Time, perHour, redo float64, distinct func(x float64) float64) mvcc.Changes {
	c := mvcc.Changes{At: at}
	hour := mvcc.ChangeHour{Weeks: 1, Seconds: 3600, Overwrites: perHour, RedoBytes: redo, Commits: perHour}
	for i, s := range []float64{10, 60, 300, 900, 3600} {
		hour.Distinct[i] = distinct(perHour * s / 3600)
	}
	c.Recent = []mvcc.ChangeHour{hour}
	for i := range c.Week {
		c.Week[i] = hour
	}
	for i := range c.FourHours {
		c.FourHours[i] = mvcc.ChangeWindow{Within: 4 * time.Hour, Distinct: distinct(4 * perHour), Overwrites: 4 * perHour}
	}
	for i := range c.Days {
		c.Days[i] = mvcc.ChangeWindow{Within: 24 * time.Hour, Distinct: distinct(24 * perHour), Overwrites: 24 * perHour}
	}
	return c
}

// uniform is how many of n blocks x changes hit.
func uniform(n float64) func(float64) float64 {
	return func(x float64) float64 { return -n * math.Expm1(-x/n) }
}

// zipf is the same where block k is changed as often as 1/k says.
func zipf(n int) func(float64) float64 {
	sum := 0.0
	for k := 1; k <= n; k++ {
		sum += 1 / float64(k)
	}
	return func(x float64) (d float64) {
		for k := 1; k <= n; k++ {
			d -= math.Expm1(-x / float64(k) / sum)
		}
		return d
	}
}

var noon = time.Date(2024, 3, 6, 12, 20, 0, 0, time.UTC)

const (
	testBlocks = 1 << 20
	testSize   = 4096
)

// input is a backup of 2 hours in which a changes per block happen.
func input(a float64, distinct func(float64) float64) Input {
	perSecond := float64(testBlocks*testSize) / 7200
	return Input{
		Now: noon, Changes: steady(noon, a*testBlocks/2, a*testBlocks/2*200, distinct), BlockSize: testSize, Blocks: testBlocks,
		Sink: Sink{BlocksPerSecond: perSecond, StoredPerSecond: perSecond},
		Room: Room{Cache: 1 << 40},
	}
}

// TestPeak_Uniform: at a steady uniform load the peak is the one of the theory.
func TestPeak_Uniform(t *testing.T) {
	for _, a := range []float64{0.5, 1, 1.5, 2, 5, 10, 50} {
		p := Make(input(a, uniform(testBlocks)))
		want := 0.0
		if a > 1 {
			want = 1 - (1+math.Log(a))/a
		}
		if got := float64(p.Now.PeakOriginals) / (testBlocks * testSize); math.Abs(got-want) > 0.01 {
			t.Errorf("%v changes per block: peak %.4f of the database, want %.4f", a, got, want)
		}
		if p.Now.Duration.Round(time.Second) != 2*time.Hour || p.Now.PeakMax != testBlocks*testSize {
			t.Errorf("%+v", p.Now)
		}
	}
}

// TestCurve_BetweenAndBeyond: what the history has not seen is read off the curve:
// within a tenth between its points; beyond them hardly less, and half as much again at
// most.
func TestCurve_BetweenAndBeyond(t *testing.T) {
	const n = 1 << 16
	for name, distinct := range map[string]func(float64) float64{
		"uniform": uniform(n), "zipf": zipf(n),
		"hot and cold": func(x float64) float64 { return uniform(n/100)(0.9*x) + uniform(n)(0.1*x) },
	} {
		var windows []mvcc.ChangeWindow
		for _, x := range []float64{n / 400, n / 100, n / 25, n / 6} {
			windows = append(windows, mvcc.ChangeWindow{Overwrites: x, Distinct: distinct(x)})
		}
		c := newCurve(n, windows)
		for x, slack := range map[float64]float64{n / 300: 1.1, n / 50: 1.1, n / 10: 1.1, n: 1.5, 4 * n: 1.5, 16 * n: 1.5} {
			if got, want := c.at(x), distinct(x); got < 0.9*want || got > slack*want {
				t.Errorf("%s: %v changes hit %v blocks, want %v", name, x, got, want)
			}
		}
		last := 0.0
		for x := 1.0; x < 100*n; x *= 1.1 {
			d := c.at(x)
			if d < last || d > n || d > x {
				t.Errorf("%s: %v changes hit %v blocks, fewer %v", name, x, d, last)
			}
			last = d
		}
	}
}
