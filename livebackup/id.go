package livebackup

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// BackupID names a backup in its repository. Backups are ordered by sequence,
// never by a clock, which may step back; Random tells two backups apart that
// were started at once or that took the place of a deleted one. The zero
// BackupID is no backup's: it asks for the newest.
type BackupID struct {
	Sequence uint64
	Random   uint32
}

// RepositoryID names a repository: objects of another are refused.
type RepositoryID [16]byte

func (r RepositoryID) String() string { return hex.EncodeToString(r[:]) }

// String is the ID's one text form, e.g. 0000000012-8f3a9c21.
func (id BackupID) String() string { return fmt.Sprintf("%010d-%08x", id.Sequence, id.Random) }

// IsZero reports whether id asks for the newest backup.
func (id BackupID) IsZero() bool { return id == BackupID{} }

// ParseBackupID reads what String wrote, and nothing else.
func ParseBackupID(s string) (BackupID, error) {
	var id BackupID
	if _, err := fmt.Sscanf(s, "%d-%x", &id.Sequence, &id.Random); err != nil || id.String() != s || id.Sequence == 0 {
		return BackupID{}, fmt.Errorf("%q is not a backup id", s)
	}
	return id, nil
}

// MarshalText is String.
func (id BackupID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseBackupID.
func (id *BackupID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseBackupID(string(text))
	return err
}

func newBackupID(sequence uint64) BackupID {
	return BackupID{Sequence: sequence, Random: randomNumber()}
}

func newRepositoryID() (r RepositoryID) {
	rand.Read(r[:]) // never fails, see crypto/rand
	return r
}

func randomNumber() uint32 {
	var b [4]byte
	rand.Read(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// kind is what an object of a backup holds. It is the second part of its name.
type kind string

// The kinds of objects. The words are on disk.
const (
	kindRun      kind = "run"      // claim of the backup while it is being made
	kindBlocks   kind = "blocks"   // numbered
	kindIndex    kind = "index"    // numbered
	kindLog      kind = "log"      // numbered
	kindManifest kind = "manifest" // its presence makes the backup a backup
	kindPartial  kind = "partial"  // numbered
	kindProof    kind = "proof"    // numbered
)

// Names of the two objects that belong to no backup.
const (
	headerName  = "repository"
	bindingName = "database"
)

// Names of objects of the repository as a whole, made from a number each.

// timelineName is the name of record number of the registry of timelines.
func timelineName(number uint32) string { return fmt.Sprintf("timeline-%08d", number) }

// parseTimelineName reads what timelineName wrote, and nothing else.
func parseTimelineName(name string) (number uint32, ok bool) {
	_, err := fmt.Sscanf(name, "timeline-%d", &number)
	return number, err == nil && number > 0 && timelineName(number) == name
}

// leaseName is the name of a lease; number is random.
func leaseName(number uint64) string { return fmt.Sprintf("lease-%016x", number) }

// parseLeaseName reads what leaseName wrote, and nothing else.
func parseLeaseName(name string) (number uint64, ok bool) {
	_, err := fmt.Sscanf(name, "lease-%x", &number)
	return number, err == nil && leaseName(number) == name
}

// pruneName is the name of the intent of a prune. There is one number only: who
// claims it is the one who prunes.
const pruneName = "prune-0000000000000001"

// tempSuffix ends the name of an object that is being written; a random
// number stands before it.
const tempSuffix = ".tmp"

// objectName makes the name of an object: <id>.<kind>, or <id>.<kind>-<number>
// for the numbered kinds. Names are only ever made here, from numbers: nothing
// that was read from a repository is joined to a path.
func objectName(id BackupID, k kind, number uint32) string {
	switch k {
	case kindRun, kindManifest:
		return id.String() + "." + string(k)
	}
	return fmt.Sprintf("%v.%s-%08d", id, k, number)
}

// parseObjectName takes an object's name apart. temp says that the object is
// not finished. ok is false for names that no backup has.
func parseObjectName(name string) (id BackupID, k kind, number uint32, temp, ok bool) {
	if rest, found := strings.CutSuffix(name, tempSuffix); found {
		temp = true
		dot := strings.LastIndexByte(rest, '.')
		if dot < 0 {
			return id, k, 0, temp, false
		}
		name = rest[:dot]
	}
	first, rest, _ := strings.Cut(name, ".")
	id, err := ParseBackupID(first)
	if err != nil {
		return id, k, 0, temp, false
	}
	word, digits, numbered := strings.Cut(rest, "-")
	if numbered {
		if _, err := fmt.Sscanf(digits, "%d", &number); err != nil {
			return id, k, 0, temp, false
		}
	}
	k = kind(word)
	switch k {
	case kindRun, kindManifest, kindBlocks, kindIndex, kindLog, kindPartial, kindProof:
		return id, k, number, temp, objectName(id, k, number) == name
	}
	return id, k, 0, temp, false
}

// validName reports whether name is in the alphabet of object names.
func validName(name string) bool {
	if len(name) == 0 || len(name) > 96 || name[0] == '.' {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}
