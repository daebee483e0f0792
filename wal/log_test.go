package wal

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

func BenchmarkSync(b *testing.B) {
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) { benchmarkSync(b, clients) })
	}
}

func benchmarkSync(b *testing.B, clients int) {
	o := Options{FS: vfs.OS, Dir: b.TempDir(), Database: block.NewDatabaseID(), Timeline: block.NewTimelineID()}
	l, err := Create(o, 0)
	if err != nil {
		b.Fatal(err)
	}
	var commit sync.Mutex
	var left atomic.Int64
	left.Store(int64(b.N))
	body := bytes.Repeat([]byte{7}, 300)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				commit.Lock()
				if err := l.Reserve(int64(len(body))); err != nil {
					if err := l.Release(l.Durable() + 1); err != nil {
						b.Error(err)
					}
				}
				lsn := l.End() + 1
				if err := l.Append(lsn, body, true); err != nil {
					b.Error(err)
				}
				commit.Unlock()
				if err := l.Sync(lsn); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	s := l.Stats()
	b.ReportMetric(float64(s.Commits)/float64(s.Syncs), "commits/sync")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}
