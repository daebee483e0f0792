// Package interrupt turns the first interrupt, termination or hangup signal into the end
// of a context, so that what is half done can be cleaned up, and lets the second
// one kill, as it does elsewhere: but not the echo of the first.
//
//	ctx, release := interrupt.Context(ctx, func() { fmt.Fprintln(os.Stderr, "stopping") })
//	defer release()
//	err := work(ctx)
//	os.Exit(...) // interrupt.Code(ctx), if it is not 0
//
// Why the context ended is its cause: an *[Error]. Who was stopped by a signal
// exits with 128 plus its number: 130 for Ctrl-C, 143 for a termination, 129 for a
// terminal that was closed. A shell, or a supervisor, tells by that a command that was
// stopped from one that failed.
//
// From the signal on, writing to a pipe that nobody reads any more is an error and kills
// no longer: Ctrl-C also stops who reads the output, and that must not end the cleanup.
package interrupt

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Error is the cause of a context that a signal ended.
type Error struct{ Signal os.Signal }

func (e *Error) Error() string { return "stopped by signal: " + e.Signal.String() }

// ExitCode is 128 plus the signal's number.
func (e *Error) ExitCode() int {
	if n, ok := e.Signal.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return 128 + int(syscall.SIGINT)
}

// echo is how long after the first signal another one is taken for the same: some
// who stop a program signal it and then its whole group.
const echo = 300 * time.Millisecond

// Context returns a context that the first interrupt, termination or hangup signal ends,
// after told was called. release, to be called once, gives the signals back.
func Context(ctx context.Context, told func()) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals, broken := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		signal.Notify(signals, syscall.SIGHUP)
	}
	released, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		defer signal.Stop(signals)
		select {
		case s := <-signals:
			signal.Notify(broken, syscall.SIGPIPE)
			told()
			cancel(&Error{s})
		case <-ctx.Done():
			return
		}
		t := time.NewTimer(echo)
		defer t.Stop()
		select {
		case <-t.C:
		case <-released:
		}
	}()
	return ctx, func() {
		close(released)
		cancel(context.Canceled)
		<-done
		signal.Stop(broken)
	}
}

// Code is the exit code if a signal ended ctx, and 0 if none did.
func Code(ctx context.Context) int {
	var e *Error
	if errors.As(context.Cause(ctx), &e) {
		return e.ExitCode()
	}
	return 0
}
