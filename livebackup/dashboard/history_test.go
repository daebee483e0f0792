package dashboard

import "testing"

// A page that is asked for before anything was collected shows nothing; it was the end of
// the handler.
func TestHistory_OfNothing(t *testing.T) {
	for _, hours := range []bool{false, true} {
		if c := new(history).curves(hours); len(c.Time) != 0 {
			t.Errorf("%d points", len(c.Time))
		}
	}
}
