package wal

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// BenchmarkSync commits records of 300 bytes on a real directory; disk/p50 is
// what a write and a sync cost there without us.
func BenchmarkSync(b *testing.B) {
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			benchmarkSync(b, vfs.OS, clients)
			b.ReportMetric(diskMedian(b), "disk-p50-µs")
		})
	}
}

// BenchmarkSyncWithoutDisk is our own share: writes and syncs do nothing.
func BenchmarkSyncWithoutDisk(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) { benchmarkSync(b, noDisk{vfs.OS}, clients) })
	}
}

func benchmarkSync(b *testing.B, on vfs.FS, clients int) {
	l, err := Create(Options{FS: on, Dir: b.TempDir(), Database: testDatabase, Timeline: testTimeline}, 0)
	if err != nil {
		b.Fatal(err)
	}
	var writer sync.Mutex
	var left atomic.Int64
	left.Store(int64(b.N))
	body := bytes.Repeat([]byte{7}, 300)
	took := make([][]time.Duration, clients)
	for i := range took {
		took[i] = make([]time.Duration, 0, b.N/clients*2+10)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				start := time.Now()
				if err := benchmarkCommit(l, &writer, body); err != nil {
					b.Error(err)
					return
				}
				if len(took[c]) < cap(took[c]) {
					took[c] = append(took[c], time.Since(start))
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	s := l.Stats()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	b.ReportMetric(float64(s.Commits)/float64(s.Syncs), "commits/sync")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "p50-µs")
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

func benchmarkCommit(l *Log, writer *sync.Mutex, body []byte) error {
	writer.Lock()
	if err := l.Reserve(int64(len(body))); err != nil {
		if err := l.Release(l.Durable() + 1); err != nil {
			writer.Unlock()
			return err
		}
	}
	lsn := l.End() + 1
	err := l.Append(lsn, body, true)
	writer.Unlock()
	if err != nil {
		return err
	}
	return l.Sync(lsn)
}

// diskMedian is the median time of a 4 KiB write and a sync, in µs.
func diskMedian(b *testing.B) float64 {
	f, err := vfs.OS.OpenFile(b.TempDir()+"/probe", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4<<20)
	if _, err := f.WriteAt(page, 0); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for off := int64(0); off < 4<<20; off += 4096 {
		start := time.Now()
		if _, err := f.WriteAt(page[:4096], off); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return float64(took[len(took)/2].Nanoseconds()) / 1e3
}

// noDisk is a file system whose writes and syncs do nothing.
type noDisk struct{ vfs.FS }

type noDiskFile struct{ vfs.File }

func (d noDisk) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	return noDiskFile{f}, err
}

func (noDiskFile) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (noDiskFile) Sync() error                            { return nil }
