package forecast

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// FuzzMake: whatever the history and the figures say, a plan is made of numbers that
// make sense: none negative, none above its bound, none that is no number.
func FuzzMake(f *testing.F) {
	f.Add([]byte{}, uint64(1000), 1e6, 1e6, 4096, int64(0), int64(1<<20))
	f.Add([]byte{0xff, 0xf0, 1, 2, 3, 4, 5, 6, 7}, uint64(math.MaxUint64), math.NaN(), math.Inf(1), 0, int64(-5), int64(math.MaxInt64))
	f.Add([]byte("steady as she goes, all the week long"), uint64(0), -1.0, 0.0, 65536, int64(time.Hour), int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, b []byte, blocks uint64, raw, stored float64, size int, since, room int64) {
		at := 0
		next := func() float64 {
			if len(b) == 0 {
				return 0
			}
			var word [8]byte
			for i := range word {
				word[i] = b[(at+i)%len(b)]
			}
			at += 3
			return math.Float64frombits(binary.LittleEndian.Uint64(word[:]))
		}
		hour := func() (h mvcc.ChangeHour) {
			for i := range h.Distinct {
				h.Distinct[i] = next()
			}
			h.Weeks = at % 3
			h.Seconds, h.Overwrites, h.RedoBytes, h.Commits = next(), next(), next(), next()
			return h
		}
		window := func() mvcc.ChangeWindow {
			return mvcc.ChangeWindow{Within: time.Duration(at) * time.Minute, Distinct: next(), Overwrites: next()}
		}
		c := mvcc.Changes{At: noon, Recent: []mvcc.ChangeHour{hour(), hour()}}
		for i := range c.Running {
			c.Running[i] = window()
		}
		for i := range c.Week {
			c.Week[i] = hour()
		}
		for i := range c.FourHours {
			c.FourHours[i] = window()
		}
		for i := range c.Days {
			c.Days[i] = window()
		}
		in := Input{
			Now: noon, Changes: c, BlockSize: size, Blocks: blocks, Since: time.Duration(since),
			Sink: Sink{BlocksPerSecond: raw, StoredPerSecond: stored}, Room: Room{Cache: room, Temporary: room, Overflow: room},
		}
		h := newHistory(float64(in.Blocks), &in.Changes)
		for _, start := range []time.Time{noon, noon.Add(50 * time.Hour)} {
			v := in.at(h, start)
			if v.Bytes < 0 || v.PeakOriginals < 0 || v.PeakOriginals > v.PeakMax || v.TempNeeded < 0 || v.TempMax < v.TempNeeded || v.Duration < 0 ||
				v.FullAfter < 0 || !(v.RedoPerSecond >= 0) || math.IsInf(v.RedoPerSecond, 0) || v.Verdict == "" || v.Rung == "" {
				t.Fatalf("%+v of %+v", v, in)
			}
		}
	})
}
