package livebackup

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// A restore that was killed, or cancelled, goes on where it was when it is started
// again. What it builds has the restore's plan in its name, so only a restore of the
// very same backups to the same target finds it; any other sweeps it.
//
// The journal says which objects were proven to the last byte. It is not synced:
// that an object was proven does not say that its blocks have reached the disk. So
// each block found in the half-built file is proven again, by its trailer; there is
// nothing else it could be, since the plan writes each block once. Of an object
// that was not proven yet nothing is believed.

// planDigest names what a restore does: the backups of the chain and, in words, what
// comes behind them.
func planDigest(members []Entry, more string) Digest {
	h := sha256.New()
	for _, e := range members {
		h.Write(e.digest[:])
	}
	h.Write([]byte(more))
	return Digest(h.Sum(nil))
}

// building is where a restore builds, beside its target.
type building struct {
	fs   vfs.FS
	dir  string
	plan Digest
}

// planDigits is how many digits of the plan's digest are in the name.
const planDigits = 16

// building is where backup id is built by a restore with this plan.
func (p place) building(id BackupID, plan Digest) building {
	name := fmt.Sprintf("%s-%v-%s", p.prefix(), id, plan.String()[:planDigits])
	return building{p.fs, filepath.Join(p.parent, name), plan}
}

// nameJournal is in the directory that is built, as long as it is: so it lives and
// dies with it.
const nameJournal = "restore.journal"

func (b building) journalName() string { return filepath.Join(b.dir, nameJournal) }

// isBuilding reports whether a name beside p is one that a restore to p gave.
func (p place) isBuilding(name string) bool {
	rest, found := strings.CutPrefix(name, p.prefix()+"-")
	if !found {
		return false
	}
	if dash := len(rest) - planDigits - 1; dash > 0 && rest[dash] == '-' {
		if strings.Trim(rest[dash+1:], "0123456789abcdef") == "" {
			rest = rest[:dash]
		}
	}
	_, err := ParseBackupID(rest)
	return err == nil
}

// The journal of a restore. Numbers are little-endian:
//
//	offset  size  field
//	0       8     magic    "SPWYJRNL"
//	8       4     version  1
//	12      4     zero
//	16      32    plan     digest, see planDigest
//	48      12    zero
//	60      4     CRC      of bytes 0 to 59
//	64      16 n  entries, to the first that is not valid
//
// An entry:
//
//	0       4     kind     1: an object is proven; 2: the data is built, whole and durable
//	4       4     part     of the chain, the newest is 0; see part.go
//	8       4     object   number of the blocks object
//	12      4     CRC      of bytes 0 to 11
const (
	journalHeaderSize = 64
	journalEntrySize  = 16
	journalProven     = 1
	journalBuilt      = 2
)

var magicJournal = magic([]byte("SPWYJRNL"))

// journal is what a restore knows of itself. Not safe for concurrent use.
type journal struct {
	f       vfs.File
	end     int64
	entries map[journalEntry]bool
}

type journalEntry struct{ kind, part, object uint32 }

// openJournal opens the journal of what is being built; one that is not of this
// plan, or cannot be read, is begun anew. Close it.
func (b building) openJournal() (*journal, error) {
	f, err := b.fs.OpenFile(b.journalName(), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("open journal of the restore: %w", err)
	}
	j := &journal{f: f, end: journalHeaderSize, entries: map[journalEntry]bool{}}
	if err := j.read(b.plan); err != nil {
		f.Close()
		return nil, fmt.Errorf("read journal of the restore: %w", err)
	}
	return j, nil
}

func (j *journal) read(plan Digest) error {
	header := make([]byte, journalHeaderSize)
	copy(header, magicJournal[:])
	le.PutUint32(header[8:], formatVersion)
	copy(header[16:], plan[:])
	le.PutUint32(header[60:], checksum(header[:60]))
	size, err := j.f.Size()
	if err != nil {
		return err
	}
	data := make([]byte, min(max(size, 0), smallBytesMax<<8))
	if err := readFull(j.f, data, 0); err != nil {
		return err
	}
	if len(data) < journalHeaderSize || !bytes.Equal(data[:journalHeaderSize], header) {
		if err := j.f.Truncate(0); err != nil {
			return err
		}
		_, err := j.f.WriteAt(header, 0)
		return err
	}
	for b := data[journalHeaderSize:]; len(b) >= journalEntrySize; b = b[journalEntrySize:] {
		if le.Uint32(b[12:]) != checksum(b[:12]) {
			break
		}
		j.entries[journalEntry{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])}] = true
		j.end += journalEntrySize
	}
	return nil
}

func (j *journal) close() { j.f.Close() }

func (j *journal) write(e journalEntry) error {
	b := make([]byte, 0, journalEntrySize)
	b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, e.kind), e.part), e.object)
	b = le.AppendUint32(b, checksum(b))
	if _, err := j.f.WriteAt(b, j.end); err != nil {
		return fmt.Errorf("write journal of the restore: %w", err)
	}
	j.end += journalEntrySize
	j.entries[e] = true
	return nil
}

// has reports whether an object was proven.
func (j *journal) has(part, object uint32) bool {
	return j.entries[journalEntry{journalProven, part, object}]
}

// add notes that an object was proven.
func (j *journal) add(part, object uint32) error {
	return j.write(journalEntry{journalProven, part, object})
}

// built reports whether the data is whole and durable.
func (j *journal) built() bool { return j.entries[journalEntry{kind: journalBuilt}] }

// setBuilt notes that. It is called when that is so, and is itself made durable:
// what comes next may change the data.
func (j *journal) setBuilt() error {
	if err := j.write(journalEntry{kind: journalBuilt}); err != nil {
		return err
	}
	return j.f.Sync()
}
