package main

import (
	"os"
	"os/exec"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// canMount reports whether a small file system can be made: to fill one up is
// the only honest test of "full".
var canMount = sync.OnceValue(func() bool {
	dir, err := os.MkdirTemp("", "can-mount-")
	if err != nil || os.Geteuid() != 0 {
		return false
	}
	defer os.Remove(dir)
	if exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", dir).Run() != nil {
		return false
	}
	return exec.Command("umount", dir).Run() == nil
})

// cmdTmpfs: tmpfs DIR SIZE mounts a file system until the script ends.
func cmdTmpfs(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(exec.Command("mount", "-t", "tmpfs", "-o", "size="+args[1], "tmpfs", dir).Run())
	ts.Defer(func() { ts.Check(exec.Command("umount", dir).Run()) })
}
