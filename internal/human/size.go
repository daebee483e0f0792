package human

import (
	"fmt"
	"math"
	"strings"

	"github.com/dustin/go-humanize"
)

// Size is a number of bytes that a person types. It is a flag value.
type Size int64

// ParseSize reads a size: a number, and a unit unless it is bytes.
func ParseSize(text string) (Size, error) {
	trimmed := strings.TrimSpace(text)
	n, err := humanize.ParseBytes(trimmed)
	switch {
	case strings.HasPrefix(trimmed, "-"):
		return 0, fmt.Errorf("%q is no size: it is negative", text)
	case err == nil && n > math.MaxInt64, err != nil && strings.HasPrefix(err.Error(), "too large"):
		return 0, fmt.Errorf("%q is too large", text)
	case err != nil || !commasGroup(trimmed):
		return 0, fmt.Errorf("%q is no size: write a number and a unit, like 64MiB or 1.5GB", text)
	case n == 0 && strings.ContainsAny(trimmed, "123456789"):
		return 0, fmt.Errorf("%q is less than a byte", text)
	}
	return Size(n), nil
}

// commasGroup reports whether commas stand where they group thousands: "1,5 GB"
// is not 15 GB.
func commasGroup(text string) bool {
	number := text[:len(text)-len(strings.TrimLeft(text, "0123456789.,"))]
	whole, fraction, _ := strings.Cut(number, ".")
	parts := strings.Split(whole, ",")
	for _, p := range parts[1:] {
		if len(p) != 3 {
			return false
		}
	}
	return len(parts) == 1 || len(parts[0]) > 0 && len(parts[0]) <= 3 && !strings.Contains(fraction, ",")
}

// Set is ParseSize.
func (s *Size) Set(text string) (err error) {
	parsed, err := ParseSize(text)
	if err == nil {
		*s = parsed
	}
	return err
}

// String is the size in the largest unit that states it exactly, as typed.
func (s *Size) String() string {
	n := int64(*s)
	for _, u := range []struct {
		bytes int64
		name  string
	}{
		{humanize.TiByte, "TiB"}, {humanize.TByte, "TB"}, {humanize.GiByte, "GiB"}, {humanize.GByte, "GB"},
		{humanize.MiByte, "MiB"}, {humanize.MByte, "MB"}, {humanize.KiByte, "KiB"}, {humanize.KByte, "kB"},
	} {
		if n >= u.bytes && n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.name)
		}
	}
	return fmt.Sprint(n)
}

// Type is what a help text calls it.
func (s *Size) Type() string { return "size" }

// Rate is a number of bytes per second that a person types. It is a flag value.
type Rate int64

// ParseRate reads a rate: a size per second. The "/s" may be left out.
func ParseRate(text string) (Rate, error) {
	trimmed := strings.TrimSpace(text)
	for _, suffix := range []string{"/s", "/sec", "/second", "ps"} {
		if cut, ok := strings.CutSuffix(trimmed, suffix); ok {
			trimmed = cut
			break
		}
	}
	s, err := ParseSize(trimmed)
	if err == nil {
		return Rate(s), nil
	}
	return 0, fmt.Errorf("%q is no rate: write a size per second, like 20MB/s or 1.5MiB/s", text)
}

// Set is ParseRate.
func (r *Rate) Set(text string) (err error) {
	parsed, err := ParseRate(text)
	if err == nil {
		*r = parsed
	}
	return err
}

// String is the rate as typed.
func (r *Rate) String() string {
	s := Size(*r)
	if s == 0 {
		return "0" // help texts leave a default of zero out
	}
	return s.String() + "/s"
}

// Type is what a help text calls it.
func (r *Rate) Type() string { return "rate" }
