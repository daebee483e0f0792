//go:build unix

package spill

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

const childDirVar = "SPILL_TEST_CHILD_DIR"

// childMain is the process that is killed: it writes until it is.
func childMain(dir string) {
	s, err := Open(Options{Dirs: []Dir{{Path: dir, BytesMax: 1 << 20}}, BlockSize: 4096})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	slots := make([]Slot, 64)
	for i := 0; ; i++ {
		if _, err := s.Write(items(versions(64), 4096), slots); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if i == 10 {
			fmt.Println("ready")
		}
		s.Free(slots...)
	}
}

// TestS6_KilledProcessLeavesNothing kills processes while they write, several
// in one directory, and looks for what is left.
func TestS6_KilledProcessLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	for range 5 {
		children := []*exec.Cmd{startChild(t, dir), startChild(t, dir)}
		mustHaveNoNames(t, dir)
		for _, c := range children {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = c.Wait() // says that it was killed
		}
		mustHaveNoNames(t, dir)
	}
}

// startChild returns once the child has written.
func startChild(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), childDirVar+"="+dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		_ = c.Process.Kill()
		t.Fatalf("child says %q: %v", line, err)
	}
	return c
}

func mustHaveNoNames(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 0 {
		t.Fatalf("%v is in the temporary directory", entries)
	}
}

func TestS6_OpenAndClosedStoreHasNoNames(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Options{Dirs: []Dir{{Path: dir, BytesMax: 1 << 20}}})
	mustWrite(t, s, versions(100))
	mustHaveNoNames(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustHaveNoNames(t, dir)
}
