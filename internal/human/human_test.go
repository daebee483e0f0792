package human

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "1": 1, "64MiB": 64 << 20, "64 MiB": 64 << 20, " 64mib ": 64 << 20, "1.5 GB": 1_500_000_000,
		"1,000,000": 1_000_000, "4k": 4000, "4Ki": 4096, "0.5KiB": 512, "1,234.5kB": 1_234_500, "8EiB": 0,
	} {
		got, err := ParseSize(text)
		if text == "8EiB" {
			if err == nil {
				t.Errorf("%q is accepted as %d", text, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
}

// TestNonsenseIsRefused: and the refusal repeats what was typed.
func TestNonsenseIsRefused(t *testing.T) {
	for _, text := range []string{
		"", " ", "MiB", "64parsecs", "-1", "-64MiB", "1,5 GB", ",5", "1,23,456", "1,000.5,0", "99999999EB", "0.3", "1e400",
		"NaN", "inf", "0x10", "1..5MB", "64 MiB please", "٣MB", "1 2", "--",
	} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("size %q is accepted as %d", text, got)
		} else if !strings.Contains(err.Error(), `"`+text+`"`) {
			t.Errorf("size %q: %v", text, err)
		}
		if got, err := ParseRate(text + "/s"); err == nil {
			t.Errorf("rate %q is accepted as %d", text, got)
		}
	}
	for _, text := range []string{"", "30", "s", "soon", "-3s", "3 parsecs", "1h-3m", "1..2s", "99999999999999h", "1h x", "NaNs"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("duration %q is accepted as %v", text, time.Duration(got))
		}
	}
}

func TestParseRateAndDuration(t *testing.T) {
	for _, text := range []string{"20MB/s", "20 MB/s", "20mbps", "20MB", "20,000 kB/sec"} {
		if got, err := ParseRate(text); err != nil || got != 20_000_000 {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "1m30s": 90 * time.Second, "2h": 2 * time.Hour, "2 h": 2 * time.Hour, "0s": 0, "0": 0,
		"1.5h": 90 * time.Minute, "90 min": 90 * time.Minute, "1 day 2 hours": 26 * time.Hour, "250ms": 250 * time.Millisecond,
	} {
		if got, err := ParseDuration(text); err != nil || time.Duration(got) != want {
			t.Errorf("%q is %v, %v", text, time.Duration(got), err)
		}
	}
}

// TestWhatIsPrintedCanBeTyped: String is the inverse of Set.
func TestWhatIsPrintedCanBeTyped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Size(rapid.Int64Min(0).Draw(t, "bytes") >> rapid.IntRange(0, 62).Draw(t, "shift"))
		if back, err := ParseSize(s.String()); err != nil || back != s {
			t.Fatalf("%d prints as %s, which is %d, %v", s, s.String(), back, err)
		}
		r := Rate(s)
		if back, err := ParseRate(r.String()); err != nil || back != r {
			t.Fatalf("%d prints as %s, which is %d, %v", r, r.String(), back, err)
		}
		d := Duration(time.Duration(rapid.Int64Range(0, 1e7).Draw(t, "ms")) * time.Millisecond)
		if back, err := ParseDuration(d.String()); err != nil || back != d {
			t.Fatalf("%d prints as %s, which is %d, %v", d, d.String(), back, err)
		}
	})
}

// TestColumnsHoldStill: measured values take at most ten columns.
func TestColumnsHoldStill(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Min(0).Draw(t, "n") >> rapid.IntRange(0, 62).Draw(t, "shift")
		for _, s := range []string{Bytes(n), PerSecond(n, time.Second), Elapsed(time.Duration(n))} {
			if utf8.RuneCountInString(s) > 10 {
				t.Fatalf("%d is %q", n, s)
			}
		}
	})
	for d, want := range map[time.Duration]string{
		0: "0 s", 340 * time.Microsecond: "340 µs", 4500 * time.Millisecond: "4.5 s", 125 * time.Second: "2m05s",
		200 * time.Minute: "3h20m", 12 * 24 * time.Hour: "12d", -time.Second: "-1.0 s", 59960 * time.Millisecond: "1m00s",
		999999: "1.0 ms", math.MinInt64: "-106751d", math.MaxInt64: "106751d",
	} {
		if got := Elapsed(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
	if Plural(1, "backup") != "1 backup" || Plural(1200, "backup") != "1,200 backups" || Bytes(4096) != "4 KiB" || Bytes(-1) != "0 B" {
		t.Error("Plural or Bytes")
	}
}
