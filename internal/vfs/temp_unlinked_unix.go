//go:build unix

package vfs

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
)

// openTempUnlinked makes a file under a name that cannot be guessed and takes
// the name away at once. A process killed between the two leaves an empty file.
func openTempUnlinked(dir string) (*os.File, error) {
	name := filepath.Join(dir, ".spillway-temp-"+rand.Text())
	f, err := openExact(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(name); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "open temporary file", Path: name, Err: err}
	}
	return f, nil
}
