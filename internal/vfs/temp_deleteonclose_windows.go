package vfs

import (
	"crypto/rand"
	"os"
	"path/filepath"

	"golang.org/x/sys/windows"
)

// openTemp makes a file under a name that cannot be guessed and that the
// system removes with the last handle, also when the process is killed. After
// a power cut the file may remain.
func openTemp(dir string) (*os.File, error) {
	name := filepath.Join(dir, ".spillway-temp-"+rand.Text())
	return createFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE|windows.DELETE,
		windows.CREATE_NEW, windows.FILE_FLAG_DELETE_ON_CLOSE|windows.FILE_ATTRIBUTE_TEMPORARY)
}
