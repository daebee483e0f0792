package human

import (
	"testing"
	"time"
)

func TestParseMoment(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	noon := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]struct {
		at      time.Time
		assumed string
	}{
		"2026-11-27T12:00:00Z":           {noon, ""},
		"2026-11-27T13:00:00+01:00":      {noon, ""},
		"2026-11-27 12:00:00 UTC":        {noon, ""},
		"2026-11-27 12:00 UTC":           {noon, ""},
		" 2026-11-27 13:00+01:00 ":       {noon, ""},
		"2026-11-27 12:00:00.000000001Z": {noon.Add(1), ""},
		"2026-11-27 13:00":               {noon, "CET, UTC+01:00"},
		"2026-11-27T13:00:00":            {noon, "CET, UTC+01:00"},
	} {
		m, err := ParseMoment(text, berlin)
		if err != nil || !m.Time.Equal(want.at) || m.Assumed != want.assumed {
			t.Errorf("%q: %v %q, %v", text, m.Time, m.Assumed, err)
		}
	}
	for _, text := range []string{"", "yesterday", "12:00", "2026-11-27", "2026-11-27 13:00 CST", "2026-13-27 13:00Z", "27.11.2026 13:00"} {
		if m, err := ParseMoment(text, berlin); err == nil {
			t.Errorf("%q was taken for %v", text, m)
		}
	}
}

func TestMomentIsAFlag(t *testing.T) {
	var m Moment
	if m.String() != "" || m.Set("2026-11-27T12:00:00Z") != nil || m.String() != "2026-11-27T12:00:00Z" || m.Set("soon") == nil {
		t.Error("a moment does not round-trip")
	}
}
