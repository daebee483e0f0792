package interrupt

import (
	"context"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEchoDoesNotKill: a second signal right behind the first, to the thread that
// is told of the first, so that it is there before anything else happens.
func TestEchoDoesNotKill(t *testing.T) {
	ctx, release := Context(context.Background(), func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGINT); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	release()
	if Code(ctx) != 130 {
		t.Errorf("code %d", Code(ctx))
	}
}
