package human

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Bytes formats a measured number of bytes: "64 MiB".
func Bytes(n int64) string { return strings.Replace(humanize.IBytes(uint64(max(n, 0))), ".0 ", " ", 1) }

// Plural is a count with what is counted: "1 backup", "2 backups".
func Plural[N Integer](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(n) + " " + one + "s"
}

// PerSecond formats a measured rate in bytes: "19 MiB/s".
func PerSecond(bytes int64, d time.Duration) string {
	if d <= 0 {
		return "-"
	}
	return Bytes(int64(float64(bytes)/d.Seconds())) + "/s"
}

// Integer is what Count takes.
type Integer interface {
	~int | ~int64 | ~uint32 | ~uint64
}

// Count formats a whole number with separators: "12,345".
func Count[N Integer](n N) string { return humanize.Comma(int64(n)) }

// Elapsed formats a measured length of time in three digits or so: "340 µs",
// "12.3 ms", "4.5 s", "2m05s", "3h20m", "12d".
func Elapsed(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Elapsed(-max(d, -math.MaxInt64)) // the least has no opposite
	case d == 0:
		return "0 s"
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d)
	case d < 999500*time.Nanosecond: // what rounds up to the next unit is written in it
		return threeDigits(d, time.Microsecond) + " µs"
	case d < 999500*time.Microsecond:
		return threeDigits(d, time.Millisecond) + " ms"
	case d < 59950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d.Round(time.Second) < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// threeDigits is d in units, with a decimal where there is room.
func threeDigits(d, unit time.Duration) string {
	v := float64(d) / float64(unit)
	if v < 9.95 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
