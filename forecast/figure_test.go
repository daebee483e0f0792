package forecast_test

import (
	"context"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

var flagSeed = flag.Uint64("seed", 0, "seed of the random tests; 0: a new one")

// seeded gives a test its source of chance and prints how to repeat it.
func seeded(t *testing.T) *rand.Rand {
	seed := *flagSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a store under a steady load, in a bubble whose time is the test's.
type world struct {
	t    *testing.T
	rng  *rand.Rand
	s    *mvcc.Store
	ids  []block.ID
	pick func() int // which block changes next
	each int        // changes per second
}

const worldBlocks = 4000

func newWorld(t *testing.T, rng *rand.Rand, each int, skew float64) *world {
	w := &world{t: t, rng: rng, each: each}
	o := mvcc.Options{FS: simfs.New(), MaxRAM: 64 << 20, LogBytesMax: 64 << 20}
	s, err := mvcc.Open("/db", o)
	ok(t, err)
	for range worldBlocks / 100 {
		tx, err := s.BeginWrite()
		ok(t, err)
		for range 100 {
			b, err := tx.Alloc(block.TypeLeaf)
			ok(t, err)
			w.ids = append(w.ids, b.ID())
			b.Release()
		}
		_, err = tx.Commit()
		ok(t, err)
	}
	rng.Shuffle(len(w.ids), func(i, j int) { w.ids[i], w.ids[j] = w.ids[j], w.ids[i] })
	ok(t, s.Close())
	time.Sleep(25 * time.Hour) // the windows in which the blocks were made are over
	w.s, err = mvcc.Open("/db", o)
	ok(t, err)
	w.pick = func() int { return rng.IntN(len(w.ids)) }
	if skew > 0 {
		z := rand.NewZipf(rng, 1+skew/1000, 1, uint64(len(w.ids)-1))
		w.pick = func() int { return int(z.Uint64()) }
	}
	return w
}

// second is one second of the load.
func (w *world) second() {
	for left := w.each; left > 0; {
		tx, err := w.s.BeginWrite()
		ok(w.t, err)
		for range min(left, 20) {
			b, err := tx.Edit(w.ids[w.pick()])
			ok(w.t, err)
			b.Payload()[w.rng.IntN(4000)]++
			b.Release()
			left--
		}
		_, err = tx.Commit()
		ok(w.t, err)
	}
	time.Sleep(time.Second)
}

// input is what a backup at perSecond blocks a second would be forecast from.
func (w *world) input(perSecond int) forecast.Input {
	st := w.s.Status()
	rate := float64(perSecond * st.BlockSize)
	return forecast.Input{
		Now: time.Now(), Changes: w.s.Changes(), BlockSize: st.BlockSize, Blocks: st.AllocatedBlocks,
		Sink: forecast.Sink{BlocksPerSecond: rate, StoredPerSecond: rate}, Room: forecast.Room{Cache: 1 << 30},
	}
}

// backup takes one while the load goes on, and returns the most originals that it
// held and how long it took.
func (w *world) backup(perSecond int, base block.LSN) (peak int64, took time.Duration) {
	began := time.Now()
	b, err := w.s.OpenBackup(context.Background(), mvcc.BackupOptions{Owner: "test", FullSpeed: true, Base: base})
	ok(w.t, err)
	defer b.Close()
	size := b.Info().BlockSize
	buf, ids := make([]byte, perSecond*size), make([]block.ID, perSecond)
	for {
		w.second()
		n, err := b.Next(context.Background(), buf, ids)
		c := b.Cost()
		peak = max(peak, int64(c.OriginalsMade-c.OriginalsRead)*int64(size))
		if errors.Is(err, io.EOF) || n < perSecond && err == nil {
			return peak, time.Since(began)
		}
		ok(w.t, err)
	}
}

// TestForecast_PeakOnSteadyLoad is the figure: what was forecast of the peak of
// originals, and what it was, differ by less than a factor of 1.5 or 1 % of the database,
// whichever is more; and so for the time it takes.
func TestForecast_PeakOnSteadyLoad(t *testing.T) {
	rng := seeded(t)
	for _, x := range []struct {
		name      string
		skew      float64
		each, out int // changes and blocks handed out per second
		long      bool
	}{
		{"uniform, 5 changes a block", 0, 200, 40, false},
		{"uniform, 2 changes a block", 0, 80, 40, true},
		{"uniform, half a change a block", 0, 20, 40, true},
		{"zipf, 5 changes a block", 1, 200, 40, false},
		{"zipf, 20 changes a block", 1, 400, 20, true},
	} {
		if x.long && testing.Short() {
			continue
		}
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, rng, x.each, x.skew)
				for range 180 {
					w.second()
				}
				in := w.input(x.out)
				f := forecast.Make(in).Now
				peak, took := w.backup(x.out, 0)
				ok(t, w.s.Close())
				db := float64(worldBlocks * in.BlockSize)
				t.Logf("peak: forecast %.1f %% of the database, was %.1f %%; time: forecast %v, was %v",
					100*float64(f.PeakOriginals)/db, 100*float64(peak)/db, f.Duration, took)
				wrong(t, float64(f.PeakOriginals), float64(peak), 0.01*db)
				wrong(t, f.Duration.Seconds(), took.Seconds(), 2)
				if peak > f.PeakMax {
					t.Errorf("peak %d is above the bound %d", peak, f.PeakMax)
				}
			})
		})
	}
}

// wrong fails if a forecast is off by more than a factor of 1.5 and by more than slack.
func wrong(t *testing.T, forecast, was, slack float64) {
	t.Helper()
	if d := forecast - was; max(d, -d) > slack && (forecast > 1.5*was || was > 1.5*forecast) {
		t.Errorf("forecast %v, was %v", forecast, was)
	}
}
