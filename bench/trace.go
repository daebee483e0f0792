package bench

import (
	"slices"
	"time"
)

// Commit is one commit of a [Load], in time since the load's start.
type Commit struct{ Began, Ended time.Duration }

// Took is the commit's latency.
func (c Commit) Took() time.Duration { return c.Ended - c.Began }

// Trace is what the writers of a [Load] did.
type Trace struct {
	Start        time.Time
	UpdatesPerTx int
	Commits      []Commit // of all writers, in no order
}

// Span is an interval of time since the start of a trace.
type Span struct{ From, To time.Duration }

// Length is how long the span is.
func (s Span) Length() time.Duration { return s.To - s.From }

// meets reports whether the commit was in flight within the span.
func (s Span) meets(c Commit) bool { return c.Ended >= s.From && c.Began < s.To }

// PerSecond is the rate of commits that ended within the spans.
func (t *Trace) PerSecond(spans ...Span) float64 {
	n, length := 0, time.Duration(0)
	for _, s := range spans {
		length += s.Length()
		for _, c := range t.Commits {
			if c.Ended >= s.From && c.Ended < s.To {
				n++
			}
		}
	}
	if length <= 0 {
		return 0
	}
	return float64(n) / length.Seconds()
}

// Latencies are those of all commits in flight within one of the spans, sorted.
func (t *Trace) Latencies(spans ...Span) Latencies {
	var l Latencies
	for _, c := range t.Commits {
		if slices.ContainsFunc(spans, func(s Span) bool { return s.meets(c) }) {
			l = append(l, c.Took())
		}
	}
	slices.Sort(l)
	return l
}

// Latencies are sorted.
type Latencies []time.Duration

// Quantile is the latency that a share q of the commits did not exceed; 0 if there are
// no commits.
func (l Latencies) Quantile(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(int(q*float64(len(l))), len(l)-1)]
}

// Max is the longest, 0 if there is none.
func (l Latencies) Max() time.Duration { return l.Quantile(1) }

// metrics puts the usual percentiles into m, in milliseconds.
func (l Latencies) metrics(m Metrics, prefix string) {
	m[prefix+"p50_ms"] = milliseconds(l.Quantile(0.5))
	m[prefix+"p99_ms"] = milliseconds(l.Quantile(0.99))
	m[prefix+"p9999_ms"] = milliseconds(l.Quantile(0.9999))
	m[prefix+"max_ms"] = milliseconds(l.Max())
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// recorder gathers the commits of one writer, in chunks: a slice that grows by
// copying would show in the process's memory.
type recorder struct {
	full [][]Commit
	last []Commit
}

const recorderChunk = 4096

func (r *recorder) add(c Commit) {
	if len(r.last) == cap(r.last) {
		r.full = append(r.full, r.last)
		r.last = make([]Commit, 0, recorderChunk)
	}
	r.last = append(r.last, c)
}

func (r *recorder) appendTo(all []Commit) []Commit {
	for _, chunk := range r.full {
		all = append(all, chunk...)
	}
	return append(all, r.last...)
}
