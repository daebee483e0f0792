//go:build unix

package bench

import (
	"os/exec"
	"syscall"
	"time"
)

// quitLoudly has the process say, when it is made to end, what all its
// goroutines were waiting for.
func quitLoudly(cmd *exec.Cmd) {
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	cmd.WaitDelay = 5 * time.Second
}
