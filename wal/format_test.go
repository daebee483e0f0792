package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/blindfuzz"
	"github.com/spillwaydb/spillway/internal/simfs"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// dump prints bytes as annotated hex: one line per field.
func dump(b []byte, fields ...any) string {
	var s strings.Builder
	off := 0
	for i := 0; i < len(fields); i += 2 {
		n := fields[i].(int)
		fmt.Fprintf(&s, "%4d  %-34x %s\n", off, b[off:off+n], fields[i+1])
		off += n
	}
	if off != len(b) {
		fmt.Fprintf(&s, "%d bytes without a name\n", len(b)-off)
	}
	return s.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what is written:\n%s", path, got)
	}
}

func goldenHeader() header {
	return header{
		kind: kindSegment, open: true, size: 16 << 20, database: testDatabase, timeline: testTimeline,
		number: 7, salt: salt{0xa0, 0xa1, 0xa2, 0xa3, 0xff}, prevLSN: 105, synced: 104, prevSum: 0xdeadbeef,
	}
}

func TestGoldenHeader(t *testing.T) {
	b := make([]byte, headerBytes)
	h := goldenHeader()
	h.encode(b)
	golden(t, "header_v1.txt", dump(b,
		8, "magic", 4, "version", 4, "checksum", 4, "kind: segment", 4, "flags: open", 8, "size: 16 MiB",
		16, "database", 16, "timeline", 8, "number: 7", 16, "salt", 8, "prev LSN: 105", 8, "synced: 104",
		4, "prev sum", 20, "zero"))
	back, err := decodeHeader(b)
	if err != nil || back != h {
		t.Errorf("read back %+v, %v", back, err)
	}
}

func TestGoldenRecord(t *testing.T) {
	h := goldenHeader()
	body := []byte("eleven byte")
	b := make([]byte, recordBytes(len(body)))
	copy(b[recordHeaderBytes:], body)
	r := record{flags: flagLast, lsn: 106, synced: 104, prevSum: 0xdeadbeef}
	h.seal().encodeRecord(b, recordsOffset, r, len(body))
	golden(t, "record_v1.txt", dump(b,
		4, "checksum", 4, "tag: a0a1a2a3 ^ 8192/8", 4, "length: 11", 1, "flags: last", 3, "zero", 8, "LSN: 106",
		8, "synced: 104", 4, "prev sum", 4, "zero", 11, "body", 5, "padding"))
	back, ok := h.seal().decodeRecord(b, recordsOffset)
	if !ok || back.lsn != 106 || back.synced != 104 || !bytes.Equal(back.body, body) || !back.is(flagLast) {
		t.Errorf("read back %+v, %v", back, ok)
	}
}

// A record is sound nowhere but where it was written: not at another offset, in
// another segment, salt, database or timeline; and not with any bit changed.
func TestRecordIsBoundToItsPlace(t *testing.T) {
	h := goldenHeader()
	b := make([]byte, recordBytes(20))
	h.seal().encodeRecord(b, recordsOffset, record{lsn: 1}, 20)
	if _, ok := h.seal().decodeRecord(b, recordsOffset); !ok {
		t.Fatal("not sound where it belongs")
	}
	for name, change := range map[string]func(h *header){
		"number":   func(h *header) { h.number++ },
		"salt":     func(h *header) { h.salt[15]++ },
		"tag":      func(h *header) { h.salt[0]++ },
		"database": func(h *header) { h.database[9]++ },
		"timeline": func(h *header) { h.timeline[9]++ },
	} {
		other := h
		change(&other)
		if _, ok := other.seal().decodeRecord(b, recordsOffset); ok {
			t.Errorf("sound under another %s", name)
		}
	}
	if _, ok := h.seal().decodeRecord(b, recordsOffset+8); ok {
		t.Error("sound at another offset")
	}
	for bit := range len(b) * 8 {
		c := bytes.Clone(b)
		c[bit/8] ^= 1 << (bit % 8)
		if _, ok := h.seal().decodeRecord(c, recordsOffset); ok {
			t.Errorf("sound with bit %d changed", bit)
		}
	}
}

// A good checksum is not enough: fields without a meaning, bytes that are to be
// zero and lengths that are never written make a record unsound.
func TestRecordFieldsAreChecked(t *testing.T) {
	h := goldenHeader()
	s := h.seal()
	for name, c := range map[string]struct {
		body  int
		flags recordFlags
		off   int // of a byte that is set, 0: none
	}{
		"last and part":      {20, flagLast | flagPart, 0},
		"last and mark":      {0, flagLast | flagMark, 0},
		"end without mark":   {0, flagEnd, 0},
		"mark with a body":   {20, flagMark, 0},
		"flag without name":  {20, 1 << 4, 0},
		"zeros behind flags": {20, flagLast, 14},
		"zeros behind sum":   {20, flagLast, 38},
		"padding":            {20, flagLast, recordHeaderBytes + 20},
		"length":             {RecordBytesMax + 1, flagLast, 0},
	} {
		b := make([]byte, recordBytes(c.body))
		s.encodeRecord(b, recordsOffset, record{flags: c.flags, lsn: 1}, c.body)
		if c.off != 0 {
			b[c.off] = 1
			binary.LittleEndian.PutUint32(b, block.Checksum(s.seed, b[4:]))
		}
		if _, ok := s.decodeRecord(b, recordsOffset); ok {
			t.Errorf("sound: %s", name)
		}
	}
}

// Every bit of a header is checked.
func TestHeaderBits(t *testing.T) {
	b := make([]byte, headerBytes)
	h := goldenHeader()
	h.encode(b)
	for bit := range len(b) * 8 {
		c := bytes.Clone(b)
		c[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeHeader(c); err == nil {
			t.Errorf("sound with bit %d changed", bit)
		}
	}
}

func TestSlotNames(t *testing.T) {
	for slot, name := range map[int]string{1: "0001.wal", 9999: "9999.wal", 12345: "12345.wal"} {
		if got, ok := parseSlot(name); slotName(slot) != name || got != slot || !ok {
			t.Errorf("slot %d, %s: %s, %d", slot, name, slotName(slot), got)
		}
	}
	for _, name := range []string{"", "0000.wal", "1.wal", "00001.wal", "-001.wal", "+001.wal", "0001.wal.new", "0001.waL"} {
		if slot, ok := parseSlot(name); ok {
			t.Errorf("%q is slot %d", name, slot)
		}
	}
}

func FuzzDecodeHeader(f *testing.F) {
	b := make([]byte, headerBytes)
	h := goldenHeader()
	h.encode(b)
	f.Add(b, false)
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, in []byte, reseal bool) {
		b := make([]byte, headerBytes)
		copy(b, in)
		if reseal { // what is behind the checksum is reached
			binary.LittleEndian.PutUint32(b[12:], headerChecksum(b))
		}
		h, err := decodeHeader(b)
		if err != nil {
			return
		}
		back := make([]byte, headerBytes)
		h.encode(back)
		if !bytes.Equal(b, back) {
			t.Errorf("%x is written as %x", b, back)
		}
	}))
}

func FuzzDecodeRecord(f *testing.F) {
	h := goldenHeader()
	s := h.seal()
	b := make([]byte, recordBytes(20))
	s.encodeRecord(b, recordsOffset, record{lsn: 1}, 20)
	f.Add(b)
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, in []byte) {
		// Give it the right tag and checksum, so that the rest is reached.
		if len(in) < recordHeaderBytes {
			return
		}
		b := bytes.Clone(in)
		put := func(off int, v uint32) {
			b[off], b[off+1], b[off+2], b[off+3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
		}
		put(4, s.tagAt(recordsOffset))
		n, ok := s.peekRecord(b, recordsOffset)
		if !ok || n > len(b) {
			if _, ok := s.decodeRecord(b, recordsOffset); ok {
				t.Error("sound, though it is longer than what is there")
			}
			return
		}
		put(0, block.Checksum(s.seed, b[4:n]))
		r, ok := s.decodeRecord(b, recordsOffset)
		if !ok {
			return
		}
		back := make([]byte, n)
		copy(back[recordHeaderBytes:], r.body)
		s.encodeRecord(back, recordsOffset, r, len(r.body))
		if !bytes.Equal(b[:n], back) {
			t.Errorf("%x is written as %x", b[:n], back)
		}
	}))
}

// FuzzOpen changes bytes anywhere in the files of a log: it opens with a prefix
// or refuses with a place, and never panics.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{0, 32, 40, 1}, uint8(0))
	f.Add([]byte{0, 0, 0, 1, 0, 16, 0, 1}, uint8(1))
	f.Fuzz(func(t *testing.T, patches []byte, shape uint8) {
		r := newRig(t, newTestFS(t)).create()
		for i := range 3 + int(shape%5) {
			r.commit(1+i*int(shape)*50, 10)
		}
		if shape%2 == 0 {
			r.close()
		}
		n := r.must().crash(simfs.DropAll)
		names := n.fs.Names()
		for ; len(patches) >= 4; patches = patches[4:] {
			off := int64(patches[0]) | int64(patches[1])<<8
			n.fs.FlipBits(names[int(patches[2])%len(names)], off, patches[3])
		}
		l, err := Open(n.o, Start{Redo: 1})
		if err != nil {
			if !errors.Is(err, block.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		n.l, n.acked = l, 0
		n.check()
	})
}
