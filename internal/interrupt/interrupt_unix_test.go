//go:build unix

package interrupt

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
)

// TestFirstSignalEndsTheContext: with the signal as its cause, after who waits
// was told, and exit codes as shells expect them.
func TestFirstSignalEndsTheContext(t *testing.T) {
	for _, c := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGINT, 130}, {syscall.SIGTERM, 143}, {syscall.SIGHUP, 129}} {
		if signal.Ignored(c.signal) {
			t.Logf("%v is ignored here, as under nohup: not tried", c.signal)
			continue
		}
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

// TestHangupUnderNohup: who is to outlive his terminal does, and can be terminated.
func TestHangupUnderNohup(t *testing.T) {
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Ignore(syscall.SIGHUP)
		defer func() { // Reset does not undo it
			c := make(chan os.Signal, 1)
			signal.Notify(c, syscall.SIGHUP)
			signal.Stop(c)
		}()
	}
	ctx, release := Context(context.Background(), func() {})
	defer release()
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		if err := syscall.Kill(syscall.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	<-ctx.Done()
	if got := Code(ctx); got != 143 {
		t.Fatalf("code %d, want 143 of the termination", got)
	}
}

// TestNobodyReadsAnyMore: Ctrl-C stops the whole pipeline. What is written from then on
// kills nobody, or it would end the cleanup. Before, it kills, as it does elsewhere.
func TestNobodyReadsAnyMore(t *testing.T) {
	if role := os.Getenv("SPILLWAY_WRITES"); role != "" {
		ctx, release := Context(context.Background(), func() {})
		if role == "stopped" {
			if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			<-ctx.Done()
		}
		_, err := os.Stderr.WriteString("to nobody")
		if !errors.Is(err, syscall.EPIPE) {
			os.Exit(1)
		}
		release()
		os.Exit(Code(ctx))
	}
	for role, want := range map[string]string{"stopped": "exit status 130", "running": "signal: broken pipe"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		c := exec.Command(os.Args[0], "-test.run=^TestNobodyReadsAnyMore$")
		c.Env, c.Stderr = append(os.Environ(), "SPILLWAY_WRITES="+role), w
		err = c.Run()
		w.Close()
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", role, err, want)
		}
	}
}
