package block

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/internal/blindfuzz"
)

var (
	ourDatabase = DatabaseID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	ourSeed     = SeedOf(ourDatabase)
	ourTrailer  = Trailer{Type: TypeLeaf, ID: 0x1122334455667788, LSN: 0x0102030405060708}
)

// sealed is a sound block of size bytes: payload byte i is i modulo 251.
func sealed(size int, t Trailer, seed Seed) []byte {
	b := make([]byte, size)
	for i := range Payload(b) {
		b[i] = byte(i % 251)
	}
	Seal(b, t, seed)
	return b
}

// readGolden reads annotated hex: bytes, then what they are behind a '#'.
func readGolden(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for line := range strings.Lines(string(text)) {
		field, _, _ := strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.TrimSpace(field))
		if err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		all = append(all, b...)
	}
	return all
}

func TestGoldenTrailer(t *testing.T) {
	b := sealed(SizeMin, ourTrailer, ourSeed)
	got := b[len(Payload(b)):]
	if want := readGolden(t, "testdata/trailer_v1.txt"); !bytes.Equal(got, want) {
		t.Fatalf("got  %x\nwant %x", got, want)
	}
}

func TestVerifyReturnsWhatWasSealed(t *testing.T) {
	for size := SizeMin; size <= SizeMax; size *= 2 {
		for typ := range Type(20) {
			want := Trailer{Type: typ, ID: ID(size), LSN: ^LSN(0)}
			b := sealed(size, want, ourSeed)
			got, reason := Verify(b, want.ID, ourSeed)
			if reason != "" || got != want {
				t.Fatalf("size %d: got %+v, %q; want %+v", size, got, reason, want)
			}
		}
	}
}

func TestSealLeavesThePayloadAlone(t *testing.T) {
	b := sealed(SizeMin, ourTrailer, ourSeed)
	before := bytes.Clone(Payload(b))
	Seal(b, Trailer{Type: TypeBranch, ID: 1, LSN: 2}, ourSeed)
	if !bytes.Equal(Payload(b), before) {
		t.Fatal("the payload changed")
	}
	if cap(Payload(b)) != SizeMin-TrailerSize {
		t.Fatal("an append to the payload would write into the trailer")
	}
}

// TestD5_EveryFlippedBitIsFound covers payload, trailer and checksum.
func TestD5_EveryFlippedBitIsFound(t *testing.T) {
	b := sealed(SizeMin, ourTrailer, ourSeed)
	for bit := range len(b) * 8 {
		b[bit/8] ^= 1 << (bit % 8)
		if _, reason := Verify(b, ourTrailer.ID, ourSeed); reason == "" {
			t.Fatalf("a flip of bit %d of byte %d is not found", bit%8, bit/8)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
}

// TestD5_EveryBurstIsFound: CRC-32C finds every burst of up to 32 bits.
func TestD5_EveryBurstIsFound(t *testing.T) {
	b := sealed(SizeMin, ourTrailer, ourSeed)
	rnd := rand.New(rand.NewPCG(1, 2))
	for at := 0; at+4 <= len(b); at++ {
		good := bytes.Clone(b[at : at+4])
		for bytes.Equal(b[at:at+4], good) {
			for i := range 4 {
				b[at+i] = byte(rnd.Uint32())
			}
		}
		if _, reason := Verify(b, ourTrailer.ID, ourSeed); reason == "" {
			t.Fatalf("%x instead of %x at byte %d is not found", b[at:at+4], good, at)
		}
		copy(b[at:], good)
	}
}

// TestD5_TornBlockIsFound tears between two versions at every sector, both ways.
func TestD5_TornBlockIsFound(t *testing.T) {
	older := sealed(SizeMax, ourTrailer, ourSeed)
	newer := bytes.Clone(older)
	for i := 0; i < len(Payload(newer)); i += 512 {
		newer[i]++ // every sector differs
	}
	Seal(newer, Trailer{Type: TypeLeaf, ID: ourTrailer.ID, LSN: ourTrailer.LSN + 1}, ourSeed)
	for at := 512; at < SizeMax; at += 512 {
		for _, halves := range [][2][]byte{{older, newer}, {newer, older}} {
			torn := append(bytes.Clone(halves[0][:at]), halves[1][at:]...)
			if _, reason := Verify(torn, ourTrailer.ID, ourSeed); reason == "" {
				t.Fatalf("torn at %d and not found", at)
			}
		}
	}
}

// TestD5_MisdirectedBlockIsFound reads a sound block from a place not its own.
func TestD5_MisdirectedBlockIsFound(t *testing.T) {
	one := sealed(SizeMin, Trailer{Type: TypeLeaf, ID: 1, LSN: 9}, ourSeed)
	two := sealed(SizeMin, Trailer{Type: TypeLeaf, ID: 2, LSN: 9}, ourSeed)
	for id, b := range map[ID][]byte{2: one, 1: two} {
		if _, reason := Verify(b, id, ourSeed); !strings.HasPrefix(reason, "it is block ") {
			t.Errorf("read as block %v: %q", id, reason)
		}
	}
}

// TestB18_ForeignBlockIsFound: with seeds that differ the checksums differ, for
// equal bytes always; so only two ids of one seed (1 in 2^32) could be confused.
func TestB18_ForeignBlockIsFound(t *testing.T) {
	for range 1000 {
		foreign := SeedOf(NewDatabaseID())
		if foreign == ourSeed {
			continue
		}
		b := sealed(SizeMin, ourTrailer, foreign)
		if _, reason := Verify(b, ourTrailer.ID, ourSeed); reason == "" {
			t.Fatalf("a block of the database with seed %#x is not found", uint32(foreign))
		}
	}
}

func TestUnwrittenBlockIsNotSound(t *testing.T) {
	for size := SizeMin; size <= SizeMax; size *= 2 {
		if _, reason := Verify(make([]byte, size), 0, ourSeed); reason == "" {
			t.Fatalf("%d zeros pass for block 0", size)
		}
	}
}

// TestUnknownTrailerIsNotSound: a checksum that agrees does not make bytes that
// this version never writes sound.
func TestUnknownTrailerIsNotSound(t *testing.T) {
	for _, offset := range []int{5, 6, 7} {
		b := sealed(SizeMin, ourTrailer, ourSeed)
		at := len(b) - TrailerSize
		b[at+offset] += 1
		resum(b, ourSeed)
		if _, reason := Verify(b, ourTrailer.ID, ourSeed); reason != "unknown trailer version" {
			t.Errorf("byte %d of the trailer changed: %q", offset, reason)
		}
	}
}

// TestStaleBlockIsSound states a limit: who must tell a stale block from a new
// one compares the LSN.
func TestStaleBlockIsSound(t *testing.T) {
	old := ourTrailer
	old.LSN--
	got, reason := Verify(sealed(SizeMin, old, ourSeed), old.ID, ourSeed)
	if reason != "" || got.LSN != old.LSN {
		t.Fatalf("got %+v, %q", got, reason)
	}
}

func TestChecksumOfPartsIsThatOfTheWhole(t *testing.T) {
	b := []byte("a block in three parts")
	for i := range b {
		for j := i; j < len(b); j++ {
			if Checksum(ourSeed, b[:i], b[i:j], b[j:]) != Checksum(ourSeed, b) {
				t.Fatalf("cut at %d and %d", i, j)
			}
		}
	}
	// The check value of CRC-32C, from its catalogue.
	if got := Checksum(0, []byte("123456789")); got != 0xe3069283 {
		t.Fatalf("checksum is %#x: not CRC-32C", got)
	}
}

// resum gives b the checksum that its bytes ask for.
func resum(b []byte, seed Seed) {
	at := len(b) - TrailerSize
	sum := Checksum(seed, b[:at], b[at+4:])
	copy(b[at:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
}

// FuzzVerify: what is accepted is exactly what Seal would have written; and a
// right checksum alone is not enough to be accepted.
func FuzzVerify(f *testing.F) {
	f.Add(sealed(SizeMin, ourTrailer, ourSeed), uint64(ourTrailer.ID), false)
	f.Add(sealed(SizeMin, ourTrailer, SeedOf(DatabaseID{})), uint64(ourTrailer.ID), true)
	f.Add(make([]byte, TrailerSize), uint64(0), true)
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, b []byte, id uint64, right bool) {
		if len(b) < TrailerSize {
			return // no block
		}
		if right {
			resum(b, ourSeed)
		}
		got, reason := Verify(b, ID(id), ourSeed)
		if reason != "" {
			return
		}
		again := bytes.Clone(b)
		if Seal(again, got, ourSeed); !bytes.Equal(again, b) || got.ID != ID(id) {
			t.Fatalf("accepted %+v as block %#x, and would have written\n%x instead of\n%x", got, id, again, b)
		}
	}))
}
