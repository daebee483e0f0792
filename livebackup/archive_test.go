package livebackup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// archiveRun is an Archive that runs in the background of a test.
type archiveRun struct {
	cancel context.CancelFunc
	done   chan error

	mu       sync.Mutex
	status   ArchiveStatus // the last one
	warnings []error
}

// startArchive runs in a bubble, on the clock of which the test goes on.
func startArchive(t *testing.T, src Source, repo *Repository, o ArchiveOptions) *archiveRun {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &archiveRun{cancel: cancel, done: make(chan error, 1)}
	o.Progress = func(s ArchiveStatus) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.status = s
	}
	o.Warn = func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.warnings = append(r.warnings, err)
	}
	go func() { r.done <- Archive(ctx, src, repo, o) }()
	return r
}

// stop ends it and returns what it returns.
func (r *archiveRun) stop() error {
	r.cancel()
	return <-r.done
}

func (r *archiveRun) now() ArchiveStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

func (r *archiveRun) warned(want error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.warnings, func(err error) bool { return errors.Is(err, want) })
}

// wantArchive proves that the archive has the whole log of h behind commit from, each
// commit in one object.
func wantArchive(t *testing.T, repo *Repository, h *fakeHistory, from block.LSN) {
	t.Helper()
	at := from
	for _, o := range mustLogs(t, repo) {
		if o.From != at {
			t.Fatalf("object %v where one from %v on was due", o.LogRange, at)
		}
		at = o.To
	}
	if at != h.newest() {
		t.Fatalf("the archive ends at %v, the log at %v", at, h.newest())
	}
	if at > from {
		wantLog(t, repo, ourLineage, h, LogRange{from, at})
	}
}

// The promise of the archive: a commit is in the repository no later than Every
// after it became durable, whatever the load, and the gauge never claims less than
// what would be lost.
func TestArchive_LossIsBounded(t *testing.T) {
	for _, o := range []ArchiveOptions{{}, {ObjectBytes: 20_000}, {Every: time.Second, Compression: CompressionNone}} {
		synctest.Test(t, func(t *testing.T) {
			every := o.Every
			if every == 0 {
				every = 10 * time.Second
			}
			rng := rand.New(rand.NewPCG(1, 1))
			fake, repo := newLogSource(newFakeHistory(1)), boundRepo(t, simfs.New(), "/repo")
			run := startArchive(t, fake, repo, o)
			var durable []time.Time // of each commit
			steps := 400
			if testing.Short() {
				steps = 120
			}
			for range steps {
				for range rng.IntN(4) {
					fake.log.commit(func(h *fakeHistory) { h.grow(1) })
					durable = append(durable, time.Now())
				}
				pause := time.Duration(rng.IntN(900)) * time.Millisecond
				if rng.IntN(30) == 0 {
					pause = 40 * time.Second
				}
				time.Sleep(pause)
				synctest.Wait()
				archived := block.LSN(0)
				for _, l := range mustLogs(t, repo) {
					archived = max(archived, l.To)
				}
				for n, at := range durable[archived:] {
					if age := time.Since(at); age > every {
						t.Fatalf("commit %v is not archived after %v", int(archived)+n+1, age)
					}
				}
				if s := run.now(); s.ArchivedLSN != archived || s.Late != 0 || s.Failure != nil {
					t.Fatalf("%+v, archived is %v", s, archived)
				}
			}
			if err := run.stop(); err != nil {
				t.Fatal(err)
			}
			wantArchive(t, repo, fake.log.h, 0)
			if fake.log.open() != 0 {
				t.Fatal("log is still held")
			}
		})
	}
}

// The gauge: how long what is not archived has been durable.
func TestArchive_AgeIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHistory(1).grow(3)
		fake, fs := newLogSource(h), simfs.New()
		repo := boundRepo(t, fs, "/repo")
		run := startArchive(t, fake, repo, ArchiveOptions{})
		time.Sleep(time.Hour)
		if s := run.now(); s.Age != 0 || !s.Oldest.IsZero() {
			t.Fatalf("idle: %+v", s)
		}
		fault := fs.Fail(simfs.Fault{Ops: simfs.OpSync, Sticky: true, Err: syscall.ENOSPC})
		began := time.Now()
		fake.log.commit(func(h *fakeHistory) { h.grow(1) })
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		s := run.now()
		if !s.Oldest.Equal(began) || s.Age < 4*time.Minute || !errors.Is(s.Failure, ErrRepositoryFull) {
			t.Fatalf("%+v", s)
		}
		fault.Disarm()
		time.Sleep(time.Minute)
		if s := run.now(); s.Age != 0 || s.Late != 1 || s.Failure != nil || s.ArchivedLSN != 4 {
			t.Fatalf("%+v", s)
		}
		if err := run.stop(); err != nil || !run.warned(ErrRepositoryFull) {
			t.Fatal(err)
		}
	})
}

// When it is told to end, the archive takes what is durable with it.
func TestArchive_EndsWithWhatIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, repo := newLogSource(newFakeHistory(2)), boundRepo(t, simfs.New(), "/repo")
		for range 10 {
			run := startArchive(t, fake, repo, ArchiveOptions{})
			synctest.Wait()
			fake.log.commit(func(h *fakeHistory) { h.grow(7) })
			if err := run.stop(); err != nil {
				t.Fatal(err)
			}
			wantArchive(t, repo, fake.log.h, 0)
		}
	})
}

// archiveSteps is a few commits, with time between them, under an archive that
// is then told to end.
func archiveSteps(t *testing.T, fake *fakeSource, repo *Repository, o ArchiveOptions, grow func(h *fakeHistory)) error {
	run := startArchive(t, fake, repo, o)
	synctest.Wait()
	for range 4 {
		fake.log.commit(grow)
		time.Sleep(7 * time.Second)
	}
	return run.stop()
}

func small(h *fakeHistory) { h.grow(2) }

// R14, R15, L12: killed or without power at any event, the archive has by then all
// that it let go of the log, and the next run goes on without gap or duplicate
// and leaves no temporary name.
func TestR15_PowerCutAtEveryEvent(t *testing.T) {
	base := simfs.New()
	boundRepo(t, base, "/repo")
	base = base.Crash(nil, simfs.DropAll)
	for k := 0; ; k++ {
		cut := false
		for _, mode := range []simfs.Mode{simfs.DropAll, simfs.KeepAll, simfs.Random} {
			synctest.Test(t, func(t *testing.T) {
				fs := base.Crash(nil, simfs.KeepAll)
				fake := newLogSource(newFakeHistory(3))
				repo := boundRepo(t, fs, "/repo")
				fs.CutAfter(k)
				archiveSteps(t, fake, repo, ArchiveOptions{ObjectBytes: 3000}, small)
				cut = fs.IsCut()
				done := fake.log.let
				after := fs.Crash(rand.New(rand.NewPCG(uint64(k), 1)), mode)
				if mode == simfs.KeepAll {
					after = fs.Kill()
				}
				fake.log.recycle(done + 1) // as the database may
				wantRecovered(t, after, fake, done, fmt.Sprintf("event %d, mode %v", k, mode))
			})
		}
		if !cut {
			if k < 20 {
				t.Fatalf("an archive of %d events?", k)
			}
			return
		}
	}
}

// wantRecovered archives on, and proves that nothing that was let go is lost, and
// that nothing is there twice.
func wantRecovered(t *testing.T, fs *simfs.FS, fake *fakeSource, done block.LSN, when string) {
	t.Helper()
	repo := boundRepo(t, fs, "/repo")
	if list := coverage(mustLogs(t, repo), ourLineage, 0); done > 0 && (len(list) != 1 || list[0].From != 0 || list[0].To < done) {
		t.Fatalf("%s: log up to %v was let go, the archive has %v", when, done, list)
	}
	if err := archiveSteps(t, fake, repo, ArchiveOptions{}, small); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	logs := mustLogs(t, repo)
	if len(logs) == 0 || done == 0 && logs[0].From > fake.log.h.newest() {
		t.Fatalf("%s: %v", when, logs)
	}
	wantArchive(t, repo, fake.log.h, logs[0].From)
	if done > 0 && logs[0].From != 0 {
		t.Fatalf("%s: the archive begins at %v", when, logs[0].From)
	}
	for _, name := range fs.Names() {
		if strings.HasSuffix(name, tempSuffix) || strings.HasPrefix(path.Base(name), "archive-") {
			t.Fatalf("%s: left %s", when, name)
		}
	}
}

// L12: an object that an archive finds may have a name that is not durable, because
// its maker failed at that. It is made durable before its log is let go.
func TestL12_ArchiveSyncsWhatItFinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := simfs.New()
		boundRepo(t, fs, "/repo")
		fs = fs.Crash(nil, simfs.DropAll)
		fake, repo := newLogSource(newFakeHistory(3).grow(1)), boundRepo(t, fs, "/repo")
		run := startArchive(t, fake, repo, ArchiveOptions{})
		synctest.Wait()
		armed := fs.Fail(simfs.Fault{Ops: simfs.OpSyncDir, Sticky: true})
		fake.log.commit(small)
		if err := run.stop(); !errors.Is(err, ErrRepositoryWrite) || len(mustLogs(t, repo)) != 1 {
			t.Fatal(err)
		}
		armed.Disarm()
		fake.log.commit(small)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		Archive(ctx, fake, repo, ArchiveOptions{Progress: func(ArchiveStatus) { fs.CutAfter(0) }}) // as soon as it has the log
		after := boundRepo(t, fs.Crash(nil, simfs.DropAll), "/repo")
		if list := coverage(mustLogs(t, after), ourLineage, 0); fake.log.let < 3 || len(list) != 1 || list[0] != (LogRange{1, 3}) {
			t.Fatalf("log up to %v was let go, the archive has %v", fake.log.let, list)
		}
	})
}

// A repository that is full or gone for a while costs nothing but time: the log is
// held back meanwhile.
func TestArchive_OutlivesItsRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := simfs.New()
		fake, repo := newLogSource(newFakeHistory(5).grow(1)), boundRepo(t, fs, "/repo")
		run := startArchive(t, fake, repo, ArchiveOptions{})
		synctest.Wait()
		for i := range 3 {
			fake.log.commit(small)
			time.Sleep(20 * time.Second)
			armed := fs.Fail(simfs.Fault{Ops: simfs.Events | simfs.OpRead, Sticky: true, Err: syscall.ESTALE, Late: i == 1})
			fake.log.commit(small)
			held := fake.log.held()
			time.Sleep(10 * time.Minute)
			fake.log.commit(small)
			time.Sleep(10 * time.Minute)
			if fake.log.held() != held || run.now().Failure == nil {
				t.Fatalf("%+v", run.now())
			}
			armed.Disarm()
			time.Sleep(time.Minute)
		}
		if err := run.stop(); err != nil {
			t.Fatal(err)
		}
		wantArchive(t, repo, fake.log.h, 1)
	})
}

// An archive that is told to end while it cannot write tries once more, and says so.
func TestArchive_EndsWithAnErrorIfItCannotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := simfs.New()
		fake, repo := newLogSource(newFakeHistory(5)), boundRepo(t, fs, "/repo")
		run := startArchive(t, fake, repo, ArchiveOptions{})
		synctest.Wait()
		fake.log.commit(small)
		fs.Fail(simfs.Fault{Ops: simfs.Events, Sticky: true, Err: syscall.EROFS})
		time.Sleep(time.Hour)
		if err := run.stop(); !errors.Is(err, ErrRepositoryWrite) || !errors.Is(err, syscall.EROFS) {
			t.Fatal(err)
		}
	})
}

// R14, T50: log that is gone makes a hole, that is told at once, as small as the
// backups allow, and the archive goes on behind it; what is archived before the
// hole stays of use.
func TestR14_HoleIsToldAndTheArchiveGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, repo := newLogSource(newFakeHistory(6)), boundRepo(t, simfs.New(), "/repo")
		run := startArchive(t, fake, repo, ArchiveOptions{})
		synctest.Wait()
		fake.log.commit(func(h *fakeHistory) { h.grow(10) })
		time.Sleep(time.Minute)
		// While the archive looks away, too much comes.
		fake.log.mu.Lock()
		fake.log.h.grow(10)
		fake.log.durable, fake.log.oldest = 20, 17
		fake.log.mu.Unlock()
		fake.log.commit(func(h *fakeHistory) { h.grow(1) })
		time.Sleep(time.Minute)
		if !run.warned(mvcc.ErrLogGone) || !run.warned(ErrLogGap) {
			t.Fatalf("%v", run.warnings)
		}
		fake.log.commit(func(h *fakeHistory) { h.grow(5) })
		if err := run.stop(); err != nil {
			t.Fatal(err)
		}
		if fake.log.open() != 0 {
			t.Fatal("log is still held")
		}
		if list := coverage(mustLogs(t, repo), ourLineage, 0); !slices.Equal(list, []LogRange{{0, 10}, {21, 26}}) {
			t.Fatalf("%v", list)
		}
		wantLog(t, repo, ourLineage, fake.log.h, LogRange{21, 26})
		if _, err := readText(t, repo, ourLineage, LogRange{0, 26}, 0); !errors.Is(err, ErrLogGap) || lostFrom(t, err) != 11 {
			t.Fatal(err)
		}
	})
}

// putBackup publishes a backup at commit lsn.
func putBackup(t *testing.T, fake *fakeSource, repo *Repository, lsn block.LSN) {
	t.Helper()
	fake.info.LSN, fake.info.RecordSum = lsn, fake.log.h.sum(lsn)
	for id, image := range fake.images { // blocks of a later commit are none of the snapshot's
		tr, _ := block.Verify(image, id, block.SeedOf(fake.info.Database))
		tr.LSN = 1
		block.Seal(image, tr, block.SeedOf(fake.info.Database))
	}
	mustBackup(t, fake, repo, BackupOptions{})
}

// R14: behind a hole the archive begins at the first backup that the log reaches
// back to: from there on every state can be had again.
func TestR14_ArchiveResumesAtABackup(t *testing.T) {
	for _, oldest := range []block.LSN{1, 6, 7, 12, 13, 19, 20} {
		synctest.Test(t, func(t *testing.T) {
			fake, repo := newLogSource(newFakeHistory(7).grow(20)), boundRepo(t, simfs.New(), "/repo")
			for id := range fake.images { // seal them with this database's id
				fake.put(rand.New(rand.NewPCG(uint64(id), 1)), id)
			}
			fake.putBitmap()
			for _, lsn := range []block.LSN{5, 11, 18} {
				putBackup(t, fake, repo, lsn)
			}
			fake.log.recycle(oldest)
			run := startArchive(t, fake, repo, ArchiveOptions{})
			synctest.Wait()
			fake.log.commit(func(h *fakeHistory) { h.grow(3) })
			if err := run.stop(); err != nil {
				t.Fatal(err)
			}
			want := block.LSN(20)
			for _, lsn := range []block.LSN{18, 11, 5} {
				if lsn+1 >= oldest {
					want = lsn
				}
			}
			wantArchive(t, repo, fake.log.h, want)
			if s := run.now(); s.StartLSN != want || (want == 5) != (len(s.Holes) == 0) || want > 5 && s.Holes[0] != (LogRange{5, want}) {
				t.Fatalf("%+v", s)
			}
			if (want == 20) != run.warned(ErrLogGap) {
				t.Fatalf("%v", run.warnings)
			}
		})
	}
}

// Two archives of one timeline exclude each other.
func TestArchive_OnlyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, repo := newLogSource(newFakeHistory(8).grow(2)), boundRepo(t, simfs.New(), "/repo")
		run := startArchive(t, fake, repo, ArchiveOptions{})
		synctest.Wait()
		if err := Archive(t.Context(), fake, repo, ArchiveOptions{}); !errors.Is(err, ErrArchiving) {
			t.Fatal(err)
		}
		if err := run.stop(); err != nil {
			t.Fatal(err)
		}
		again := startArchive(t, fake, repo, ArchiveOptions{})
		if err := again.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// R18, T33: a copy of the database, or one that was rolled back, is found before it
// archives anything; and what the store is to remember it knows before the
// repository has it.
func TestR18_ArchiveOfACopyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := simfs.New()
		fake, repo := newLogSource(newFakeHistory(9)), boundRepo(t, fs, "/repo")
		fs.Trace(func(ev simfs.Event) {
			if o, ok := parseLogName(ObjectInfo{Name: path.Base(ev.To)}); ok && ev.Op == simfs.OpLink {
				if !slices.Contains(fake.log.heads, mvcc.Head{LSN: o.To, Sum: fake.log.h.sum(o.To)}) {
					t.Errorf("%v is published, and not remembered", o.LogRange)
				}
			}
		})
		if err := archiveSteps(t, fake, repo, ArchiveOptions{}, small); err != nil {
			t.Fatal(err)
		}
		fs.Trace(nil)
		before := mustLogs(t, repo)
		newest := fake.log.h.newest()
		copied := newLogSource(fake.log.h.fork(newest-1, 99).grow(5))
		if err := Archive(t.Context(), copied, repo, ArchiveOptions{}); !errors.Is(err, mvcc.ErrHistory) {
			t.Fatal(err)
		}
		rolledBack := newLogSource(fake.log.h.fork(newest-1, 99))
		if err := Archive(t.Context(), rolledBack, repo, ArchiveOptions{}); !errors.Is(err, ErrRepositoryAhead) {
			t.Fatal(err)
		}
		other := newLogSource(fake.log.h)
		other.log.info.Database[0]++
		if err := Archive(t.Context(), other, repo, ArchiveOptions{}); !errors.Is(err, ErrForeignDatabase) {
			t.Fatal(err)
		}
		if after := mustLogs(t, repo); !slices.Equal(before, after) {
			t.Fatalf("%v, it was %v", after, before)
		}
	})
}

// What is wrong with objects is found while the archive is written: one that
// overlaps, one of another timeline under a name of ours.
func TestArchive_ForeignObjectsAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, repo := newLogSource(newFakeHistory(10)), boundRepo(t, simfs.New(), "/repo")
		run := startArchive(t, fake, repo, ArchiveOptions{})
		synctest.Wait()
		fake.log.commit(func(h *fakeHistory) { h.grow(3) })
		time.Sleep(2 * time.Minute)
		putLog(t, repo, fake.log.h.fork(3, 1).grow(9), fakeTimeline, LogRange{4, 9})
		fake.log.commit(func(h *fakeHistory) { h.grow(3) })
		if err := <-run.done; !errors.Is(err, ErrLogOverlap) {
			t.Fatal(err)
		}

		fake, repo = newLogSource(newFakeHistory(10).grow(9)), boundRepo(t, simfs.New(), "/repo")
		twin := fakeTimeline
		twin[15]++
		putLog(t, repo, fake.log.h, twin, LogRange{0, 5})
		if err := Archive(t.Context(), fake, repo, ArchiveOptions{}); !errors.Is(err, ErrLogForeign) {
			t.Fatal(err)
		}
	})
}

// An object that vanishes is missed when the next one is written.
func TestArchive_MissingObjectIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, repo := newLogSource(newFakeHistory(11)), boundRepo(t, simfs.New(), "/repo")
		run := startArchive(t, fake, repo, ArchiveOptions{})
		for range 3 {
			synctest.Wait()
			fake.log.commit(func(h *fakeHistory) { h.grow(3) })
			time.Sleep(time.Minute)
		}
		if len(run.warnings) != 0 {
			t.Fatalf("%v", run.warnings)
		}
		remove(t, repo, logIdentity{timeline: fakeTimeline, from: 6, to: 9}.object(0).Name())
		fake.log.commit(func(h *fakeHistory) { h.grow(3) })
		if err := run.stop(); err != nil {
			t.Fatal(err)
		}
		if s := run.now(); !run.warned(ErrLogGap) || !slices.Equal(s.Holes, []LogRange{{6, 9}}) || s.ArchivedLSN != 12 {
			t.Fatalf("%+v, %v", s, run.warnings)
		}
	})
}

// spoilingObjects damages the first few log objects once they are published.
type spoilingObjects struct {
	Objects
	fs   *simfs.FS
	left int
}

func (s *spoilingObjects) Create(ctx context.Context, name string) (ObjectWriter, error) {
	w, err := s.Objects.Create(ctx, name)
	if _, ok := parseLogName(ObjectInfo{Name: name}); !ok || err != nil || s.left == 0 {
		return w, err
	}
	s.left--
	return &spoilingWriter{w, s.fs, "/repo/" + name}, nil
}

type spoilingWriter struct {
	ObjectWriter
	fs   *simfs.FS
	name string
}

func (w *spoilingWriter) Commit() error {
	if err := w.ObjectWriter.Commit(); err != nil {
		return err
	}
	return w.fs.FlipBits(w.name, logHeaderSize+30, 4)
}

// An object that does not read back is noticed when it is written, while its log is
// still held: it is written again (T30).
func TestArchive_DamageIsNoticedWhenItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := simfs.New()
		fake, repo := newLogSource(newFakeHistory(12)), boundRepo(t, fs, "/repo")
		repo.objects = &spoilingObjects{repo.objects, fs, 3}
		run := startArchive(t, fake, repo, ArchiveOptions{})
		synctest.Wait()
		fake.log.commit(small)
		time.Sleep(9 * time.Second)
		if fake.log.held() != 1 {
			t.Fatal("log was let go")
		}
		time.Sleep(time.Minute)
		if err := run.stop(); err != nil || !run.warned(block.ErrCorrupt) {
			t.Fatal(err)
		}
		wantArchive(t, repo, fake.log.h, 0)
	})
}

// A commit that is larger than an object may be is streamed: memory stays what it
// is. If that fails half way, it is read again.
func TestR15_ArchiveStreamsALargeCommit(t *testing.T) {
	large := func(h *fakeHistory) {
		h.grow(3)
		h.commit(8, 800_000, "")
		h.grow(2)
	}
	faults := 7
	if testing.Short() {
		faults = 3
	}
	for k := range faults {
		synctest.Test(t, func(t *testing.T) {
			fs := simfs.New()
			fake, repo := newLogSource(newFakeHistory(13)), boundRepo(t, fs, "/repo")
			run := startArchive(t, fake, repo, ArchiveOptions{ObjectBytes: 1 << 20, Compression: CompressionNone})
			synctest.Wait()
			if k > 0 {
				fs.Fail(simfs.Fault{Ops: simfs.OpWrite | simfs.OpSync | simfs.OpLink, Skip: 8 * k, Short: true, Err: syscall.ENOSPC})
			}
			fake.log.commit(large)
			time.Sleep(time.Minute)
			fake.log.commit(small)
			if err := run.stop(); err != nil {
				t.Fatal(err)
			}
			wantArchive(t, repo, fake.log.h, 0)
		})
	}
}

// L14, R18: the archive of a restored database goes on where the parent's log was
// left, and takes nothing of what the parent did after that.
func TestL14_ArchiveGoesOnBehindAFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		repo := boundRepo(t, simfs.New(), "/repo")
		parent := newLogSource(newFakeHistory(14))
		if err := archiveSteps(t, parent, repo, ArchiveOptions{}, func(h *fakeHistory) { h.grow(5) }); err != nil {
			t.Fatal(err)
		}
		second := block.TimelineID{3, 3, 3, 3, 3}
		child := newLogSource(parent.log.h.fork(12, 15))
		child.log.info.Timeline, child.log.info.History = second, []block.Fork{{Timeline: fakeTimeline, LSN: 12}}
		child.log.oldest = 13 // its log begins at the fork
		if err := archiveSteps(t, child, repo, ArchiveOptions{}, func(h *fakeHistory) { h.grow(4) }); err != nil {
			t.Fatal(err)
		}
		wantLog(t, repo, lineageOf(second, child.log.info.History), child.log.h, LogRange{0, 28})
		wantLog(t, repo, ourLineage, parent.log.h, LogRange{0, 20})
		spaces, err := LogSpaces(t.Context(), repo)
		if err != nil || len(spaces) != 1 || spaces[0].LogRange != (LogRange{0, 28}) || len(spaces[0].Holes) != 0 {
			t.Fatalf("%+v, %v", spaces, err)
		}
		if err := Archive(t.Context(), parent, repo, ArchiveOptions{}); !errors.Is(err, ErrTimelineAbandoned) {
			t.Fatal(err)
		}
	})
}

// A source that fails ends the archive, and says why.
func TestArchive_SourceFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, repo := newLogSource(newFakeHistory(16)), boundRepo(t, simfs.New(), "/repo")
		run := startArchive(t, fake, repo, ArchiveOptions{})
		synctest.Wait()
		fake.log.onRead = func() error { return mvcc.ErrPoisoned }
		fake.log.commit(small)
		if err := <-run.done; !errors.Is(err, mvcc.ErrPoisoned) {
			t.Fatal(err)
		}
		if fake.log.open() != 0 {
			t.Fatal("log is still held")
		}
	})
}
