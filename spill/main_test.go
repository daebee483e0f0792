package spill

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
)

var (
	errIO      error = syscall.EIO
	errNoSpace error = syscall.ENOSPC
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirVar); dir != "" {
		childMain(dir)
	}
	goleak.VerifyTestMain(m)
}

func newRand(t testing.TB) *rand.Rand { return rand.New(rand.NewPCG(chance.Seed(t), 0)) }

// version is one block version whose content follows from its fields.
type version struct {
	id   block.ID
	lsn  block.LSN
	salt uint64
}

func (v version) item(size int) Item {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(uint64(v.id)<<32|uint64(v.lsn), v.salt))
	const unit = 128 // random bytes, then copies: generating them all is the tests' main cost
	for i := 0; i < unit; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	for n := unit; n < size; n *= 2 {
		copy(b[n:], b[:n])
	}
	b[size-block.TrailerSize+typeOffset] = byte(v.id % 9)
	return Item{ID: v.id, LSN: v.lsn, Data: b}
}

// sealed is what must come back.
func (v version) sealed(size int, seed block.Seed) []byte {
	b := v.item(size).Data
	block.Seal(b, block.Trailer{Type: block.Type(v.id % 9), ID: v.id, LSN: v.lsn}, seed)
	return b
}

func items(vs []version, size int) []Item {
	out := make([]Item, len(vs))
	for i, v := range vs {
		out[i] = v.item(size)
	}
	return out
}

func versions(n int) []version {
	out := make([]version, n)
	for i := range out {
		out[i] = version{block.ID(i), block.LSN(i + 1), 0}
	}
	return out
}

// mustWrite stores n versions.
func mustWrite(t testing.TB, s *Store, vs []version) []Slot {
	t.Helper()
	slots := make([]Slot, len(vs))
	if n, err := s.Write(items(vs, s.blockSize), slots); err != nil || n != len(vs) {
		t.Fatalf("wrote %d of %d: %v", n, len(vs), err)
	}
	return slots
}

// mustRead proves that a slot brings back exactly its version.
func mustRead(t testing.TB, s *Store, slot Slot, v version) {
	t.Helper()
	dst := make([]byte, s.blockSize)
	if err := s.Read(slot, v.id, v.lsn, dst); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(dst, v.sealed(s.blockSize, s.codec.seed)) {
		t.Fatalf("slot %v: other bytes came back", slot)
	}
}

func mustBeCorrupt(t testing.TB, s *Store, slot Slot, v version) {
	t.Helper()
	var corrupt *block.CorruptError
	err := s.Read(slot, v.id, v.lsn, make([]byte, s.blockSize))
	if !errors.As(err, &corrupt) || corrupt.Block != v.id {
		t.Fatalf("slot %v, want a CorruptError for block %v: %v", slot, v.id, err)
	}
}

// mustBeEmpty frees nothing and proves that nothing is held (S6).
func mustBeEmpty(t testing.TB, s *Store) {
	t.Helper()
	s.trim()
	st := s.Stats()
	if st.UsedBytes != 0 {
		t.Fatalf("%d bytes used by nothing", st.UsedBytes)
	}
	for _, d := range st.Dirs {
		if d.UsedBytes != 0 || d.FileBytes != 0 && d.State != StateFailed {
			t.Fatalf("%s holds space for nothing: %+v", d.Path, d)
		}
	}
}
