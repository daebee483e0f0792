//go:build unix

package mvcc

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// TestOpen_RefusesWhatAnybodyMayWriteTo: a directory in which any user could replace
// the files is refused, also through a link to it; one that is sticky is not.
func TestOpen_RefusesWhatAnybodyMayWriteTo(t *testing.T) {
	dir := t.TempDir()
	db, link := filepath.Join(dir, "db"), filepath.Join(dir, "link")
	ok(t, os.Mkdir(db, 0o700))
	ok(t, os.Symlink(db, link))
	for _, c := range []struct {
		name string
		mode os.FileMode
		want error
	}{
		{db, 0o777, ErrNotPrivate}, {link, 0o707, ErrNotPrivate}, {db, 0o777 | os.ModeSticky, nil}, {db, 0o775, nil}, {link, 0o700, nil},
	} {
		ok(t, os.Chmod(db, c.mode))
		o := smallOptions(vfs.OS)
		o.Temp = []TempDir{}
		s, err := Open(c.name, o)
		if !errors.Is(err, c.want) {
			t.Errorf("%s with mode %v: %v, want %v", c.name, c.mode, err, c.want)
		}
		if err == nil {
			ok(t, s.Close())
		}
	}
}

// TestOpen_ThroughALink: a link may lead to a database's directory. With temporary storage
// where it is by default, the link was refused.
func TestOpen_ThroughALink(t *testing.T) {
	dir := t.TempDir()
	db, link := filepath.Join(dir, "db"), filepath.Join(dir, "link")
	ok(t, os.Mkdir(db, 0o700))
	ok(t, os.Symlink(db, link))
	o := smallOptions(vfs.OS)
	o.Temp = nil
	for _, name := range []string{link, db} {
		s, err := Open(name, o)
		ok(t, err)
		ok(t, s.Close())
	}
}
