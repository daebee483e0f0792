package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// errNoSwap means that swap cannot be switched on here.
var errNoSwap = errors.New("swap cannot be switched on")

// swapBytes is how much of it.
const swapBytes = 512 << 20

// swappedOut is how much of this process is in swap.
func swappedOut() (bytes int64) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), "\nVmSwap:")
	if _, err := fmt.Sscan(rest, &bytes); err != nil {
		return 0
	}
	return bytes << 10 // it is in kB
}

// swapOn switches a file of swap on; off switches it off again and removes it.
func swapOn(ctx context.Context, file string) (off func() error, err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: needs root", errNoSwap)
	}
	zeros := make([]byte, 1<<20)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	for n := 0; n < swapBytes && err == nil; n += len(zeros) {
		_, err = f.Write(zeros) // a file with holes is refused
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	for _, command := range [][]string{{"mkswap", file}, {"swapon", file}} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("%w: %s: %w: %s", errNoSwap, command[0], err, out), os.Remove(file))
		}
	}
	return func() error {
		out, err := exec.Command("swapoff", file).CombinedOutput()
		if err != nil {
			return fmt.Errorf("swapoff: %w: %s", err, out)
		}
		return os.Remove(file)
	}, nil
}
