package dashboard

import (
	"math"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/internal/watch"
)

// A page that is asked for before anything was collected shows nothing; it was the end of
// the handler.
func TestHistory_OfNothing(t *testing.T) {
	for _, hours := range []bool{false, true} {
		if c := new(history).curves(hours); len(c.Time) != 0 {
			t.Errorf("%d points", len(c.Time))
		}
	}
}

// Of a database that does not answer nobody knows how fast its backups are: the curve said
// that they stand still.
func TestHistory_BackupsOfADatabaseThatDoesNotAnswer(t *testing.T) {
	var h history
	at := time.Unix(1_700_000_000, 0)
	for i, v := range []watch.View{{Backups: []watch.Backup{{BytesPerSecond: 100}}}, {Error: "gone", Backups: []watch.Backup{{BytesPerSecond: 100}}}, {}} {
		v.Time = at.Add(time.Duration(i) * 2 * time.Second)
		h.add(&v)
	}
	if got := h.curves(false).Backups; got[0] != 100 || !math.IsNaN(float64(got[1])) || got[2] != 0 {
		t.Errorf("%v", got)
	}
	if got := h.curves(true).Backups; len(got) != 1 || math.IsNaN(float64(got[0])) {
		t.Errorf("%v", got)
	}
}

// A clock that is set back ends no curve: the points of six hours stood still until it came
// to where it had been, and those of the last half hour were drawn over each other.
func TestHistory_ClockSetBack(t *testing.T) {
	var h history
	at := time.Unix(1_700_000_000, 0)
	for i := range 200 {
		if i == 100 {
			at = at.Add(-time.Hour)
		}
		at = at.Add(2 * time.Second)
		h.add(&watch.View{Time: at, Writer: watch.Writer{Span: 1, CommitsPerSecond: 7}})
	}
	recent, hours := h.curves(false), h.curves(true)
	if len(recent.Time) != 200 || len(hours.Time) < 12 || recent.Time[199] != at.UnixMilli() {
		t.Errorf("%d and %d points, the last of %d", len(recent.Time), len(hours.Time), recent.Time[199])
	}
	for _, c := range []curves{recent, hours} {
		for i := 1; i < len(c.Time); i++ {
			if d := c.Time[i] - c.Time[i-1]; d <= 0 || d > 40_000 {
				t.Fatalf("point %d is %d ms behind the one before", i, d)
			}
		}
	}
}
