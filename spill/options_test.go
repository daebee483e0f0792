package spill

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenRefusesWhatItCannotKeep(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"no block size":    {},
		"odd block size":   {BlockSize: 5000},
		"no such dir":      {BlockSize: 4096, Dirs: []Dir{{Path: filepath.Join(dir, "none"), BytesMax: 4096}}},
		"a file":           {BlockSize: 4096, Dirs: []Dir{{Path: file, BytesMax: 4096}}},
		"no limit":         {BlockSize: 4096, Dirs: []Dir{{Path: dir}}},
		"limit too small":  {BlockSize: 4096, Dirs: []Dir{{Path: dir, BytesMax: 4095}}},
		"limit too large":  {BlockSize: 4096, Dirs: []Dir{{Path: dir, BytesMax: 4096 * (slotsMax + 1)}}},
		"negative reserve": {BlockSize: 4096, Dirs: []Dir{{Path: dir, BytesMax: 4096, FreeBytesMin: -1}}},
		"too many dirs":    {BlockSize: 4096, Dirs: make([]Dir, dirsMax+1)},
	} {
		if s, err := Open(o); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOpenErrorNamesTheDirectory(t *testing.T) {
	_, err := Open(Options{BlockSize: 4096, Dirs: []Dir{{Path: "/no/such", BytesMax: 4096}}})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/no/such") {
		t.Fatal(err)
	}
}

// TestBlockContentsAreNotLogged also proves that failure is.
func TestBlockContentsAreNotLogged(t *testing.T) {
	var log bytes.Buffer
	disk := newMemDisk(1 << 40)
	s := mustOpen(t, Options{
		FS: disk, Dirs: []Dir{{Path: "a", BytesMax: 1 << 20}},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	secret := []byte("very secret")
	data := bytes.Repeat(append(secret, 0), 400)[:4096]
	slots := make([]Slot, 1)
	if _, err := s.Write([]Item{{ID: 1, LSN: 1, Data: data}}, slots); err != nil {
		t.Fatal(err)
	}
	mustBeCorrupt(t, s, slots[0], version{id: 2})
	disk.failAt(disk.ops, errIO)
	_, _ = s.Write([]Item{{ID: 1, LSN: 1, Data: data}}, slots)
	out := log.String()
	if !strings.Contains(out, "damaged slot") || !strings.Contains(out, "no more writes") {
		t.Errorf("not logged: %s", out)
	}
	if strings.Contains(out, string(secret)) {
		t.Error("payload is in the log")
	}
}
