package spill

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/blindfuzz"
)

// fixedCodec encrypts with a key of 32 bytes 0x42.
func fixedCodec(t testing.TB, encrypt bool) codec {
	t.Helper()
	c := codec{seed: 7}
	if !encrypt {
		return c
	}
	b, err := aes.NewCipher(bytes.Repeat([]byte{0x42}, 32))
	if err != nil {
		t.Fatal(err)
	}
	if c.aead, err = cipher.NewGCM(b); err != nil {
		t.Fatal(err)
	}
	return c
}

func bothCodecs(t *testing.T, test func(*testing.T, codec)) {
	t.Run("plain", func(t *testing.T) { test(t, fixedCodec(t, false)) })
	t.Run("encrypted", func(t *testing.T) { test(t, fixedCodec(t, true)) })
}

const use = 0x0102030405

func encoded(c codec, v version, slot Slot) []byte {
	b := v.item(4096).Data
	c.encode(b, v.id, v.lsn, slot, use)
	return b
}

func TestSlotBytesAreThoseOfTheGoldenFile(t *testing.T) {
	golden, err := os.ReadFile("testdata/slots.txt")
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for line := range strings.Lines(string(golden)) {
		field, _, _ := strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.TrimSpace(field))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want = append(want, b...)
	}
	slot := makeSlot(1, 5, use)
	var got []byte
	for _, encrypt := range []bool{false, true} {
		c := fixedCodec(t, encrypt)
		b := make([]byte, 4096)
		b[4096-block.TrailerSize+typeOffset] = byte(block.TypeLeaf)
		c.encode(b, 0x11, 0x22, slot, use)
		got = append(got, b[:8]...)
		got = append(got, b[4096-block.TrailerSize:]...)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got\n%x\nwant\n%x", got, want)
	}
}

func TestSlotComesBackSealed(t *testing.T) {
	bothCodecs(t, func(t *testing.T, c codec) {
		v := version{id: 12, lsn: 34}
		slot := makeSlot(2, 99, use)
		b := encoded(c, v, slot)
		if reason := c.decode(b, v.id, v.lsn, slot); reason != "" {
			t.Fatal(reason)
		}
		if !bytes.Equal(b, v.sealed(4096, c.seed)) {
			t.Fatal("other bytes came back")
		}
	})
}

// TestT07_EveryFlippedByteIsFound covers payload, type, checksum or tag, and use.
func TestT07_EveryFlippedByteIsFound(t *testing.T) {
	bothCodecs(t, func(t *testing.T, c codec) {
		v := version{id: 12, lsn: 34}
		slot := makeSlot(0, 3, use)
		good := encoded(c, v, slot)
		for i := range good {
			b := bytes.Clone(good)
			b[i] ^= 1 << (i % 8)
			if c.decode(b, v.id, v.lsn, slot) == "" {
				t.Fatalf("a flip at offset %d is not found", i)
			}
		}
	})
}

// TestT07_SlotIsBoundToVersionPlaceAndUse asks for what is nearly there.
func TestT07_SlotIsBoundToVersionPlaceAndUse(t *testing.T) {
	bothCodecs(t, func(t *testing.T, c codec) {
		v := version{id: 12, lsn: 34}
		slot := makeSlot(0, 3, use)
		for name, want := range map[string]struct {
			id   block.ID
			lsn  block.LSN
			slot Slot
		}{
			"block": {13, 34, slot},
			"lsn":   {12, 33, slot},
			"place": {12, 34, makeSlot(0, 4, use)},
			"dir":   {12, 34, makeSlot(1, 3, use)},
			"use":   {12, 34, makeSlot(0, 3, use+1)},
		} {
			if c.decode(encoded(c, v, slot), want.id, want.lsn, want.slot) == "" {
				t.Errorf("another %s is not found", name)
			}
		}
	})
}

func TestEveryUseOfAPlaceHasItsOwnSeed(t *testing.T) {
	c := fixedCodec(t, false)
	seen := make(map[block.Seed]bool, 1<<useBits)
	for u := range uint64(1 << useBits) {
		seed := c.slotSeed(makeSlot(3, 1234567, u))
		if seen[seed] {
			t.Fatalf("use %d has the seed of another", u)
		}
		seen[seed] = true
	}
}

func FuzzDecode(f *testing.F) {
	plain, sealed := fixedCodec(f, false), fixedCodec(f, true)
	v := version{id: 1, lsn: 2}
	slot := makeSlot(0, 0, use)
	f.Add(encoded(plain, v, slot), true)
	f.Add(encoded(sealed, v, slot), false)
	f.Add(make([]byte, 4096), false)
	room, got := make([]byte, 4096), make([]byte, 4096)
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, in []byte, reseal bool) {
		b := room // a slot has one length, whatever the input has
		clear(b[copy(b, in):])
		if at := len(b) - block.TrailerSize; reseal { // what is behind the checksum is reached
			binary.LittleEndian.PutUint32(b[at:], block.Checksum(plain.slotSeed(slot), b[:at], b[at+4:]))
		}
		for _, c := range []codec{plain, sealed} {
			copy(got, b)
			if c.decode(got, v.id, v.lsn, slot) != "" {
				continue
			}
			if c.encode(got, v.id, v.lsn, slot, use); !bytes.Equal(got, b) {
				t.Fatal("what was accepted is not what would be written")
			}
		}
	}))
}
