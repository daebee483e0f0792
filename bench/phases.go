package bench

import "time"

// phases of a live backup, and the gauges all the while.
type phases struct {
	before, backup, after Span
	gauges                []gaugesAt
}

func (p phases) quiet() []Span { return []Span{p.before, p.after} }

func (p phases) throughput(m Metrics, t *Trace) {
	updates := float64(t.UpdatesPerTx)
	m["backup_seconds"] = p.backup.Length().Seconds()
	m["updates_before_per_second"] = t.PerSecond(p.before) * updates
	m["updates_during_per_second"] = t.PerSecond(p.backup) * updates
	m["updates_after_per_second"] = t.PerSecond(p.after) * updates
}

func share(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// edge is how much time around an event is looked at.
const (
	edge        = time.Second
	logEdge     = 50 * time.Millisecond
	shareOfTail = 0.9999
)

// latency compares commits during a backup, and around its events, with those
// of the quiet time. "Longer" is in milliseconds, and may be negative. What did not
// occur with and without a backup is left out: nothing is known of it.
func (p phases) latency(m Metrics, t *Trace) {
	quiet := t.Latencies(p.quiet()...)
	quiet.metrics(m, "quiet_")
	compare := func(name string, with, without Latencies) {
		if len(with) == 0 || len(without) == 0 {
			return
		}
		m[name+"_max_ms"] = milliseconds(with.Max())
		m[name+"_p9999_ms"] = milliseconds(with.Quantile(shareOfTail))
		m[name+"_max_longer_ms"] = milliseconds(with.Max() - without.Max())
		m[name+"_p9999_longer_ms"] = milliseconds(with.Quantile(shareOfTail) - without.Quantile(shareOfTail))
	}
	compare("during", t.Latencies(p.backup), quiet)
	compare("start", t.Latencies(Span{p.backup.From, p.backup.From + edge}), quiet)
	compare("end", t.Latencies(Span{p.backup.To - edge/2, p.backup.To + edge/2}), quiet)
	switches, releases := p.logEvents()
	m["log_switches"], m["log_releases"] = float64(len(switches)), float64(len(releases))
	quietSwitches, quietReleases := within(switches, p.quiet()...), within(releases, p.quiet()...)
	compare("log_switch", t.Latencies(within(switches, p.backup)...), t.Latencies(quietSwitches...))
	compare("log_release", t.Latencies(within(releases, p.backup)...), t.Latencies(quietReleases...))
}

// logEvents are when the log took a new segment, and when it let some go.
func (p phases) logEvents() (switches, releases []Span) {
	for i := 1; i < len(p.gauges); i++ {
		was, is := p.gauges[i-1], p.gauges[i]
		around := Span{is.at - observeEvery - logEdge, is.at + logEdge}
		switch {
		case is.LogLiveBytes > was.LogLiveBytes:
			switches = append(switches, around)
		case is.LogLiveBytes < was.LogLiveBytes:
			releases = append(releases, around)
		}
	}
	return switches, releases
}

// within are the spans that begin in one of the others.
func within(spans []Span, others ...Span) (inside []Span) {
	for _, s := range spans {
		for _, o := range others {
			if s.From >= o.From && s.From < o.To {
				inside = append(inside, s)
			}
		}
	}
	return inside
}

// growth is by how much the files grew from the backup's start on: the most
// that was seen until the load ended.
func (p phases) growth(m Metrics) {
	var data, log, dataAt, logAt int64
	for _, g := range p.gauges {
		if g.at <= p.backup.From {
			dataAt, logAt = g.DataBytes, g.LogBytes
		}
		if g.at <= p.after.To {
			data, log = max(data, g.DataBytes), max(log, g.LogBytes)
		}
	}
	m["data_growth_bytes"] = float64(data - dataAt)
	m["log_growth_bytes"] = float64(log - logAt)
}
