package kv_test

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCommitCost_Counted has another process count what the thread that commits does: the
// directory bench/limits runs it, with what it is to do in the environment. Between two
// signals, which that process keeps from being delivered, there are the commits and nothing
// else.
func TestCommitCost_Counted(t *testing.T) {
	mode, commits := os.Getenv("SPILLWAY_COST_MODE"), os.Getenv("SPILLWAY_COST_COMMITS")
	if mode == "" {
		t.Skip("nobody counts: go run ./bench/limits cost")
	}
	n, err := strconv.Atoi(commits)
	if err != nil {
		t.Fatal(err)
	}
	commit, end := commitCostDB(t, mode == "backup")
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	for range 2000 {
		commit()
	}
	fmt.Printf("thread %d\n", unix.Gettid())
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	mark := func() {
		if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	mark()
	for range n {
		commit()
	}
	mark()
	end()
}
