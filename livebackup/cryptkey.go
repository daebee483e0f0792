package livebackup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"filippo.io/age"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// ErrKeyFile: a file of keys holds something else, or others may read or change it.
var ErrKeyFile = errors.New("not a usable key file")

// keyFileBytesMax is how large a file of keys may be.
const keyFileBytesMax = 1 << 20

// ReadIdentities reads secret keys from files as age-keygen writes them: one in a
// line, empty lines and lines that start with # aside. A file that others than its
// owner may read is refused with ErrKeyFile, except on Windows, where the mode does
// not tell.
func ReadIdentities(files ...string) ([]age.Identity, error) { return readIdentities(vfs.OS, files) }

func readIdentities(fsys vfs.FS, files []string) (list []age.Identity, err error) {
	for _, file := range files {
		text, err := readKeyFile(fsys, file, 0o077)
		if err != nil {
			return nil, fmt.Errorf("read identities: %w", err)
		}
		more, err := age.ParseIdentities(strings.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("read identities: %s: %w: %w", file, ErrKeyFile, err)
		}
		list = append(list, more...)
	}
	return list, nil
}

// ReadRecipients reads public keys from files in the same form. A file that others
// than its owner may change is refused with ErrKeyFile, except on Windows: whoever
// can add a line can read the backups.
func ReadRecipients(files ...string) ([]string, error) { return readRecipients(vfs.OS, files) }

func readRecipients(fsys vfs.FS, files []string) (list []string, err error) {
	for _, file := range files {
		text, err := readKeyFile(fsys, file, 0o022)
		if err != nil {
			return nil, fmt.Errorf("read recipients: %w", err)
		}
		found := len(list)
		for _, line := range strings.Split(text, "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				list = append(list, line)
			}
		}
		if _, err := parseRecipients(list[found:]); err != nil {
			return nil, fmt.Errorf("read recipients: %s: %w: %w", file, ErrKeyFile, err)
		}
	}
	return list, nil
}

// readKeyFile reads a regular file for which none of the bits of forbidden is set.
func readKeyFile(fsys vfs.FS, file string, forbidden fs.FileMode) (string, error) {
	name, err := resolve(fsys, file)
	if err != nil {
		return "", err
	}
	info, err := fsys.Lstat(name)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s: %w: it is no regular file", file, ErrKeyFile)
	case info.Mode()&forbidden != 0 && runtime.GOOS != "windows":
		return "", fmt.Errorf("%s: %w: mode %04o lets others have it or change it; chmod 600", file, ErrKeyFile, info.Mode().Perm())
	case info.Size() > keyFileBytesMax:
		return "", fmt.Errorf("%s: %w: it has %d bytes", file, ErrKeyFile, info.Size())
	}
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text := make([]byte, info.Size())
	if err := readFull(f, text, 0); err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	return string(text), nil
}

// parseRecipients reads public keys, each in its one text form.
func parseRecipients(names []string) (list []age.Recipient, err error) {
	if len(names) == 0 {
		return nil, errors.New("there are no recipients")
	}
	for _, name := range names {
		var r interface {
			age.Recipient
			fmt.Stringer
		}
		switch {
		case strings.HasPrefix(name, "AGE-SECRET-KEY-"):
			return nil, errors.New("a recipient is a public key, this is a secret one")
		case strings.HasPrefix(name, "age1pq1"):
			r, err = age.ParseHybridRecipient(name)
		default:
			r, err = age.ParseX25519Recipient(name)
		}
		if err == nil && r.String() != name {
			err = errors.New("not in its usual form")
		}
		if err != nil {
			return nil, fmt.Errorf("recipient %q: %w", name, err)
		}
		list = append(list, r)
	}
	return list, nil
}
