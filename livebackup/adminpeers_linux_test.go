package livebackup

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fullSocket makes a socket with somebody who listens, and more who wait to be let in than
// he allows.
func fullSocket(t *testing.T, path string) os.FileInfo {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for {
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		if err := unix.Connect(c, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// Somebody who has the socket and is slow to answer is not taken for dead.
func TestServer_BusySocketIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	before := fullSocket(t, path)
	if _, err := serve(newFake(1, 5, 4<<10), ServeOptions{Dir: dir}); err == nil {
		t.Error("no error")
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(now, before) {
		t.Errorf("the socket of somebody who lives is gone: %v", err)
	}
}
