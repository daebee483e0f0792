package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// interruptError is why a context ended: a signal came.
type interruptError struct{ signal syscall.Signal }

func (e *interruptError) Error() string { return "stopped by signal: " + e.signal.String() }

// exitCode is what shells expect of who ended by a signal.
func (e *interruptError) exitCode() int { return 128 + int(e.signal) }

// interruptible returns a context that the first interrupt or termination signal
// ends. The second signal does what it does to others: it kills.
func interruptible(ctx context.Context, stderr io.Writer) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			number, _ := s.(syscall.Signal)
			if isTerminal(stderr) {
				fmt.Fprintln(stderr, "\nstopping, and removing what is half done; once more to kill")
			}
			cancel(&interruptError{number})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil) }
}
