package human

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time that a person types. It is a flag value.
type Duration time.Duration

// units by their names, in the order of their sizes.
var units = []struct {
	length time.Duration
	names  string
}{
	{time.Millisecond, " ms millisecond milliseconds "},
	{time.Second, " s sec second seconds "},
	{time.Minute, " m min minute minutes "},
	{time.Hour, " h hour hours "},
	{24 * time.Hour, " d day days "},
}

// ParseDuration reads a length of time: numbers, each with its unit. Only 0 needs none.
func ParseDuration(text string) (Duration, error) {
	refuse := func(why string) (Duration, error) {
		return 0, fmt.Errorf("%q is no duration: %s, like 30s, 1m30s or 2h", text, why)
	}
	rest := strings.TrimSpace(text)
	if rest == "0" {
		return 0, nil
	}
	if strings.HasPrefix(rest, "-") {
		return refuse("it is negative; write a number and a unit")
	}
	var total float64
	for first := true; first || rest != ""; first = false {
		number, unit, tail := cutQuantity(rest)
		value, err := strconv.ParseFloat(number, 64)
		length := lengthOf(unit)
		if err != nil || length == 0 {
			return refuse("write a number and a unit")
		}
		total += value * float64(length)
		rest = tail
	}
	if total >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too long", text)
	}
	return Duration(math.Round(total)), nil
}

// cutQuantity splits "30s rest" into its number, its unit, and the rest.
func cutQuantity(s string) (number, unit, rest string) {
	isDigit := func(r rune) bool { return r >= '0' && r <= '9' || r == '.' }
	s = strings.TrimLeft(s, " ")
	afterNumber := strings.TrimLeftFunc(s, isDigit)
	number = s[:len(s)-len(afterNumber)]
	afterNumber = strings.TrimLeft(afterNumber, " ")
	rest = strings.TrimLeftFunc(afterNumber, func(r rune) bool { return !isDigit(r) && r != ' ' })
	unit = afterNumber[:len(afterNumber)-len(rest)]
	return number, strings.ToLower(unit), strings.TrimLeft(rest, " ")
}

// lengthOf is how long a unit is; 0 if there is none of that name.
func lengthOf(name string) time.Duration {
	for _, u := range units {
		if name != "" && strings.Contains(u.names, " "+name+" ") {
			return u.length
		}
	}
	return 0
}

// Set is ParseDuration.
func (d *Duration) Set(text string) (err error) {
	parsed, err := ParseDuration(text)
	if err == nil {
		*d = parsed
	}
	return err
}

// String is the duration as typed.
func (d *Duration) String() string {
	if *d == 0 {
		return "0" // help texts leave a default of zero out
	}
	s := time.Duration(*d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Type is what a help text calls it.
func (d *Duration) Type() string { return "duration" }
