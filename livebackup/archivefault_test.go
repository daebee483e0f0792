package livebackup

import (
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// Whichever operation fails, once: the archive goes on by itself, or, if it is not
// under way yet, says why; and nothing is missing or there twice.
func TestArchive_FailureOfEveryOperation(t *testing.T) {
	faults := map[string]simfs.Fault{
		"EIO":            {Ops: everyOp},
		"EIO, then done": {Late: true},
		"half, ENOSPC":   {Short: true, Err: syscall.ENOSPC},
		"sync loses":     {Ops: simfs.OpSync, Sync: simfs.SyncCacheNew},
	}
	sites := newSiteSweep()
	archiveUnder(t, "no fault", &sites.clean, func(*simfs.FS) *simfs.Armed { return nil })
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			step := 1
			if testing.Short() {
				step = 3
			}
			for k := 0; ; k += step {
				armed := archiveUnder(t, fmt.Sprintf("operation %d", k), &sites.swept, func(fs *simfs.FS) *simfs.Armed {
					fault.Skip = k
					return fs.Fail(fault)
				})
				if armed.Seen() <= k {
					return
				}
			}
		})
	}
	for _, site := range sites.swept.Missed(&sites.clean) { // by the steps
		archiveUnder(t, site.String(), &sites.swept, func(fs *simfs.FS) *simfs.Armed {
			return sites.swept.Fail(fs, site, simfs.Failures()[0], 0)
		})
	}
	sites.end(t, 28)
}

// archiveUnder archives a few commits while something fails, then others, and proves that
// all are there.
func archiveUnder(t *testing.T, what string, sites *simfs.Sites, arm func(*simfs.FS) *simfs.Armed) (armed *simfs.Armed) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fs := simfs.New()
		fake := newLogSource(newFakeHistory(4))
		repo := boundRepo(t, fs, "/repo")
		fs.Trace(sites.Note)
		armed = arm(fs)
		err := archiveSteps(t, fake, repo, ArchiveOptions{ObjectBytes: 3000}, small)
		fs.Trace(nil)
		if armed != nil {
			armed.Disarm()
		}
		switch {
		case err == nil:
			wantArchive(t, repo, fake.log.h, 0)
		case len(mustLogs(t, repo)) > 0:
			t.Fatalf("%s: gave up: %v", what, err)
		}
		wantRecovered(t, fs.Crash(nil, simfs.DropAll), fake, fake.log.let, what)
	})
	return armed
}
