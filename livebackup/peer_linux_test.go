package livebackup

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// nobody is a user that owns nothing.
const nobody = 65534

// asPeerEnv tells the child of the test where to connect.
const asPeerEnv = "LIVEBACKUP_TEST_PEER"

// A process of another user is refused by what the system says of it, even
// where the access rights of directory and socket have been spoilt. Only root
// can be two users; for others there is nothing to test.
func TestPeerOfAnotherUserIsRefused(t *testing.T) {
	if dir := os.Getenv(asPeerEnv); dir != "" {
		beNobody(t, dir)
		return
	}
	if os.Geteuid() != 0 {
		return
	}
	dir, err := os.MkdirTemp("/tmp", "peer")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "test")
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(binary, self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	fake := newFake(1, 5, 4<<10)
	server, err := serve(fake, ServeOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	os.Chmod(dir, 0o755)
	os.Chmod(filepath.Join(dir, SocketName), 0o666)
	temp := filepath.Join(dir, "temp") // ours may be for nobody else
	os.Mkdir(temp, 0o700)
	os.Chown(temp, nobody, nobody)
	child := exec.Command(binary, "-test.run=^TestPeerOfAnotherUserIsRefused$")
	child.Env = append(os.Environ(), asPeerEnv+"="+dir, "TMPDIR="+temp)
	child.Dir = "/"
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	os.Chown(dir, nobody, nobody) // now root serves what belongs to nobody: root may
	if _, err := Dial(dir); err != nil {
		t.Fatal(err)
	}
}

// beNobody is the child: refused by the server, and refusing a server that is
// not the owner of its directory.
func beNobody(t *testing.T, dir string) {
	if _, err := Dial(dir); !errors.Is(err, ErrPeerNotAllowed) {
		t.Fatal(err)
	}
	// A socket of nobody's, in a directory of root's.
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	if err := checkClient(ours); !errors.Is(err, ErrPeerNotAllowed) {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := checkServer(nc, "/"); !errors.Is(err, ErrPeerNotAllowed) {
		t.Fatal(err)
	}
	if err := checkServer(nc, filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
}
