package livebackup

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// Proof is the record of one Verify, which says what it proves: an immutable object beside the backup.
// Its JSON form is described by format.go.
type Proof struct {
	Backup    BackupID      `json:"backup"`
	Manifest  Digest        `json:"manifest"` // SHA-256 of the manifest object that was proven
	OK        bool          `json:"ok"`
	Reason    string        `json:"reason"`   // what was damaged, or ""
	Verified  time.Time     `json:"verified"` // by the clock
	Duration  time.Duration `json:"duration_ns"`
	Blocks    uint64        `json:"blocks"`    // decoded and found good
	RawBytes  int64         `json:"raw_bytes"` // of these
	CreatedBy string        `json:"created_by"`
	Drill     *DrillProof   `json:"drill,omitempty"` // nil: it was read back, not restored
}

// DrillProof says that a backup was restored, rolled forward, checked and removed.
type DrillProof struct {
	LSN       block.LSN     `json:"lsn"`         // where that led to
	Committed time.Time     `json:"committed"`   // time of that commit; year 1 if it is not known
	Restored  time.Duration `json:"restored_ns"` // how long a restore takes, without check and comparison
}

const reasonBytesMax = 1024

// record publishes p under the next free number.
func (r *Repository) record(ctx context.Context, p *Proof, m *Manifest) error {
	p.Reason = strings.ToValidUTF8(p.Reason[:min(len(p.Reason), reasonBytesMax)], "")
	data, err := encodeEnvelope(magicProof, identity{r.id, m.Database}, p)
	if err != nil {
		return err
	}
	c, err := r.catalog(ctx)
	if err != nil {
		return err
	}
	for number := c.proofs[p.Backup] + 1; ; number++ {
		err := r.put(ctx, objectName(p.Backup, kindProof, number), data)
		if !errors.Is(err, ErrObjectExists) || number == 0 {
			return err
		}
	}
}

// newestProof returns the newest sound record about the manifest with this
// digest. Records that cannot be read prove nothing and are passed over.
func (r *Repository) newestProof(ctx context.Context, c *catalog, id BackupID, manifest Digest) *Proof {
	for number := c.proofs[id]; number > 0; number-- {
		name := objectName(id, kindProof, number)
		if _, found := c.sizes[name]; !found {
			return nil // numbers have no gaps
		}
		p, err := r.readProof(ctx, name)
		if err == nil && p.Backup == id && p.Manifest == manifest {
			return p
		}
	}
	return nil
}

func (r *Repository) readProof(ctx context.Context, name string) (*Proof, error) {
	var p Proof
	_, err := r.readOwn(ctx, name, smallBytesMax, magicProof, &p)
	return &p, err
}
