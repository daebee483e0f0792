package hostmem

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The formats below are the kernel's (proc(5), cgroups(7)). The parsers take
// any bytes: a line they do not understand is skipped where the kernel may add
// lines, and is an error where an answer hangs on it.

var errMissing = errors.New("no such entry")

// parseMeminfo finds "Key:   123 kB" and returns bytes.
func parseMeminfo(data []byte, key string) (int64, error) {
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != key+":" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil || kib < 0 || kib > math.MaxInt64/1024 || len(fields) != 3 || fields[2] != "kB" {
			return 0, fmt.Errorf("%s: unexpected value %q", key, line)
		}
		return kib * 1024, nil
	}
	return 0, fmt.Errorf("%s: %w", key, errMissing)
}

// parseKeyed finds "key 123", as in vmstat and memory.stat.
func parseKeyed(data []byte, key string) (int64, error) {
	for line := range bytes.Lines(data) {
		name, value, ok := strings.Cut(string(line), " ")
		if ok && name == key {
			n, err := parseValue([]byte(value))
			if err != nil {
				return 0, fmt.Errorf("%s: %w", key, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%s: %w", key, errMissing)
}

// parseValue reads "123" or "max"; what is beyond an int64 is as good as max.
func parseValue(data []byte) (int64, error) {
	text := strings.TrimSpace(string(data))
	if text == "max" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("unexpected value %q", text)
	}
	return int64(min(n, math.MaxInt64)), nil
}

// groupPaths are a process's groups: "" where it is in none.
type groupPaths struct {
	unified string
	legacy  string
}

// parseCgroup reads lines "7:memory,cpu:/a/b" (version 1) and "0::/a/b".
func parseCgroup(data []byte) (groupPaths, error) {
	var paths groupPaths
	for line := range bytes.Lines(data) {
		fields := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") {
			return groupPaths{}, fmt.Errorf("unexpected line %q", line)
		}
		switch {
		case fields[0] == "0" && fields[1] == "":
			paths.unified = fields[2]
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			paths.legacy = fields[2]
		}
	}
	return paths, nil
}

// mount is a mounted file system.
type mount struct {
	root         string // what of the file system is mounted
	point        string
	fsType       string
	superOptions string
}

func (m mount) hasOption(name string) bool {
	return slices.Contains(strings.Split(m.superOptions, ","), name)
}

// parseMountinfo reads lines
// "36 35 98:0 /root /point rw,noatime master:1 - fstype source options",
// where any number of fields may stand before the dash.
func parseMountinfo(data []byte) []mount {
	var mounts []mount
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		dash := slices.Index(fields, "-")
		if dash < 6 || len(fields) < dash+4 {
			continue
		}
		mounts = append(mounts, mount{
			root:         unescape(fields[3]),
			point:        unescape(fields[4]),
			fsType:       fields[dash+1],
			superOptions: fields[dash+3],
		})
	}
	return mounts
}

// unescape undoes the kernel's \ooo for blanks and backslashes in paths.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// parseStall reads the percentage in "full avg10=0.12 avg60=... total=...".
func parseStall(data []byte) (float64, error) {
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "full" {
			continue
		}
		text, ok := strings.CutPrefix(fields[1], "avg10=")
		percent, err := strconv.ParseFloat(text, 64)
		if !ok || err != nil || !(percent >= 0 && percent <= 100) {
			return 0, fmt.Errorf("unexpected line %q", line)
		}
		return percent, nil
	}
	return 0, fmt.Errorf("full: %w", errMissing)
}
