package human

import (
	"fmt"
	"strings"
	"time"
)

// Moment is a point in time that a person types. It is a flag value.
type Moment struct {
	Time    time.Time
	Assumed string // the zone that was assumed because none was written, or ""
}

// layouts with a zone, then those without.
var (
	zonedLayouts = []string{
		time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999 Z07:00",
		"2006-01-02 15:04Z07:00", "2006-01-02 15:04 Z07:00",
	}
	localLayouts = []string{
		"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04",
	}
)

// ParseMoment reads a date and a time of day, with a zone as an offset from UTC
// ("Z", "+02:00") or " UTC". Without one the zone is local, and Assumed says so.
// Names of zones are not taken: "CST" is three of them.
func ParseMoment(text string, local *time.Location) (Moment, error) {
	s := strings.TrimSpace(text)
	if rest, ok := strings.CutSuffix(s, " UTC"); ok {
		s = rest + "Z"
	}
	for _, layout := range zonedLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return Moment{Time: t}, nil
		}
	}
	for _, layout := range localLayouts {
		if t, err := time.ParseInLocation(layout, s, local); err == nil {
			return Moment{Time: t, Assumed: t.Format("MST, UTC-07:00")}, nil
		}
	}
	return Moment{}, fmt.Errorf("%q is no time: write it like 2026-11-27T14:05:00Z, 2026-11-27 14:05:00+01:00 or 2026-11-27 14:05 UTC", text)
}

// Set is ParseMoment in the zone of this machine.
func (m *Moment) Set(text string) (err error) {
	*m, err = ParseMoment(text, time.Local)
	return err
}

func (m *Moment) String() string {
	if m.Time.IsZero() {
		return ""
	}
	return m.Time.Format(time.RFC3339Nano)
}

// Type is what help texts call the value.
func (m *Moment) Type() string { return "time" }
