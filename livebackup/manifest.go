package livebackup

import (
	"encoding/hex"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// The kinds of backups. The words are on disk.
const (
	KindFull        = "full"        // needs no other
	KindIncremental = "incremental" // what changed since its base
)

// Manifest says what a backup is, what it is made of and what it cost. It is
// in the repository, so its JSON form is described by format.go.
type Manifest struct {
	ID       BackupID         `json:"id"`
	Kind     string           `json:"kind"` // KindFull or KindIncremental
	Database block.DatabaseID `json:"-"`
	Timeline block.TimelineID `json:"-"`
	History  []block.Fork     `json:"-"` // the timelines that led to Timeline, the newest first (R18)

	// Of an incremental only: the backup that it adds to, the digest of that
	// one's manifest (objects never change: so one digest stands for a whole
	// chain), and the LSN that it is exact at. The range is (BaseLSN, EndLSN].
	Base         BackupID  `json:"base,omitzero"`
	BaseManifest Digest    `json:"base_manifest,omitzero"`
	BaseLSN      block.LSN `json:"base_lsn,omitempty"`

	// LSN is what the snapshot was opened at, EndLSN what the backup is exact
	// at. They are equal unless the backup had to fall forward.
	LSN       block.LSN `json:"lsn"`
	EndLSN    block.LSN `json:"end_lsn"`
	Committed time.Time `json:"committed"`            // monotonic commit time of EndLSN (R19)
	RecordSum uint32    `json:"record_sum,omitempty"` // of the log record that ends EndLSN (R18); 0: not known

	BlockSize   int      `json:"block_size"`              // bytes
	HighWater   block.ID `json:"high_water"`              // first block number never used
	Blocks      uint64   `json:"blocks"`                  // that are in this backup
	BlocksInUse uint64   `json:"blocks_in_use,omitempty"` // in the database at EndLSN; a full backup without parts has them all, and nothing here
	RawBytes    int64    `json:"raw_bytes"`               // Blocks times BlockSize
	StoredBytes int64    `json:"stored_bytes"`            // of all objects
	Groups      uint32   `json:"groups"`
	Objects     []Object `json:"objects"`
	Audit       Audit    `json:"audit,omitzero"` // of an incremental

	// Of a backup that fell forward (R12), and, but for the first, of one that went on with
	// a run that was cut off; see part.go.
	FallForward *FallForward `json:"fall_forward,omitempty"`
	Parts       []Part       `json:"parts,omitempty"` // the oldest first

	Rescue bool `json:"rescue,omitempty"` // of a database that had failed: LSN is its last durable commit

	Owner       string      `json:"owner"`
	Label       string      `json:"label"`
	Compression Compression `json:"compression"`
	CreatedBy   string      `json:"created_by"` // program and version

	Started    time.Time     `json:"started"`        // by the clock; for people, orders nothing
	Duration   time.Duration `json:"duration_ns"`    // from opening the snapshot to the manifest
	StartStall time.Duration `json:"start_stall_ns"` // what opening the snapshot cost writers
	Cost       Cost          `json:"cost"`
	Run        Run           `json:"run,omitzero"`
}

// Object is one object that a backup is made of.
type Object struct {
	Kind   string `json:"kind"` // "blocks", "index" or "log"
	Number uint32 `json:"number"`
	Size   int64  `json:"size"` // bytes
	SHA256 Digest `json:"sha256"`
}

// Audit says how an incremental was held against its base: of the blocks that
// did not change since, a random sample was read from the database and compared
// with the base, byte for byte. All were equal, or there would be no backup.
type Audit struct {
	Asked    int `json:"asked"`    // how many the database was asked for
	Compared int `json:"compared"` // how many it had
}

// inUse is how many blocks the state at EndLSN consists of.
func (m *Manifest) inUse() uint64 {
	if m.Kind == KindIncremental || len(m.Parts) > 0 {
		return m.BlocksInUse
	}
	return m.Blocks
}

// Cost is what a backup cost the database while it ran; see [mvcc.Cost].
type Cost struct {
	OriginalsMade    uint64 `json:"originals_made"`
	OriginalsShared  uint64 `json:"originals_shared"`
	OriginalsSpilled uint64 `json:"originals_spilled"`
	OriginalsRead    uint64 `json:"originals_read"`

	OriginalsOverflowed uint64 `json:"originals_overflowed,omitempty"`

	HeldBytes     int64 `json:"-"` // now, while the backup runs
	HeldPeakBytes int64 `json:"held_peak_bytes"`

	RAMPeakBytes      int64 `json:"ram_peak_bytes"`
	SpillPeakBytes    int64 `json:"spill_peak_bytes"`
	OverflowPeakBytes int64 `json:"overflow_peak_bytes"`

	BlocksChanged     uint64 `json:"blocks_changed,omitempty"`
	OriginalsPruned   uint64 `json:"originals_pruned,omitempty"`
	OriginalsPeak     uint64 `json:"originals_peak,omitempty"`
	OriginalsHeldPeak uint64 `json:"originals_held_peak,omitempty"`
	BlocksHot         uint64 `json:"blocks_hot,omitempty"`
}

// costOf copies field by field: what the store counts may change, a manifest's
// format may not.
func costOf(c mvcc.Cost) Cost {
	return Cost{
		OriginalsMade: c.OriginalsMade, OriginalsShared: c.OriginalsShared,
		OriginalsSpilled: c.OriginalsSpilled, OriginalsRead: c.OriginalsRead,
		HeldBytes: c.HeldBytes, HeldPeakBytes: c.HeldPeakBytes,
		RAMPeakBytes: c.RAMPeakBytes, SpillPeakBytes: c.SpillPeakBytes, OverflowPeakBytes: c.OverflowPeakBytes,
		OriginalsOverflowed: c.OriginalsOverflowed, BlocksChanged: c.BlocksChanged, OriginalsPruned: c.OriginalsPruned,
		OriginalsPeak: c.OriginalsPeak, OriginalsHeldPeak: c.OriginalsHeldPeak, BlocksHot: c.BlocksHot,
	}
}

// Digest is a SHA-256.
type Digest [32]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText is String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what String wrote.
func (d *Digest) UnmarshalText(text []byte) error { return decodeHex(d[:], text) }

// hexID is an id of 16 bytes in JSON.
type hexID [16]byte

func (h hexID) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

func (h *hexID) UnmarshalText(text []byte) error { return decodeHex(h[:], text) }

func decodeHex(dst, text []byte) error {
	if hex.DecodedLen(len(text)) != len(dst) {
		return fmt.Errorf("%d digits where %d were due", len(text), hex.EncodedLen(len(dst)))
	}
	_, err := hex.Decode(dst, text)
	return err
}

// manifestWire is a Manifest in JSON: the ids of package block have no text
// form of their own there.
type manifestWire struct {
	Database hexID      `json:"database"`
	Timeline hexID      `json:"timeline"`
	History  []forkWire `json:"history,omitempty"`
	*Manifest
}

// forkWire is a block.Fork in JSON.
type forkWire struct {
	Timeline hexID     `json:"timeline"`
	LSN      block.LSN `json:"lsn"`
}

func wireForks(forks []block.Fork) (wire []forkWire) {
	for _, f := range forks {
		wire = append(wire, forkWire{hexID(f.Timeline), f.LSN})
	}
	return wire
}

func forksOf(wire []forkWire) (forks []block.Fork) {
	for _, f := range wire {
		forks = append(forks, block.Fork{Timeline: block.TimelineID(f.Timeline), LSN: f.LSN})
	}
	return forks
}

func (m *Manifest) encode(repo RepositoryID) ([]byte, error) {
	wire := manifestWire{Database: hexID(m.Database), Timeline: hexID(m.Timeline), History: wireForks(m.History), Manifest: m}
	return encodeEnvelope(magicManifest, identity{repo, m.Database}, wire)
}

// decodeManifest reads and proves the manifest of backup id.
func decodeManifest(data []byte, id BackupID, repo RepositoryID) (Manifest, error) {
	name := objectName(id, kindManifest, 0)
	var m Manifest
	wire := manifestWire{Manifest: &m}
	who, err := decodeEnvelope(name, data, magicManifest, &wire)
	if err != nil {
		return Manifest{}, err
	}
	m.Database, m.Timeline, m.History = block.DatabaseID(wire.Database), block.TimelineID(wire.Timeline), forksOf(wire.History)
	reason := m.invalid()
	switch {
	case who.repository != repo:
		reason = "it belongs to repository " + who.repository.String()
	case who.database != m.Database:
		reason = "header and payload name different databases"
	case m.ID != id:
		reason = "it is the manifest of " + m.ID.String()
	}
	if reason != "" {
		return Manifest{}, damaged(name, -1, reason, nil)
	}
	return m, nil
}

// historyMax is how many forks a manifest may list.
const historyMax = 256

// invalid says why m cannot be a manifest, or "".
func (m *Manifest) invalid() string {
	switch {
	case !block.ValidSize(m.BlockSize):
		return fmt.Sprintf("block size %d", m.BlockSize)
	case m.HighWater > block.ID(math.MaxInt64/int64(m.BlockSize)):
		return "high-water mark is out of range"
	case m.Blocks > uint64(m.HighWater) && len(m.Parts) == 0 || m.Blocks > math.MaxInt64/uint64(m.BlockSize):
		return "more blocks than block numbers"
	case m.BlocksInUse > uint64(m.HighWater):
		return "more blocks in use than block numbers"
	case m.RawBytes != int64(m.Blocks)*int64(m.BlockSize):
		return "raw bytes and blocks disagree"
	case uint64(m.Groups) > m.Blocks || (m.Groups == 0) != (m.Blocks == 0):
		return "groups and blocks disagree"
	case m.EndLSN != m.LSN && m.FallForward == nil || m.EndLSN < m.LSN:
		return "it does not end where it starts"
	case len(m.History) > historyMax:
		return fmt.Sprintf("history of %d timelines", len(m.History))
	case !m.Compression.valid():
		return fmt.Sprintf("compression %q is unknown", m.Compression)
	case m.Duration < 0 || m.StartStall < 0:
		return "negative duration"
	}
	for _, reason := range []string{m.invalidKind(), m.invalidObjects(), m.invalidParts()} {
		if reason != "" {
			return reason
		}
	}
	return ""
}

// invalidKind wants of each kind what it has, and nothing else. A base was there
// before: in the order of sequences there is no cycle.
func (m *Manifest) invalidKind() string {
	switch {
	case m.Kind == KindFull:
		if m.Base != (BackupID{}) || m.BaseManifest != (Digest{}) || m.BaseLSN != 0 || m.BlocksInUse != 0 && len(m.Parts) == 0 || m.Audit != (Audit{}) {
			return "full backup with a base"
		}
	case m.Kind != KindIncremental:
		return fmt.Sprintf("kind %q is unknown", m.Kind)
	case m.Base.Sequence == 0 || m.Base.Sequence >= m.ID.Sequence:
		return fmt.Sprintf("base %v is none that was there before", m.Base)
	case m.BaseLSN == 0 || m.BaseLSN > m.LSN:
		return fmt.Sprintf("increment from LSN %v to %v", m.BaseLSN, m.LSN)
	case m.BlocksInUse < m.Blocks && len(m.Parts) == 0:
		return "blocks and blocks in use disagree"
	case m.Audit.Compared < 0 || m.Audit.Compared > m.Audit.Asked:
		return "impossible audit"
	}
	return ""
}

// invalidObjects wants blocks 1..n, then index 1..m, then, of a backup that fell
// forward, log 1..l.
func (m *Manifest) invalidObjects() string {
	var stored int64
	next := map[string]uint32{string(kindBlocks): 1, string(kindIndex): 1}
	if m.FallForward != nil {
		next[string(kindLog)] = 1
	}
	before := ""
	for _, o := range m.Objects {
		number, known := next[o.Kind]
		switch {
		case !known:
			return fmt.Sprintf("object kind %q is unknown", o.Kind)
		case o.Kind < before: // the words happen to be in the order of the objects
			return fmt.Sprintf("%s object behind an %s object", o.Kind, before)
		case o.Number != number:
			return fmt.Sprintf("%s object %d where %d was due", o.Kind, o.Number, number)
		case o.Size <= objectHeaderSize || o.Size > objectBytesMax:
			return fmt.Sprintf("%s object %d has an impossible size", o.Kind, o.Number)
		}
		next[o.Kind]++
		before = o.Kind
		stored += o.Size // no overflow: the manifest's size bounds the sum
	}
	if stored != m.StoredBytes {
		return "stored bytes and objects disagree"
	}
	return ""
}

// textBytesMax is how long an owner or a label may be.
const textBytesMax = 256

// checkText refuses an owner or a label that is no text.
func checkText(what, s string) error {
	if len(s) > textBytesMax || !utf8.ValidString(s) {
		return fmt.Errorf("%s must be text of at most %d bytes", what, textBytesMax)
	}
	return nil
}
