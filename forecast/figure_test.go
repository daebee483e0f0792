package forecast_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// seeded gives a test its source of chance.
func seeded(t *testing.T) *rand.Rand { return rand.New(rand.NewPCG(chance.Seed(t), 1)) }

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

func newWorld(t *testing.T, rng *rand.Rand, each int, skew float64, o mvcc.Options) *world {
	w := &world{t: t, rng: rng, each: each}
	o.FS, o.LogBytesMax = simfs.New(), 8<<20
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
			p := b.Payload()[w.rng.IntN(3900):][:80]
			for i := range p {
				p[i] = byte(w.rng.Uint32())
			}
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
		Sink: forecast.Sink{BlocksPerSecond: rate, StoredPerSecond: rate}, Room: livebackup.RoomForOriginals(&st),
	}
}

// outcome is how a backup went.
type outcome struct {
	peak    int64 // bytes of originals held at the same time, at most
	took    time.Duration
	forward bool
	end     error // nil: it is whole
}

// backup takes one while the load goes on. From where it falls forward on, half of what
// the sink takes is redo.
func (w *world) backup(perSecond int, o mvcc.BackupOptions) (r outcome) {
	began := time.Now()
	o.Owner, o.FullSpeed = "test", true
	b, err := w.s.OpenBackup(context.Background(), o)
	ok(w.t, err)
	defer b.Close()
	size := b.Info().BlockSize
	buf, ids := make([]byte, perSecond*size), make([]block.ID, perSecond)
	for {
		w.second()
		n := len(ids)
		if r.forward {
			n /= 2
			_, err = b.Redo(int64(n*size), func(mvcc.LogRecord) error { return nil })
		}
		got := 0
		if err == nil {
			got, err = b.Next(context.Background(), buf, ids[:n])
		}
		c := b.Cost()
		r.peak, r.took = max(r.peak, int64(c.OriginalsMade-c.OriginalsRead)*int64(size)), time.Since(began)
		switch {
		case errors.Is(err, mvcc.ErrFellForward):
			r.forward, err = true, nil
		case errors.Is(err, io.EOF) || got < n && err == nil && !r.forward:
			return r
		case err != nil:
			r.end = err
			return r
		}
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
				w := newWorld(t, rng, x.each, x.skew, mvcc.Options{MaxRAM: 64 << 20})
				for range 180 {
					w.second()
				}
				in := w.input(x.out)
				f := forecast.Make(in).Now
				was := w.backup(x.out, mvcc.BackupOptions{})
				ok(t, was.end)
				peak, took := was.peak, was.took
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

// TestForecast_Verdicts: what is said beforehand of a backup for which there is too
// little room is how it ends.
func TestForecast_Verdicts(t *testing.T) {
	rng := seeded(t)
	tight := mvcc.Options{MaxRAM: 4 << 20, OverflowMax: -1, LogHoldMax: 3 << 20, Temp: []mvcc.TempDir{{Path: "/db", BytesMax: 1 << 20}}}
	for _, x := range []struct {
		name      string
		each, out int
		abort     bool
		want      forecast.Verdict
		long      bool
	}{
		{"little is changed", 10, 80, false, forecast.Fits, true},
		{"it may not fall forward", 160, 32, true, forecast.Breaks, false},
		{"it falls forward", 160, 32, false, forecast.FallsForward, true},
		{"redo is faster than the sink", 800, 16, false, forecast.Breaks, false},
	} {
		if x.long && testing.Short() {
			continue
		}
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, rng, x.each, 0, tight)
				for range 70 {
					w.second()
				}
				in := w.input(x.out)
				in.Abort = x.abort
				o := mvcc.BackupOptions{OnExhaustion: mvcc.ExhaustionForward}
				if x.abort {
					o.OnExhaustion = mvcc.ExhaustionAbort
				}
				f := forecast.Make(in).Now
				was := w.backup(x.out, o)
				ok(t, w.s.Close())
				t.Logf("room %+v, forecast %+v, was %+v", in.Room, f, was)
				got := forecast.Fits
				switch {
				case errors.Is(was.end, mvcc.ErrBroken):
					got = forecast.Breaks
				case was.end != nil:
					t.Fatal(was.end)
				case was.forward:
					got = forecast.FallsForward
				}
				if f.Verdict != x.want || got != x.want {
					t.Errorf("forecast %v, was %v, want %v", f.Verdict, got, x.want)
				}
			})
		})
	}
}
