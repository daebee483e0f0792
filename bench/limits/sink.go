package main

import (
	"context"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/livebackup"
)

// sink is a file system that takes no more than so many bytes a second, however many
// write to it.
type sink struct {
	vfs.FS
	mu        sync.Mutex
	perSecond float64
	free      time.Time // when it has taken what it was given
	writing   int       // calls under way
	began     time.Time // of these
	so        taken     // up to then
}

// taken is for how long something was written or synced, and how many bytes were taken.
type taken struct {
	busy  time.Duration
	bytes int64
}

// taken is what it has taken by now.
func (s *sink) taken() taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.so
	if s.writing > 0 {
		t.busy += time.Since(s.began)
	}
	return t
}

// enter counts the time of a call, until what it returns is called.
func (s *sink) enter() (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing++; s.writing == 1 {
		s.began = time.Now()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.writing--; s.writing == 0 {
			s.so.busy += time.Since(s.began)
		}
	}
}

func newSink(bytesPerSecond int64) *sink {
	return &sink{FS: vfs.OS, perSecond: float64(bytesPerSecond)}
}

// repository makes one in dir, which the sink keeps.
func (s *sink) repository(ctx context.Context, dir string) (*livebackup.Repository, error) {
	return livebackup.OpenRepository(ctx, dir, livebackup.RepositoryOptions{Create: true, FS: s})
}

// slow changes the rate.
func (s *sink) slow(bytesPerSecond int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.perSecond = float64(bytesPerSecond)
}

func (s *sink) take(n int) {
	s.mu.Lock()
	now := time.Now()
	if s.free.Before(now) {
		s.free = now
	}
	s.free = s.free.Add(time.Duration(float64(n) / s.perSecond * float64(time.Second)))
	wait := s.free.Sub(now)
	s.mu.Unlock()
	time.Sleep(wait)
	s.mu.Lock()
	s.so.bytes += int64(n)
	s.mu.Unlock()
}

// OpenFile opens a file that takes no more either.
func (s *sink) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := s.FS.OpenFile(name, flag, perm)
	if err != nil || flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		return f, err
	}
	return &sinkFile{f, s}, nil
}

type sinkFile struct {
	vfs.File
	s *sink
}

// sinkPiece is how much is taken at a time: a disk that is slow is so evenly.
const sinkPiece = 64 << 10

func (f *sinkFile) WriteAt(p []byte, off int64) (n int, err error) {
	defer f.s.enter()()
	for n < len(p) && err == nil {
		piece := p[n:min(n+sinkPiece, len(p))]
		f.s.take(len(piece))
		var wrote int
		wrote, err = f.File.WriteAt(piece, off+int64(n))
		n += wrote
	}
	return n, err
}

// Sync is a part of writing.
func (f *sinkFile) Sync() error {
	defer f.s.enter()()
	return f.File.Sync()
}
