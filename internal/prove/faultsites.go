package prove

import (
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/spillwaydb/spillway/internal/simfs"
)

const roleTemporary = "temporary storage"

// roleOf says what a file is to the store.
func roleOf(name string) string {
	base := path.Base(name)
	switch {
	case base == "(temporary)":
		return roleTemporary
	case strings.HasPrefix(name, repoDir):
		return "repository"
	case strings.HasSuffix(base, ".wal") || strings.HasSuffix(base, ".wal.new") || base == "log":
		return "log"
	case base == "data" || base == "doublewrite":
		return base
	}
	return "directory"
}

// faultSites are the call sites of all runs of a sweep. Safe for concurrent use.
type faultSites struct {
	simfs.Sites

	mu    sync.Mutex
	under map[simfs.Site]*injection // the fault of the run that first came there, nil if it had none
	now   *injection
}

// newFaultSites knows who asks for a sync of the data file, of which there is one place
// that does it for all.
func newFaultSites() *faultSites {
	f := &faultSites{under: map[simfs.Site]*injection{}}
	f.Role = roleOf
	f.Through = []string{").syncData", ".writeSuperblockBytes", ".installSuperblock"}
	return f
}

// note is a trace function.
func (f *faultSites) note(ev simfs.Event) {
	site, ours := f.Of(ev)
	if !ours {
		return
	}
	f.Count(site, ev.Struck)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.under[site]; !known {
		f.under[site] = f.now
	}
}

// kindsOf are the ways in which operations of a call site can fail.
func kindsOf(s simfs.Site) []simfs.Failure {
	return slices.DeleteFunc(s.Failures(), func(k simfs.Failure) bool { return k.Fault.WriteBack && s.Role == roleTemporary }) // which nobody syncs
}

// gaveBack reports whether temporary storage was ever cut.
func (f *faultSites) gaveBack() bool {
	for _, s := range f.All() {
		if s.Op == simfs.OpTruncate && s.Role == roleTemporary {
			return true
		}
	}
	return false
}
