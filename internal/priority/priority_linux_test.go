package priority

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSet_EveryThread runs in a process of its own: who has given way cannot take it
// back.
func TestSet_EveryThread(t *testing.T) {
	if os.Getenv("SPILLWAY_GIVE_WAY") == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestSet_EveryThread$", "-test.v")
		c.Env = append(os.Environ(), "SPILLWAY_GIVE_WAY=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	var ready, done sync.WaitGroup
	release := make(chan struct{})
	for range 8 { // threads of their own
		ready.Add(1)
		done.Go(func() {
			runtime.LockOSThread()
			ready.Done()
			<-release
		})
	}
	ready.Wait()
	if err := Set(NiceMax, IOIdle); err != nil {
		t.Fatal(err)
	}
	ids, err := threads()
	if err != nil || len(ids) < 8 {
		t.Fatalf("%d threads, %v", len(ids), err)
	}
	for _, id := range ids {
		nice, err := unix.Getpriority(unix.PRIO_PROCESS, id)
		class, _, no := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, uintptr(id), 0)
		if err != nil || 20-nice != NiceMax || no != 0 || class != IOIdle.number() { // the system call adds up to 20
			t.Errorf("thread %d: nice %d (%v), class %#x (%v)", id, 20-nice, err, class, no)
		}
	}
	close(release)
	done.Wait()
}

func TestValidate(t *testing.T) {
	for _, nonsense := range []struct {
		nice  int
		class IOClass
	}{{-1, ""}, {20, ""}, {0, "realtime"}} {
		if Validate(nonsense.nice, nonsense.class) == nil || Set(nonsense.nice, nonsense.class) == nil {
			t.Errorf("%+v is taken", nonsense)
		}
	}
}
