package spill

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTempFile finds the descriptor of the only file without a name in dir.
func openTempFile(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := "/proc/self/fd/" + e.Name()
		target, err := os.Readlink(name)
		if err == nil && strings.HasPrefix(target, dir+"/") && strings.HasSuffix(target, "(deleted)") {
			return name
		}
	}
	t.Fatalf("no file in %s is open", dir)
	return ""
}

func mustStat(t *testing.T, name string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

func TestFileIsOursAloneUnderAnyUmask(t *testing.T) {
	for _, mask := range []int{0, 0o077, 0o777} {
		before := syscall.Umask(mask)
		dir, err := os.MkdirTemp("", "spill")
		s, openErr := Open(Options{BlockSize: 4096, Dirs: []Dir{{Path: dir, BytesMax: 4096}}, AllowMemoryFS: true})
		syscall.Umask(before)
		if err != nil || openErr != nil {
			if mask == 0o777 && os.Geteuid() != 0 {
				continue // the directory itself is closed to us
			}
			t.Fatal(err, openErr)
		}
		st := mustStat(t, openTempFile(t, dir))
		if st.Mode&0o777 != 0o600 || st.Nlink != 0 {
			t.Errorf("umask %o: mode %o, %d names", mask, st.Mode&0o777, st.Nlink)
		}
		s.Close()
		os.Remove(dir)
	}
}

// TestSpaceComesBackFromTheFileSystem compares Stats with st_blocks.
func TestSpaceComesBackFromTheFileSystem(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Options{Dirs: []Dir{{Path: dir, BytesMax: 64 << 20}}, AllowMemoryFS: true})
	file := openTempFile(t, dir)
	slots := mustWrite(t, s, versions(8192))
	check := func(what string) {
		t.Helper()
		held, said := mustStat(t, file).Blocks*512, s.Stats().Dirs[0].FileBytes
		// The file system may add its own blocks, which lead to ours.
		if held < said || held > said+256<<10 {
			t.Errorf("%s: the file system holds %d bytes, stats say %d", what, held, said)
		}
	}
	check("full")
	s.Free(slots[1024:7168]...)
	s.trim()
	check("a hole")
	if st := s.Stats().Dirs[0]; st.FileBytes > 2048*4096+growBytes {
		t.Errorf("%d bytes held for %d", st.FileBytes, st.UsedBytes)
	}
	for _, i := range []int{0, 1023, 7168, 8191} {
		mustRead(t, s, slots[i], versions(8192)[i])
	}
	s.Free(slots[1024-64 : 1024]...)
	s.Free(slots[7168:]...)
	s.trim()
	check("no tail")
	s.Free(slots[:1024-64]...)
	s.trim()
	check("empty")
	if st := mustStat(t, file); st.Blocks != 0 || st.Size != 0 {
		t.Errorf("empty file holds %d blocks, %d bytes", st.Blocks, st.Size)
	}
}

// TestR17_SpillDoesNotFillThePageCache writes 128 MiB, lets the device catch
// up, writes on, and asks the system what it still keeps.
func TestR17_SpillDoesNotFillThePageCache(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, Options{Dirs: []Dir{{Path: dir, BytesMax: 1 << 30}}, AllowMemoryFS: true})
	if inMemory, err := onMemoryFS(dir); err != nil || inMemory {
		t.Skip("the file is the page cache")
	}
	f, err := os.OpenFile(openTempFile(t, dir), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	batch, slots := items(versions(512), 4096), make([]Slot, 512)
	write := func(bytes int) {
		for ; bytes > 0; bytes -= 512 * 4096 {
			if _, err := s.Write(batch, slots); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(128 << 20)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	write(cacheTailBytes)
	var st unix.Cachestat_t
	err = unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &st, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		t.Skip("the system does not tell: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if cached := int64(st.Cache) * int64(os.Getpagesize()); cached > cacheTailBytes+stageBytes {
		t.Errorf("%d bytes in the page cache, want at most %d: %+v", cached, cacheTailBytes+stageBytes, st)
	}
}

func TestR17_MemoryFileSystemIsRefused(t *testing.T) {
	const shm = "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(shm, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Skip("no tmpfs here")
	}
	dir, err := os.MkdirTemp(shm, "spill")
	if err != nil {
		t.Skip(err)
	}
	defer os.Remove(dir)
	o := Options{BlockSize: 4096, Dirs: []Dir{{Path: dir, BytesMax: 1 << 20}}}
	if _, err := Open(o); !errors.Is(err, ErrMemoryFS) {
		t.Fatalf("want ErrMemoryFS: %v", err)
	}
	o.AllowMemoryFS = true
	s := mustOpen(t, o)
	slots := mustWrite(t, s, versions(10))
	s.Free(slots...)
	mustBeEmpty(t, s)
}
