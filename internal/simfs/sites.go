package simfs

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Site is a place in the product that asks the file system for something. Which kind of
// file it asks about is part of it: one line may serve several.
type Site struct {
	Op   Op
	At   string // file and line
	Role string // kind of file, as who watches calls it; "" is any
}

func (s Site) String() string {
	if s.Role == "" {
		return fmt.Sprintf("%v at %s", s.Op, s.At)
	}
	return fmt.Sprintf("%v of %s at %s", s.Op, s.Role, s.At)
}

func compareSites(a, b Site) int {
	return cmp.Or(cmp.Compare(a.Op, b.Op), cmp.Compare(a.Role, b.Role), cmp.Compare(a.At, b.At))
}

// siteOps are the operations whose failure somebody has to answer for.
const siteOps = IO | OpLstat | OpSize | OpFreeBytes

// Sites learns which places in the product ask a file system for something, and which
// of these met a fault: from the program counters of who calls. [Sites.Note] is the trace
// function of one run or of many. Safe for concurrent use.
type Sites struct {
	// Role names the kind of a file; nil: "" for all.
	Role func(file string) string
	// Through are functions, by the end of their names, that do for others what these
	// ask for: the site is who asked them.
	Through []string

	mu     sync.Mutex
	seen   map[Site]int
	struck map[Site]int
	places map[callers]string // what is known of stacks
}

// Note takes an operation in. It is to be called on the goroutine that asked for it, as
// trace functions and [Fault.Match] are.
func (s *Sites) Note(ev Event) {
	if site, ours := s.Of(ev); ours {
		s.Count(site, ev.Struck)
	}
}

// Count is Note where the site is known.
func (s *Sites) Count(site Site, struck bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen, s.struck = map[Site]int{}, map[Site]int{}
	}
	s.seen[site]++
	if struck {
		s.struck[site]++
	}
}

// Of is the site that asks for an operation; ours is false if that is no code of the
// product, or nothing that counts. It is to be called as Note is.
func (s *Sites) Of(ev Event) (site Site, ours bool) {
	if ev.Op&siteOps == 0 {
		return Site{}, false
	}
	site.Op, site.At = ev.Op, s.caller()
	if s.Role != nil {
		site.Role = s.Role(ev.File)
	}
	return site, site.At != ""
}

// callersMax is how far up the stack the product is looked for: what is between is the
// file system, and who watches it.
const callersMax = 16

// callers is a stack, from the inside out.
type callers [callersMax]uintptr

// caller is the innermost place of the product on the way to the file system.
func (s *Sites) caller() string {
	var pcs callers
	n := runtime.Callers(3, pcs[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	at, known := s.places[pcs]
	if !known {
		if s.places == nil {
			s.places = map[callers]string{}
		}
		at = s.placeOf(pcs[:n])
		s.places[pcs] = at
	}
	return at
}

func (s *Sites) placeOf(pcs []uintptr) string {
	frames := runtime.CallersFrames(pcs)
	for {
		f, more := frames.Next()
		_, in, ours := strings.Cut(f.Function, "spillwaydb/spillway/")
		ours = ours && !strings.HasPrefix(in, "internal/simfs") && !strings.HasPrefix(in, "internal/prove") && !strings.HasSuffix(f.File, "_test.go")
		if ours && !slices.ContainsFunc(s.Through, func(end string) bool { return strings.HasSuffix(in, end) }) {
			return fmt.Sprintf("%s/%s:%d", path.Base(path.Dir(f.File)), path.Base(f.File), f.Line)
		}
		if !more {
			return ""
		}
	}
}

// All are the sites that were met, in a fixed order.
func (s *Sites) All() []Site {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.seen), compareSites)
}

// Seen is how many operations a site asked for.
func (s *Sites) Seen(site Site) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[site]
}

// Struck is how many of them met a fault.
func (s *Sites) Struck(site Site) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.struck[site]
}
