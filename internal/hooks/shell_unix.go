//go:build unix

package hooks

import (
	"context"
	"os/exec"
	"syscall"
)

// shell runs a line.
func shell(ctx context.Context, line string) *exec.Cmd {
	return exec.CommandContext(ctx, "/bin/sh", "-c", line)
}

// ownGroup has the command in a group of its own: Ctrl-C is for us, who call the last
// hook then, and what it started ends with it.
func ownGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
}
