package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/spillwaydb/spillway/internal/watch"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// Source is what is asked: any livebackup.Source, for one.
type Source interface {
	Status(ctx context.Context) (mvcc.Status, error)
}

// Options of New. The zero value is good.
type Options struct {
	Labels     prometheus.Labels      // added to every metric: for a program with several databases
	Repository *livebackup.Repository // of the database; nil: no metrics about it
	Timeout    time.Duration          // of a scrape; 0: 5 seconds
}

// New makes a collector for the database that src is. Safe for concurrent use.
func New(src Source, o Options) prometheus.Collector {
	c := &collector{src: src, timeout: o.Timeout, families: make([]described, 0, len(families))}
	if c.timeout == 0 {
		c.timeout = 5 * time.Second
	}
	if o.Repository != nil {
		c.repo = watch.LookAt(o.Repository)
	}
	for _, f := range families {
		c.families = append(c.families, described{f, prometheus.NewDesc(f.name, f.help, f.labels, o.Labels)})
	}
	c.latency = prometheus.NewDesc(latencyName, latencyHelp, nil, o.Labels)
	c.up = prometheus.NewDesc(upName, upHelp, nil, o.Labels)
	return c
}

type collector struct {
	src         Source
	repo        *watch.RepositoryLook
	timeout     time.Duration
	families    []described
	up, latency *prometheus.Desc

	mu sync.Mutex // one scrape at a time
}

// described is a family with its description for Prometheus.
type described struct {
	family
	desc *prometheus.Desc
}

// Describe says what there may be.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.up
	out <- c.latency
	for _, f := range c.families {
		out <- f.desc
	}
}

// Collect asks the database. One that does not answer is down, and has nothing else.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	now := time.Now()
	st, err := c.src.Status(ctx)
	if err != nil {
		out <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, 0)
		return
	}
	out <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, 1)
	r := reading{Status: st, now: now}
	if c.repo != nil {
		r.repo = c.repo.Look(context.Background(), now, r.Database) // it goes on when the scrape is over
	}
	for _, f := range c.families {
		f.collect(&r, func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
		})
	}
	out <- latencyMetric(c.latency, st.Commits)
}

// latencyMetric is the histogram of how long commits took.
func latencyMetric(desc *prometheus.Desc, l mvcc.CommitLatency) prometheus.Metric {
	buckets := map[float64]uint64{}
	total := uint64(0)
	for i, n := range l.Counts {
		total += n
		if bound := mvcc.LatencyBound(i); bound >= 0 && i%2 == 0 { // one in a power of two is enough for a graph
			buckets[bound.Seconds()] = total
		}
	}
	return prometheus.MustNewConstHistogram(desc, total, l.Sum.Seconds(), buckets)
}
