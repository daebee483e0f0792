//go:build !unix

package bench

import "os/exec"

func quitLoudly(*exec.Cmd) {}
