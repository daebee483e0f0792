//go:build unix

package vfs_test

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/internal/vfs"
)

func create(t *testing.T, name string) vfs.File {
	t.Helper()
	f, err := vfs.OS.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLinksAndPipesAreNotOpened(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	create(t, real)
	for name, place := range map[string]func(string) error{
		"link":     func(name string) error { return os.Symlink(real, name) },
		"dangling": func(name string) error { return os.Symlink(filepath.Join(dir, "none"), name) },
		"pipe":     func(name string) error { return syscall.Mkfifo(name, 0o600) },
	} {
		name = filepath.Join(dir, name)
		if err := place(name); err != nil {
			t.Fatal(err)
		}
		for _, flag := range []int{os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE, os.O_RDWR | os.O_TRUNC} {
			if _, err := vfs.OS.OpenFile(name, flag, 0o600); !errors.Is(err, vfs.ErrNotRegular) {
				t.Errorf("open %s with flags %#x: %v", name, flag, err)
			}
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dangling link was followed: %v", err)
	}
}

// TestModesIgnoreTheUmask is in a process of its own: the umask is one per
// process.
func TestModesIgnoreTheUmask(t *testing.T) {
	if os.Getenv("VFS_TEST_UMASK") == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestModesIgnoreTheUmask$")
		child.Env = append(os.Environ(), "VFS_TEST_UMASK=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, umask := range []int{0, 0o077, 0o277} {
		syscall.Umask(0o022)
		dir := t.TempDir()
		syscall.Umask(umask)
		create(t, filepath.Join(dir, "file"))
		if err := vfs.OS.Mkdir(filepath.Join(dir, "dir"), 0o750); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]fs.FileMode{"file": 0o600, "dir": fs.ModeDir | 0o750} {
			info, err := os.Lstat(filepath.Join(dir, name))
			if err != nil || info.Mode() != want {
				t.Errorf("umask %#o: %s has mode %v, want %v (%v)", umask, name, info.Mode(), want, err)
			}
		}
	}
}

func TestLockHoldsThroughAnotherDirectoryName(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	if err := create(t, filepath.Join(dir, "a")).Lock(); err != nil {
		t.Fatal(err)
	}
	if err := create(t, filepath.Join(dir, "again", "a")).Lock(); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
}

// The lock ends with the process, even one that is killed, and not before.
func TestLockExcludesOtherProcesses(t *testing.T) {
	if name := os.Getenv("VFS_TEST_LOCK"); name != "" {
		f := create(t, name)
		if err := f.Lock(); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("locked\n")
		io.Copy(io.Discard, os.Stdin) // until killed
		return
	}
	name := filepath.Join(t.TempDir(), "a")
	child := exec.Command(os.Args[0], "-test.run=^TestLockExcludesOtherProcesses$")
	child.Env = append(os.Environ(), "VFS_TEST_LOCK="+name)
	_, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("child says %q: %v", line, err)
	}
	f := create(t, name)
	if err := f.Lock(); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("lock while the child has it: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	if err := f.Lock(); err != nil {
		t.Errorf("lock after the child was killed: %v", err)
	}
}
