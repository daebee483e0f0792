//go:build unix

package kv_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

const (
	childVar    = "KV_TEST_CHILD"     // what the process is to be, instead of a test
	childDirVar = "KV_TEST_CHILD_DIR" // where
)

// beChild is called by init functions: this process may have been started by
// startChild. Then it does nothing else, and does not return.
func beChild(name string, run func(dir string) error) {
	if os.Getenv(childVar) != name {
		return
	}
	if err := run(os.Getenv(childDirVar)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// newChild is this program again, as another process that is to be started.
func newChild(t testing.TB, name, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	c := exec.Command(exe)
	c.Env = append(os.Environ(), childVar+"="+name, childDirVar+"="+dir)
	c.Stderr = os.Stderr
	return c
}
