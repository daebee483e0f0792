package livebackup

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// slowObjects take so long for each byte; from stuckAt bytes on a write does not return
// until free is closed.
type slowObjects struct {
	Objects
	perByte time.Duration
	stuckAt int64
	free    chan struct{}
}

func (s *slowObjects) Create(ctx context.Context, name string) (ObjectWriter, error) {
	w, err := s.Objects.Create(ctx, name)
	return &slowWriter{w, s, 0}, err
}

type slowWriter struct {
	ObjectWriter
	s       *slowObjects
	written int64
}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.written += int64(len(p))
	if w.s.stuckAt > 0 && w.written > w.s.stuckAt {
		<-w.s.free
	}
	time.Sleep(time.Duration(len(p)) * w.s.perByte)
	return w.ObjectWriter.Write(p)
}

// TestGuards_OfTheRun: wall time, and a sink that is too slow or stuck; within a second,
// typed, the session closed though the repository does not answer, nothing left. A
// sink that is just fast enough, and a rate that the backup keeps to, end nothing.
func TestGuards_OfTheRun(t *testing.T) {
	const perByte = time.Microsecond // 1 MB/s
	for name, c := range map[string]struct {
		o     BackupOptions
		slow  slowObjects
		guard mvcc.Guard    // "": it is made
		after time.Duration // when it is ended, about
	}{
		"time":         {BackupOptions{Guards: Guards{TimeMax: 3 * time.Second}}, slowObjects{perByte: perByte}, mvcc.GuardTime, 3 * time.Second},
		"rate":         {BackupOptions{Guards: Guards{RateMin: 2 << 20}}, slowObjects{perByte: perByte}, mvcc.GuardRate, rateOver},
		"stuck":        {BackupOptions{Guards: Guards{RateMin: 1 << 10}}, slowObjects{stuckAt: 1 << 20, free: make(chan struct{})}, mvcc.GuardRate, rateOver},
		"fast enough":  {BackupOptions{Guards: Guards{RateMin: 500 << 10, TimeMax: time.Hour}}, slowObjects{perByte: perByte}, "", 0},
		"large writes": {BackupOptions{Guards: Guards{RateMin: 70_000}, GroupBytes: 1 << 20}, slowObjects{perByte: 10 * perByte}, "", 0}, // 10 s each
		"rate is kept": {BackupOptions{Guards: Guards{RateMin: 2 << 20}, BytesPerSecond: 1 << 20}, slowObjects{}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := newFake(1, 2000, 4<<10)
				repo := newRepo(t)
				slow := c.slow
				slow.Objects = repo.objects
				if slow.free != nil {
					slow.free = make(chan struct{}) // of this bubble
				}
				repo.objects = &slow
				o := c.o
				o.Compression, o.GroupBytes = CompressionNone, cmp.Or(o.GroupBytes, 256<<10)
				began := time.Now()
				ended := make(chan error, 1)
				var res Result
				go func() { ended <- func() (err error) { res, err = Backup(t.Context(), fake, repo, o); return err }() }()
				if slow.free != nil {
					time.Sleep(c.after + time.Second)
					fake.mu.Lock()
					open := fake.open
					fake.mu.Unlock()
					if open != 0 {
						t.Error("the snapshot is held while the repository is stuck")
					}
					close(slow.free)
				}
				err := <-ended
				took := time.Since(began)
				if c.guard == "" {
					if err != nil {
						t.Fatalf("after %v: %v", took, err)
					}
				} else {
					var guard *mvcc.GuardError
					if !errors.As(err, &guard) || guard.Guard != c.guard || !c.guard.Beyond(guard.Reading, guard.Limit) {
						t.Fatalf("after %v: %v", took, err)
					}
					if took < c.after || took > c.after+2*time.Second {
						t.Errorf("ended after %v", took)
					}
					if list, err := List(t.Context(), repo); err != nil || len(list) != 0 {
						t.Errorf("listed: %v, %v", list, err)
					}
				}
				for _, m := range res.Record.Run.Margins {
					if mvcc.Guard(m.Guard).Beyond(m.Closest, m.Limit) != (mvcc.Guard(m.Guard) == c.guard) {
						t.Errorf("margin %+v", m)
					}
				}
			})
		})
	}
}

// TestGuards_ThroughTheSocket: what the database's guards end or refuse is typed at the
// other end, with limit and reading; so is an emergency, and a release.
func TestGuards_ThroughTheSocket(t *testing.T) {
	want := &mvcc.GuardError{Guard: mvcc.GuardTempShare, Limit: 0.5, Reading: 0.75}
	_, err := decodeErrorCost(encodeError(errors.Join(mvcc.ErrBroken, want), nil))
	var got *mvcc.GuardError
	if !errors.As(err, &got) || *got != *want || !errors.Is(err, mvcc.ErrGuard) {
		t.Fatalf("%v", err)
	}
	_, err = decodeErrorCost(encodeError(&mvcc.EmergencyError{Reason: "r"}, nil))
	if !errors.Is(err, mvcc.ErrEmergency) {
		t.Fatalf("%v", err)
	}
	client := served(t, newFake(1, 5, 4<<10), ServeOptions{})
	if err := client.Release(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if err := client.Release(t.Context(), 8); !errors.Is(err, mvcc.ErrNoSnapshot) {
		t.Fatal(err)
	}
}
