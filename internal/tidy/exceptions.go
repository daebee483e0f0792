package tidy

import "strings"

// exception lets one finding pass.
type exception struct {
	path string // of the file
	rule string
	text string // what the finding says, or a part of it
	why  string
}

var exceptions = []exception{
	{"livebackup/listen_unix.go", "call", "os.", "a socket is no file that vfs could open"},
	{"livebackup/serve.go", "call", "os.", "a socket is no file that vfs could open"},
	{"livebackup/place.go", "call", "os.Lstat", "symbolic links are followed by the system, not by vfs"},
	{"livebackup/sockpath_symlink_unix.go", "call", "os.", "a shorter name of the socket's directory"},
	{"cmd/livebackup/main_test.go", "call", "time.Sleep", "waits for another goroutine's backup, which is not ours to wake"},
	{"mvcc/concurrent_test.go", "call", "time.Sleep", "paces a check that runs beside the test and proves nothing by its time"},
	{"blockcache/cache_test.go", "call", "time.Sleep", "waits for pins of the spiller, which is not ours to wake"},
	{"mvcc/world_test.go", "call", "time.Sleep", "waits for goroutines of the store, until they are done"},
}

// withoutExceptions drops what an exception allows, and adds the exceptions that
// allowed nothing.
func withoutExceptions(found []Finding) []Finding {
	used := make([]bool, len(exceptions))
	var left []Finding
	for _, f := range found {
		if i := exceptionFor(f); i >= 0 {
			used[i] = true
			continue
		}
		left = append(left, f)
	}
	for i, e := range exceptions {
		if !used[i] {
			left = append(left, Finding{Path: e.path, Rule: e.rule, Text: "the exception for " + e.text + " is not needed any more"})
		}
	}
	return left
}

func exceptionFor(f Finding) int {
	for i, e := range exceptions {
		if e.path == f.Path && e.rule == f.Rule && strings.Contains(f.Text, e.text) {
			return i
		}
	}
	return -1
}
