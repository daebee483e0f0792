// Package chance gives tests their source of chance, from one place.
//
// A test asks [Seed] for a number and draws everything else from that. The number is
// another in each run, so that tests look further each time they run. With the
// environment variable SPILLWAY_SEED it follows from its value and the test's name, and
// so one value gives one answer: .ci/run takes it from the commit. A failing test's log
// says which value repeats it. What order goroutines run in is still up to the scheduler.
package chance

import (
	"cmp"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Variable is the environment variable from which all seeds follow: a number of 64
// bits, as Go writes it. Without it each run of each test has another.
const Variable = "SPILLWAY_SEED"

var (
	mu      sync.Mutex
	sources = map[testing.TB]*rand.PCG{} // of the tests that run
)

// Seed returns the test's next seed: a test that asks several times gets several. The
// first time it logs the command that repeats the test with the same ones. Safe for
// concurrent use; but who asks from several goroutines of a test cannot repeat it.
func Seed(t testing.TB) uint64 {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	source := sources[t]
	if source == nil {
		number := rand.Uint64()
		if text := os.Getenv(Variable); text != "" {
			var err error
			if number, err = strconv.ParseUint(text, 0, 64); err != nil {
				t.Fatalf("%s is no number: %v", Variable, err)
			}
		}
		name := fnv.New64a()
		name.Write([]byte(t.Name()))
		source = rand.NewPCG(number, name.Sum64())
		sources[t] = source
		t.Cleanup(func() {
			mu.Lock()
			defer mu.Unlock()
			delete(sources, t)
		})
		t.Logf("repeat with %s=%d go test -count=1%s -run '%s' %s", Variable, number, short(), pattern(t.Name()), caller())
	}
	return source.Uint64()
}

// short is the flag that this run has, too: many tests do less with it.
func short() string {
	if testing.Short() {
		return " -short"
	}
	return ""
}

// pattern matches the test of that name, and no other.
func pattern(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

// caller is the import path of the package whose test asks.
func caller() string {
	pc, _, _, _ := runtime.Caller(2)
	path := runtime.FuncForPC(pc).Name() // example.org/module/folder.TestX.func1
	folder := path[:strings.LastIndex(path, "/")+1]
	name, _, _ := strings.Cut(path[len(folder):], ".")
	return cmp.Or(folder+strings.TrimSuffix(name, "_test"), ".")
}
