//go:build unix

package spill

import (
	"syscall"
	"testing"
)

// TestR7_FileThatMayBeNoLongerIsFull: the file system, or the process, has a limit for one
// file that is below that of the directory. What there is room for goes on.
func TestR7_FileThatMayBeNoLongerIsFull(t *testing.T) {
	disk := newMemDisk(1 << 40)
	s := mustOpen(t, Options{Dirs: []Dir{{Path: "a", BytesMax: 1 << 30}}, FS: disk})
	m := newStoreModel(t, newRand(t), s)
	if err := m.write(100); err != nil {
		t.Fatal(err)
	}
	disk.setFault(func(op string, _ int, _ string) error {
		if op == "allocate" {
			return syscall.EFBIG
		}
		return nil
	})
	for m.write(100) == nil {
	}
	if d := s.Stats().Dirs[0]; d.State != StateFull || d.Failure != nil || d.UsedBytes < 1<<20 {
		t.Fatalf("%+v", d)
	}
	m.free(200)
	if err := m.write(200); err != nil {
		t.Error(err)
	}
	m.finish()
	s.Close()
}
