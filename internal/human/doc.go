// Package human is how sizes, rates and durations are written by people who type
// them and for people who read them.
//
// Size, Rate and Duration are values for command line flags: they say what they
// are in a help text, and refuse nonsense in words that name a way out. What
// they print can be typed again.
//
//	64MiB   64 MiB   1.5 GB   1,000,000   4k          a Size in bytes
//	20MB/s  20 MB/s  1.5 GiB/s  500k/s                a Rate in bytes per second
//	30s     1m30s    2 h      90 min      1 day       a Duration
//
// KiB, MiB and GiB are powers of 1024; kB, MB and GB are powers of 1000, as
// everywhere in go-humanize. A plain number of a size is bytes; a plain number,
// but for 0, is no duration. Zero is a value like others; its meaning is the flag's.
//
// The functions Bytes, PerSecond, Count and Elapsed format measured values in a
// few characters; their output is at most ten columns wide, so that tables and
// progress lines hold still.
//
// All of it is stateless and safe for concurrent use; a flag value is not.
package human
