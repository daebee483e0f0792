package mvcc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/blindfuzz"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// golden compares bytes with an annotated file: lines of "offset: hex ; what it
// is". The bytes between the lines are zeros.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	want := goldenBytes(t, name, len(got))
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#02x, want %#02x\n%s", name, i, got[i], want[i], hex.Dump(got[i&^15:min(len(got), i&^15+64)]))
		}
	}
}

// goldenBytes are what the file describes.
func goldenBytes(t *testing.T, name string, size int) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	ok(t, err)
	want := make([]byte, size)
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, ";")
		offset, digits, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		var at int
		for _, c := range strings.TrimSpace(offset) {
			at = at*10 + int(c-'0')
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		ok(t, err)
		if at+len(b) > len(want) {
			t.Fatalf("%s: %d bytes at %d in %d", name, len(b), at, len(want))
		}
		copy(want[at:], b)
	}
	return want
}

func numbered(first byte) (id [16]byte) {
	for i := range id {
		id[i] = first + byte(i)
	}
	return id
}

func goldenSuperblock() superblock {
	return superblock{
		blockSize: 4096, database: numbered(0x10), timeline: numbered(0x30),
		forks: makeForks(block.Fork{Timeline: numbered(0x50), LSN: 0x0102}), sequence: 0x0304, redo: 0x0506, durable: 0x0708,
		durableTime: time.Unix(0, 0x0a0b0c), mapFloor: 0x0d0e, created: time.Unix(0, 0x0f1011),
	}
}

// The first superblocks had zeros from byte 120 on.
func TestGolden_SuperblockWithoutModes(t *testing.T) {
	back, err := decodeSuperblock(goldenBytes(t, "superblock.hex", superblockSize))
	ok(t, err)
	if back != goldenSuperblock() {
		t.Fatalf("%+v", back)
	}
}

func TestGolden_Superblock(t *testing.T) {
	sb := goldenSuperblock()
	sb.standby, sb.newLog, sb.amends, sb.keep = true, true, 0x11, 0x1213
	for i := 1; i < forksMax; i++ {
		sb.forks[i] = block.Fork{Timeline: numbered(byte(0x60 + i)), LSN: block.LSN(0x0101 - i)}
	}
	for i := range sb.heads {
		n := byte(i)
		sb.heads[i] = repositoryHead{numbered(0x80 + n), Head{block.LSN(0x1400 + i), 0x15161718 + uint32(i)}, Head{block.LSN(0x1300 + i), 0x191a1b1c + uint32(i)}}
	}
	b := sb.encode()
	golden(t, "superblock-modes.hex", b)
	back, err := decodeSuperblock(b)
	ok(t, err)
	if back != sb {
		t.Fatalf("%+v", back)
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := decodeSuperblock(b); err == nil {
			t.Fatalf("bit %d is not missed", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
}

// A version that is not known is told before the checksum, which may have moved.
func TestSuperblock_VersionComesFirst(t *testing.T) {
	sb := goldenSuperblock()
	b := sb.encode()
	b[8] = 2
	var v *VersionError
	if _, err := decodeSuperblock(b); !errors.As(err, &v) || v.Found != 2 || !errors.Is(err, ErrVersion) {
		t.Fatal(err)
	}
}

func TestGolden_Doublewrite(t *testing.T) {
	b := make([]byte, doublewriteHeader)
	places := []place{{id: 0x21, lsn: 0x22}, {id: 0x2324, lsn: 0x2526}}
	encodeDoublewrite(b, numbered(0x10), 0x0304, places)
	golden(t, "doublewrite.hex", b)
	sequence, back := decodeDoublewrite(b, numbered(0x10))
	if sequence != 0x0304 || !reflect.DeepEqual(back, places) {
		t.Fatal(sequence, back)
	}
	if _, back := decodeDoublewrite(b, numbered(0x11)); back != nil {
		t.Fatal("another database's second copies are taken for ours (B18)")
	}
}

func TestGolden_Meta(t *testing.T) {
	b := make([]byte, 80)
	m := meta{highWater: 0x0102, inUse: 0x03}
	for i := range m.root {
		m.root[i] = byte(i + 1)
	}
	m.encode(b)
	golden(t, "meta.hex", b)
	if decodeMeta(b) != m {
		t.Fatal(decodeMeta(b))
	}
}

func TestGolden_Bitmap(t *testing.T) {
	g := newGeometry(4096)
	b := make([]byte, 4096)
	initBitmap(block.Payload(b))
	for _, bit := range []int{13, 15, 16, 32255} {
		b[bit/8] |= 1 << (bit % 8)
	}
	golden(t, "bitmap.hex", b)
	var got []block.ID
	g.eachInUse(1, block.Payload(b), func(id block.ID) { got = append(got, id) })
	if want := []block.ID{32256 + 13, 32256 + 15, 32256 + 16, 2*32256 - 1}; !reflect.DeepEqual(got, want) {
		t.Fatalf("%d, want %d", got, want)
	}
}

func TestGolden_MapBlock(t *testing.T) {
	g := newGeometry(4096)
	b := make([]byte, 4096)
	m := g.extentsOf(32256 + 8064)
	if m != g.extentsOf(32256+12095) || m.id != 32256+6 {
		t.Fatalf("%+v", m)
	}
	for id, lsn := range map[block.ID]block.LSN{8071: 0x01020304, 8080: 5, 12088: 6} {
		putMark(b, m.at(32256+id), lsn)
	}
	golden(t, "map.hex", b)
	second := g.regionsOf(1)
	if second.id != 32256+12 || second.at(32256) != 0 || second.at(32256+64) != 8 || second.at(2*32256-1) != 4024 {
		t.Fatalf("%+v", second)
	}
}

func TestGolden_Redo(t *testing.T) {
	var w redoWriter
	zeros := make([]byte, 4096)
	payload := bytes.Clone(zeros[:100])
	copy(payload[10:], "abc")
	changed := bytes.Clone(payload)
	changed[50] = 0xff
	changed[98] = 0xfe
	w.commit(time.Unix(0, 0x0102), time.Unix(0, 0x0304))
	w.image(300, block.TypeLeaf, payload, zeros)
	w.diff(13, block.TypeBranch, 5, payload, changed, zeros)
	w.free([]block.ID{14, 400})
	w.buf = append(w.buf, entryMark, 2, 'h', 'i', entryVoid)
	golden(t, "redo.hex", w.buf)
	rd := redoReader{w.buf}
	kinds := []byte{}
	for {
		e, more, err := rd.next()
		ok(t, err)
		if !more {
			break
		}
		kinds = append(kinds, e.kind)
		if e.kind == entryImage || e.kind == entryDiff {
			p := bytes.Clone(zeros[:100])
			want := payload
			if e.kind == entryDiff {
				copy(p, payload)
				want = changed
			}
			ok(t, e.apply(p, payload))
			if !bytes.Equal(p, want) {
				t.Fatalf("kind %d gives %x", e.kind, p)
			}
		}
	}
	if !bytes.Equal(kinds, []byte{1, 2, 3, 4, 5, 6}) {
		t.Fatalf("kinds %v", kinds)
	}
}

// resum puts the checksum of all that is before it at the end of b.
func resum(b []byte, seed block.Seed) {
	at := len(b) - 4
	binary.LittleEndian.PutUint32(b[at:], block.Checksum(seed, b[:at]))
}

func FuzzDecodeSuperblock(f *testing.F) {
	sb := goldenSuperblock()
	f.Add(sb.encode(), true)
	f.Add([]byte("SPILLWAY"), false)
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, b []byte, reseal bool) {
		if reseal && len(b) >= superblockSize { // what is behind the checksum is reached
			resum(b[:superblockSize], block.SeedOf(block.DatabaseID(b[16:32])))
		}
		if sb, err := decodeSuperblock(b); err == nil && !block.ValidSize(sb.blockSize) {
			t.Fatal("accepted")
		}
	}))
}

func FuzzDecodeDoublewrite(f *testing.F) {
	b := make([]byte, doublewriteHeader)
	encodeDoublewrite(b, numbered(1), 3, []place{{1, 2}})
	f.Add(b, true)
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, b []byte, reseal bool) {
		if reseal && len(b) >= doublewriteHeader { // what is behind the checksum is reached
			id := numbered(1)
			copy(b[16:32], id[:])
			resum(b[:doublewriteHeader], block.SeedOf(id))
		}
		if _, places := decodeDoublewrite(b, numbered(1)); len(places) > doublewriteMax {
			t.Fatal(len(places))
		}
	}))
}

// FuzzRedo decodes hostile redo: bounded work, no panic, and what is applied
// stays within the payload.
func FuzzRedo(f *testing.F) {
	var w redoWriter
	zeros := make([]byte, 4096)
	w.commit(time.Unix(0, 1), time.Unix(0, 2))
	w.image(300, block.TypeLeaf, []byte("payload"), zeros)
	w.diff(13, block.TypeBranch, 5, zeros[:50], bytes.Repeat([]byte{1}, 50), zeros)
	w.free([]block.ID{14, 400})
	f.Add(bytes.Clone(w.buf))
	w.buf = w.buf[:0]
	old := countedBytes(100)
	w.diff(13, block.TypeLeaf, 5, old, slices.Concat(old[:12], []byte("inserted"), old[12:92]), zeros)
	f.Add(w.buf)
	f.Add([]byte{entryMove, 1, 1, 1, 0, 33, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0})
	f.Add([]byte{entryImage, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 9, 0, 0})
	p, old := make([]byte, 4096+8), make([]byte, 4096)
	copy(p[4096:], "sentinel")
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, b []byte) {
		rd := redoReader{b}
		clear(p[:4096])
		for range len(b) + 1 {
			e, more, err := rd.next()
			if err != nil || !more {
				break
			}
			if len(e.ids) > len(b) {
				t.Fatalf("%d ids from %d bytes", len(e.ids), len(b))
			}
			_ = e.apply(p[:4096:4096], old)
		}
		for _, moves := range []bool{false, true} {
			e := redoEntry{runs: b, moves: moves}
			_ = e.apply(p[:4096:4096], old)
		}
		if string(p[4096:]) != "sentinel" {
			t.Fatal("written behind the payload")
		}
	}))
}

// FuzzDiff: what a diff or an image leads to is what it was made from.
func FuzzDiff(f *testing.F) {
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), []byte("aaaabaaaaaaaaaaaaaaaaaaaaaaaaaac"))
	many := countedBytes(512)
	f.Add(many, slices.Concat(many[:44], []byte("inserted"), many[44:]))
	f.Add(many, slices.Concat(many[:44], many[52:200], []byte("inserted twice, ok"), many[200:]))
	f.Fuzz(blindfuzz.Each(f, proveDiff))
}

// countedBytes are n bytes of which no eight are like eight others.
func countedBytes(n int) []byte {
	b := make([]byte, 0, n+4)
	for i := uint32(0); len(b) < n; i++ {
		b = binary.BigEndian.AppendUint32(b, i*0x9e3779b1)
	}
	return b[:n]
}

var zeros8K = make([]byte, 8192)

func proveDiff(t *testing.T, old, now []byte) {
	n := min(len(old), len(now), 8192)
	old, now = old[:n], now[:n]
	var w redoWriter
	image := w.diff(1, block.TypeLeaf, 1, old, now, zeros8K)
	rd := redoReader{w.buf}
	e, _, err := rd.next()
	ok(t, err)
	p := bytes.Clone(old)
	if image {
		clear(p)
	}
	ok(t, e.apply(p, old))
	if !bytes.Equal(p, now) || len(rd.rest) != 0 {
		t.Fatalf("%x, want %x", p, now)
	}
}

// Arrays that grow and shrink in their middles, at several places at once: what a
// diff leads to is right, and of an entry of 8 bytes that is put into 2000 or taken
// out little more than itself is logged.
func TestR8_MovesInDiffs(t *testing.T) {
	rng := rand.New(rand.NewPCG(chance.Seed(t), 0))
	logged, all := 0, 0
	for range 3000 {
		old := countedBytes(2000)
		now := slices.Clone(old)
		changes := 1 + rng.IntN(4)
		for range changes {
			at := moveStep * rng.IntN(450)
			if rng.IntN(2) == 0 {
				now = slices.Insert(now, at, binary.LittleEndian.AppendUint64(nil, rng.Uint64())...)
			} else {
				now = slices.Delete(now, at, at+8)
			}
		}
		now = slices.Grow(now, 2000)[:2000]
		proveDiff(t, old, now)
		var w redoWriter
		w.diff(1, block.TypeLeaf, 1, old, now, make([]byte, 2000))
		logged += len(w.buf)
		all += changes
	}
	// Where changes stand close to each other, what lies between them is logged too.
	if logged > 40*all {
		t.Errorf("a change of 8 bytes is logged as %d bytes on average", logged/all)
	}
}

// TestGolden_Moves: a move entry, made by hand of the format's description.
func TestGolden_Moves(t *testing.T) {
	old := countedBytes(80)
	now := slices.Concat(old[:16], []byte("inserted"), old[16:72])
	now[79] ^= 0xff
	var w redoWriter
	w.diff(13, block.TypeLeaf, 5, old, now, make([]byte, 80))
	golden(t, "redo-move.hex", w.buf)
	proveDiff(t, old, now)
}

// hostile is a small sound database, closed.
func hostile(t testing.TB) *simfs.FS {
	fsys := simfs.New()
	o := smallOptions(fsys)
	o.LogBytesMax = LogBytesMin
	s := mustOpen(t, o)
	tx, err := s.BeginWrite()
	ok(t, err)
	b, err := tx.Alloc(block.TypeLeaf)
	ok(t, err)
	b.Payload()[0] = 1
	b.Release()
	_, err = tx.Commit()
	ok(t, err)
	ok(t, s.Close())
	return fsys
}

// FuzzOpen opens a data file with bytes changed: an error or a store, never a
// panic, and never without end.
func FuzzOpen(f *testing.F) {
	f.Add(uint32(9), []byte{0xff, 1, 2}, false)
	f.Add(uint32(80), []byte{0xff}, true)
	f.Add(uint32(13), []byte{0}, true) // blocks without a size
	f.Add(uint32(superblockStride+13), []byte{0}, true)
	f.Add(uint32(120), []byte{0, 0, 1}, true) // a fork
	f.Add(uint32(2*4096), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, true)
	f.Add(uint32(3*4096), []byte{0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, reseal bool) {
		fsys := hostile(t)
		data, err := fsys.OpenFile(testDir+"/data", os.O_RDWR, 0)
		ok(t, err)
		size, err := data.Size()
		ok(t, err)
		all := make([]byte, size)
		_, err = data.ReadAt(all, 0)
		ok(t, err)
		copy(all[int64(at)%size:], patch)
		if reseal {
			resealAll(all)
		}
		_, err = data.WriteAt(all, 0)
		ok(t, err)
		ok(t, data.Close())
		s, err := Open(testDir, smallOptions(fsys))
		if err != nil {
			return
		}
		useHostile(s)
		_ = s.Close()
	})
}

// resealAll makes the checksums right, so that the decoders behind them are
// reached.
func resealAll(all []byte) {
	for _, off := range []int{0, superblockStride} {
		if sb := all[off : off+superblockSize]; string(sb[:8]) == superblockMagic {
			put := block.Checksum(block.SeedOf([16]byte(sb[16:32])), sb[:508])
			copy(sb[508:], []byte{byte(put), byte(put >> 8), byte(put >> 16), byte(put >> 24)})
		}
	}
	seed := block.SeedOf([16]byte(all[16:32]))
	for id := block.ID(2); int(id+1)*4096 <= len(all); id++ {
		b := all[id*4096 : (id+1)*4096]
		if tr := b[4096-block.TrailerSize:]; tr[5] == 1 {
			block.Seal(b, block.Trailer{Type: block.Type(tr[4]), ID: id}, seed)
		}
	}
}

func useHostile(s *Store) {
	if r, err := s.BeginRead(); err == nil {
		for id := range block.ID(20) {
			if b, err := r.Block(id); err == nil {
				b.Release()
			}
		}
		r.Close()
	}
	if tx, err := s.BeginWrite(); err == nil {
		if b, err := tx.Alloc(block.TypeLeaf); err == nil {
			b.Release()
		}
		_ = tx.Free(13)
		_, _ = tx.Commit()
	}
}
