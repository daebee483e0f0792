package livebackup

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// siteSweep knows which places in the product ask the file system for something in a run
// without a fault, and which of these met one in the runs of a sweep.
type siteSweep struct {
	clean, swept simfs.Sites
}

func newSiteSweep() *siteSweep {
	w := &siteSweep{}
	w.clean.Role, w.swept.Role = kindOfFile, kindOfFile
	return w
}

// everyOp is every operation that may fail.
const everyOp = simfs.IO | simfs.OpLstat | simfs.OpSize | simfs.OpFreeBytes

// learn has a run without a fault on that disk noted.
func (w *siteSweep) learn(fs *simfs.FS) *simfs.FS {
	fs.Trace(w.clean.Note)
	return fs
}

// kindOfFile tells objects of one kind from those of another: one line opens all of them.
func kindOfFile(name string) string {
	parts := strings.Split(path.Base(name), ".")
	kind := parts[0]
	if len(parts) > 1 && kind[:min(1, len(kind))] <= "9" { // the number of a backup, or of a log segment
		kind = parts[1]
	}
	if end := strings.IndexAny(kind, "-0123456789"); end > 0 {
		kind = kind[:end]
	}
	return kind
}

// again strikes what was missed: where goroutines meet, the operations have no fixed order.
func (w *siteSweep) again(base *simfs.FS, run func(fs *simfs.FS)) {
	for _, site := range w.swept.Missed(&w.clean) {
		fs := base.Crash(nil, simfs.KeepAll)
		w.swept.Fail(fs, site, simfs.Failures()[0], 0)
		fs.Trace(w.swept.Note)
		run(fs)
	}
}

// end proves that there were at least so many call sites, and that every one was hit.
func (w *siteSweep) end(t *testing.T, least int) {
	t.Helper()
	all, missed := w.clean.All(), w.swept.Missed(&w.clean)
	for _, site := range missed {
		t.Errorf("no operation failed of this call site: %v", site)
	}
	if len(all) < least {
		t.Errorf("%d call sites, there were %d", len(all), least)
	}
	t.Logf("%d of %d call sites hit", len(all)-len(missed), len(all))
}

// failEach learns the call sites of a run, of which there are at least so many, and has it
// run again with operations of each failing: in two of the ways that there are, in short in
// one, with -histories in all. run puts the fault in place where what is to fail begins; without one it is nil.
func (w *siteSweep) failEach(t *testing.T, least int, run func(what string, sites *simfs.Sites, arm func(*simfs.FS) *simfs.Armed)) {
	t.Helper()
	rng := rand.New(rand.NewPCG(chance.Seed(t), 4))
	run("no fault", &w.clean, func(*simfs.FS) *simfs.Armed { return nil })
	for _, site := range w.clean.All() {
		kinds := site.Failures()
		rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		switch {
		case testing.Short():
			kinds = kinds[:1]
		case *histories == 0:
			kinds = kinds[:2]
		}
		for _, k := range kinds {
			skip := rng.IntN(w.clean.Seen(site))
			for _, skip := range []int{skip, 0} { // where a run comes to it less often, the first
				var armed *simfs.Armed
				run(fmt.Sprintf("%s of operation %d, %v", k.Name, skip, site), &w.swept, func(fs *simfs.FS) *simfs.Armed {
					armed = w.swept.Fail(fs, site, k, skip)
					return armed
				})
				if armed.Fired() > 0 {
					break
				}
			}
		}
	}
	w.end(t, least)
}
