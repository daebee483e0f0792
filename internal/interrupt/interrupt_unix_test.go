//go:build unix

package interrupt

import (
	"context"
	"errors"
	"syscall"
	"testing"
)

// TestFirstSignalEndsTheContext: with the signal as its cause, after who waits
// was told, and exit codes as shells expect them.
func TestFirstSignalEndsTheContext(t *testing.T) {
	for _, c := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGINT, 130}, {syscall.SIGTERM, 143}} {
		told := false
		ctx, release := Context(context.Background(), func() { told = true })
		if Code(ctx) != 0 {
			t.Fatal("a code before the signal")
		}
		if err := syscall.Kill(syscall.Getpid(), c.signal); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		var e *Error
		if !errors.As(context.Cause(ctx), &e) || e.Signal != c.signal || Code(ctx) != c.code || !told {
			t.Fatalf("%v: cause %v, code %d, told %v", c.signal, context.Cause(ctx), Code(ctx), told)
		}
		release()
	}
}

func TestReleaseIsNoSignal(t *testing.T) {
	ctx, release := Context(context.Background(), func() { t.Error("told of nothing") })
	release()
	<-ctx.Done()
	if Code(ctx) != 0 {
		t.Fatal("released, and yet a code")
	}
}
