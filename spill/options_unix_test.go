//go:build unix

package spill

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestOpenRefusesDirectoryOthersMayChange(t *testing.T) {
	for mode, accepted := range map[os.FileMode]bool{
		0o700: true, 0o755: true, 0o777 | os.ModeSticky: true,
		0o777: false, 0o770: false, 0o702: false,
	} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Options{BlockSize: 4096, Dirs: []Dir{{Path: dir, BytesMax: 4096}}, AllowMemoryFS: true})
		if accepted != (err == nil) || !accepted && !errors.Is(err, ErrNotPrivate) {
			t.Errorf("%v: %v", mode, err)
		}
		if err == nil {
			s.Close()
		}
	}
}

func TestOpenRefusesSymbolicLink(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(Options{BlockSize: 4096, Dirs: []Dir{{Path: link, BytesMax: 4096}}}); err == nil {
		s.Close()
		t.Fatal("accepted")
	}
}

func TestOpenRefusesDirectoryOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a directory away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{BlockSize: 4096, Dirs: []Dir{{Path: dir, BytesMax: 4096}}}); !errors.Is(err, ErrNotPrivate) {
		t.Fatal(err)
	}
}
