package livebackup

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

var rewriteGolden = flag.Bool("rewrite", false, "write testdata anew")

var costOfNothing mvcc.Cost

func sha(data []byte) Digest { return sha256.Sum256(data) }

// field is a stretch of bytes with a name, for the annotated dump.
type field struct {
	size int
	name string
}

// dump writes data as hex, a line per field; what follows the fields is left out.
func dump(title string, data []byte, fields []field) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n", title)
	at := 0
	for _, f := range fields {
		if f.name == "text" {
			fmt.Fprintf(&s, "%5d  %s\n", at, data[at:at+f.size])
		} else {
			fmt.Fprintf(&s, "%5d  %-36s %x\n", at, f.name, data[at:at+f.size])
		}
		at += f.size
	}
	if at != len(data) {
		fmt.Fprintf(&s, "       %d more bytes\n", len(data)-at)
	}
	return s.String()
}

// The bytes of format version 1, for ever.
func TestGoldenFormat(t *testing.T) {
	who := identity{RepositoryID{1, 2, 3}, block.DatabaseID{4, 5, 6}}
	id := BackupID{12, 0x8f3a9c21}
	m := Manifest{
		ID: id, Kind: KindFull, Database: who.database, Timeline: block.TimelineID{7, 8}, LSN: 100, EndLSN: 100,
		Committed: time.Unix(1_700_000_000, 5).UTC(), BlockSize: 4096, HighWater: 20, Blocks: 2, RawBytes: 8192,
		StoredBytes: 8400, Groups: 1, Owner: "owner", Label: "nightly", Compression: CompressionFastest,
		CreatedBy: "spillway v1", Started: time.Unix(1_700_000_001, 0).UTC(), Duration: 3 * time.Second, StartStall: time.Millisecond,
		Objects: []Object{{"blocks", 1, 8288, sha([]byte("b"))}, {"index", 1, 112, sha([]byte("i"))}},
		Cost: Cost{
			OriginalsMade: 1, OriginalsShared: 2, OriginalsSpilled: 3, OriginalsRead: 4,
			HeldPeakBytes: 5, RAMPeakBytes: 6, SpillPeakBytes: 7, OverflowPeakBytes: 8,
		},
	}
	manifest, err := m.encode(who.repository)
	if err != nil {
		t.Fatal(err)
	}
	inc := m
	inc.ID, inc.Kind, inc.Base, inc.BaseManifest, inc.BaseLSN = BackupID{13, 0x8f3a9c22}, KindIncremental, id, sha(manifest), 100
	inc.LSN, inc.EndLSN, inc.RecordSum, inc.BlocksInUse, inc.Audit = 120, 120, 0xcafe, 20, Audit{16, 15}
	inc.History = []block.Fork{{Timeline: block.TimelineID{9}, LSN: 50}, {Timeline: block.TimelineID{10}, LSN: 40}}
	increment, err := inc.encode(who.repository)
	if err != nil {
		t.Fatal(err)
	}
	g := groupEntry{object: 1, blocks: 2, offset: 64, stored: 8192, codec: codecZstd, crc: 0xcafe}
	entries := runEntry{first: 4, blocks: 2, group: 0, slot: 0}.append(g.append(nil))
	section := sectionHeader{first: 0, groups: 1, runs: 1, lowest: 4, highest: 5, crc: checksum(entries)}.encode()
	group := encodeGroupHeader(0, g)
	envelope := []field{{8, "magic"}, {4, "version"}, {4, "zero"}, {16, "repository"}, {16, "database"}, {8, "length"}, {32, "SHA-256"}, {4, "zero"}, {4, "CRC"}}
	got := dump("manifest", manifest, append(envelope, field{len(manifest) - envelopeSize, "text"})) +
		dump("manifest of an incremental", increment, append(envelope, field{len(increment) - envelopeSize, "text"})) +
		dump("blocks object", encodeObjectHeader(magicBlocks, who.database, id, 1), []field{
			{8, "magic"}, {4, "version"}, {4, "zero"}, {16, "database"}, {8, "sequence"}, {4, "random"}, {4, "number"}, {12, "zero"}, {4, "CRC"}}) +
		dump("group", group[:], []field{{4, "group"}, {4, "blocks"}, {4, "stored"}, {4, "codec"}, {4, "CRC"}, {8, "zero"}, {4, "CRC of the header"}}) +
		dump("section", append(section[:], entries...), []field{
			{4, "first"}, {4, "groups"}, {4, "runs"}, {4, "zero"}, {8, "lowest"}, {8, "highest"}, {4, "CRC of entries"}, {8, "zero"}, {4, "CRC"},
			{4, "group: object"}, {4, "blocks"}, {8, "offset"}, {4, "stored"}, {4, "codec"}, {4, "CRC"}, {4, "zero"},
			{8, "run: first"}, {4, "blocks"}, {4, "group"}, {4, "slot"}, {4, "zero"}})
	golden := filepath.Join("testdata", "format-v1.txt")
	if *rewriteGolden {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Fatalf("got:\n%swant:\n%s", got, want)
	}
	if back, err := decodeManifest(manifest, id, who.repository); err != nil || back.Cost != m.Cost || back.Timeline != m.Timeline {
		t.Fatalf("%+v, %v", back, err)
	}
	if back, err := decodeManifest(increment, inc.ID, who.repository); err != nil || !reflect.DeepEqual(back, inc) {
		t.Fatalf("%+v, %v", back, err)
	}
}

// goldenID is the backup in testdata/repository-v1.
var goldenID = BackupID{1, 0x600d}

// A repository of format version 1 is read by every later program.
func TestGoldenRepository(t *testing.T) {
	dir := filepath.Join("testdata", "repository-v1")
	src := newFake(1, 6, 4<<10)
	if *rewriteGolden {
		writeGoldenRepository(t, src, dir)
	}
	repo, err := OpenRepository(t.Context(), dir, RepositoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sameImages(t, contents(t, repo, goldenID), src.images)
	if list := mustList(t, repo); len(list) != 1 || list[0].State() != StateProven {
		t.Fatalf("%+v", list)
	}
	if err := verifyAgain(t, repo, goldenID); err != nil {
		t.Fatal(err)
	}
}

func writeGoldenRepository(t *testing.T, src *fakeSource, dir string) {
	t.Helper()
	os.RemoveAll(dir)
	repo := openRepo(t, vfs.OS, dir)
	s, err := src.Open(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := BackupOptions{Owner: "golden", GroupBytes: 16 << 10}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.bind(t.Context(), src.info.Database); err != nil {
		t.Fatal(err)
	}
	r := newRun(repo, src, o, src.info, nil, time.Unix(1_700_000_000, 0))
	if err := r.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	remove(t, repo, objectName(r.id, kindRun, 0))
	r.become(goldenID, r.claim)
	if _, err := r.make(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), repo, goldenID, VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
}

// A repository of format version 1 with incrementals is read, restored and opened in
// place by every later program. What it holds stands beside it, as text.
func TestGoldenChain(t *testing.T) {
	golden := filepath.Join("testdata", "repository-v1-chain")
	if *rewriteGolden {
		writeGoldenChain(t, golden)
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "repo"), os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	repo, err := OpenRepository(t.Context(), filepath.Join(dir, "repo"), RepositoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(golden + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	list := mustList(t, repo)
	if len(list) != 3 || list[0].Manifest.Kind != KindFull || list[2].Manifest.Base != list[1].ID || len(list[2].Manifest.History) != 1 || list[2].State() != StateProven {
		t.Fatalf("%+v", list)
	}
	found := ""
	h := &history{t: t, fs: vfs.OS, kept: map[block.LSN]map[block.ID]string{}}
	for i := range list {
		m := list[i].Manifest
		h.kept[m.LSN] = texts(contents(t, repo, m.ID))
		for _, id := range slices.Sorted(maps.Keys(h.kept[m.LSN])) {
			found += fmt.Sprintf("LSN %v: %s\n", m.LSN, h.kept[m.LSN][id])
		}
		h.wantState(repo, m, filepath.Join(dir, fmt.Sprint("restored", i)))
	}
	if found != string(said) {
		t.Fatalf("it holds\n%swhich should be\n%s", found, said)
	}
	if _, err := Verify(t.Context(), repo, BackupID{}, VerifyOptions{NoRecord: true}); err != nil {
		t.Fatal(err)
	}
}

func writeGoldenChain(t *testing.T, dir string) {
	t.Helper()
	os.RemoveAll(dir)
	h := newHistory(t, rand.New(rand.NewPCG(0x600d, 1)), vfs.OS, filepath.Join(t.TempDir(), "db"))
	repo := openRepo(t, vfs.OS, dir)
	h.commit(30, 0, 0)
	said := ""
	for n := range 3 {
		if n == 2 { // the last one on a timeline of its own
			target := filepath.Join(t.TempDir(), "restored")
			if _, err := Restore(t.Context(), repo, RestoreTarget{}, target, RestoreOptions{}); err != nil {
				t.Fatal(err)
			}
			h.dir = target
			h.reopen()
		}
		h.commit(3, 5, 3)
		m := h.backup(repo, BackupOptions{Owner: "golden", GroupBytes: 16 << 10})
		for _, id := range slices.Sorted(maps.Keys(h.model)) {
			said += fmt.Sprintf("LSN %v: %s\n", m.LSN, h.model[id])
		}
	}
	if _, err := Verify(t.Context(), repo, BackupID{}, VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+".txt", []byte(said), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A newer format is told from damage.
func TestNewerVersionIsTold(t *testing.T) {
	src, repo := newFake(1, 5, 4<<10), newRepo(t)
	id := mustBackup(t, src, repo, BackupOptions{}).ID
	for name, data := range objectsOf(t, repo) {
		size := envelopeSize
		if _, k, _, _, _ := parseObjectName(name); k == kindBlocks || k == kindIndex {
			size = objectHeaderSize
		}
		sound := slices.Clone(data)
		data[8]++
		rewrite(t, repo, name, data)
		if err := verifyAgain(t, repo, id); !errors.Is(err, block.ErrCorrupt) || errors.Is(err, ErrVersion) {
			t.Errorf("%s, version damaged: %v", name, err)
		}
		le.PutUint32(data[size-4:], checksum(data[:size-4]))
		rewrite(t, repo, name, data)
		if err := verifyAgain(t, repo, id); !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", name, err)
		}
		rewrite(t, repo, name, sound)
	}
}

// A registry of timelines of which the version was damaged was taken for one of a newer
// program, and forbade every restore; that it is damaged does not.
func TestDamagedVersionOfTheRegistryForbidsNoRestore(t *testing.T) {
	fs := simfs.New()
	repo, m := backupOfStore(t, fs, "/db", "/repo", 5)
	name := timelineName(1)
	data, err := readSmall(t.Context(), repo.objects, name, smallBytesMax)
	if err != nil {
		t.Fatal(err)
	}
	data[9] ^= 0x10
	rewrite(t, repo, name, data)
	if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, "/new", RestoreOptions{FS: fs}); err != nil {
		t.Fatal(err)
	}
}

// A manifest is what we would write, to the byte: doubled, unknown, misspelt
// fields and other numbers for the same value are refused, checksum or not.
func TestManifestIsCanonical(t *testing.T) {
	src, repo := newFake(1, 5, 4<<10), newRepo(t)
	id := mustBackup(t, src, repo, BackupOptions{}).ID
	data := objectsOf(t, repo)[objectName(id, kindManifest, 0)]
	for _, r := range [][2]string{
		{`"lsn":100`, `"lsn":100,"lsn":100`}, {`"lsn":100`, `"base":null,"lsn":100`}, {`"lsn":100`, `"LSN":100`},
		{`"lsn":100`, `"lsn": 100`}, {`"lsn":100`, `"lsn":1e2`}, {`"full"`, `"incremental"`}, {`"blocks":5`, `"blocks":6`},
		{`"block_size":4096`, `"block_size":4097`}, {`"high_water":`, `"high_water":99999999999999999`},
		{`"number":1`, `"number":2`}, {`"kind":"index"`, `"kind":"../../x"`}, {`"objects":[`, `"objects":[{},`},
	} {
		spoiled := resealed(bytes.Replace(data, []byte(r[0]), []byte(r[1]), 1))
		if bytes.Equal(spoiled, data) {
			t.Fatalf("%s is not there", r[0])
		}
		if _, err := decodeManifest(spoiled, id, repo.id); !errors.Is(err, block.ErrCorrupt) {
			t.Errorf("%s: %v", r[1], err)
		}
	}
}

// What expands to more than its group says gets no more memory than that.
func TestDecompressionIsBounded(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	d, err := newDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	one := enc.EncodeAll(make([]byte, 8192), nil)
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}
	cases := map[string][]byte{
		"bomb":         enc.EncodeAll(make([]byte, 256<<20), nil),
		"two frames":   append(bytes.Clone(one), one...),
		"too little":   enc.EncodeAll(make([]byte, 8191), nil),
		"nothing":      {},
		"skippable":    skippable,
		"garbage":      []byte("what is this"),
		"cut":          one[:len(one)-1],
		"many empties": bytes.Repeat(enc.EncodeAll(nil, nil), 1000),
	}
	raw := make([]byte, 8192)
	for name, stored := range cases {
		allocated := testing.AllocsPerRun(1, func() {
			if _, err := d.decode(codecZstd, stored, raw); err == nil {
				t.Errorf("%s: no error", name)
			}
		})
		if allocated > 1000 {
			t.Errorf("%s: %v allocations", name, allocated)
		}
	}
	if out, err := d.decode(codecZstd, one, raw); err != nil || len(out) != len(raw) {
		t.Fatal(err)
	}
	if _, err := d.decode(7, one, raw); err == nil {
		t.Fatal("unknown codec accepted")
	}
}

// A declared size beyond all space is refused before anything is written.
func TestHugeDeclarationIsRefused(t *testing.T) {
	fs := simfs.New()
	src, repo := newFake(1, 5, 4<<10), openRepo(t, fs, "/repo")
	m := mustBackup(t, src, repo, BackupOptions{})
	m.Blocks, m.HighWater = math.MaxInt64/4096-1, math.MaxInt64/4096
	m.RawBytes = int64(m.Blocks) * 4096
	data, err := m.encode(repo.id)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, repo, objectName(m.ID, kindManifest, 0), data)
	fs.SetCapacity(1 << 30)
	if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: m.ID}, "/new", RestoreOptions{FS: fs}); !errors.Is(err, ErrTargetFull) {
		t.Fatal(err)
	}
	if err := verifyAgain(t, repo, m.ID); !errors.Is(err, block.ErrCorrupt) {
		t.Fatal(err)
	}
}

// A limit spreads writes evenly: at no moment is more through than the rate
// allows and one step.
func TestPaceIsSmooth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		p, began, through := &pacer{rate: rate}, time.Now(), 0
		for through < 10*rate {
			n, err := p.wait(t.Context(), 5<<20)
			if err != nil {
				t.Fatal(err)
			}
			through += n
			allowed := time.Since(began).Seconds()*rate + rate*paceStep.Seconds()
			if float64(through) > allowed+1 {
				t.Fatalf("%d bytes after %v", through, time.Since(began))
			}
		}
		if took := time.Since(began); took < 9900*time.Millisecond || took > 10100*time.Millisecond {
			t.Fatalf("10 seconds' worth took %v", took)
		}
		time.Sleep(time.Hour) // an idle writer saves nothing up
		for range 2 {
			p.wait(t.Context(), 5<<20)
		}
		if n, _ := p.wait(t.Context(), 5<<20); n > rate/10 {
			t.Fatalf("%d bytes at once after a rest", n)
		}
	})
}

// A paced backup takes its time, and gives the store's blocks back at once.
func TestPacedBackup(t *testing.T) {
	src, repo := newFake(1, 64, 4<<10), newRepo(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		res, err := Backup(t.Context(), src, repo, BackupOptions{BytesPerSecond: 64 << 10, GroupBytes: 16 << 10, Compression: CompressionNone})
		if err != nil {
			t.Fatal(err)
		}
		want := time.Duration(float64(res.Manifest.StoredBytes) / (64 << 10) * float64(time.Second))
		if took := time.Since(began); took < want*9/10 || took > want*11/10 {
			t.Fatalf("took %v, want about %v", took, want)
		}
	})
}
