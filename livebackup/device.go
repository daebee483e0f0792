package livebackup

import "path/filepath"

// SharesDevice reports whether the repository is on the same device as the
// directory of a database: what destroys one takes the other with it. False where
// that cannot be told.
func (r *Repository) SharesDevice(dir string) bool {
	if r.dir == "" {
		return false
	}
	a, err := r.fs.Lstat(filepath.Join(r.dir, "."))
	if err != nil {
		return false
	}
	b, err := r.fs.Lstat(filepath.Join(dir, "."))
	return err == nil && devicesAreKnown && !onOtherDevice(a, b)
}
