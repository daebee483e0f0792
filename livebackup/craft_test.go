package livebackup

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
)

// craft writes a backup as a hostile hand would: every checksum is right, and
// the blocks are those of order, whatever they are. spoil may change the
// manifest before it is published.
func craft(t *testing.T, repo *Repository, src *fakeSource, id BackupID, order [][]block.ID, spoil func(m *Manifest)) {
	t.Helper()
	if err := repo.bind(t.Context(), src.info.Database); err != nil {
		t.Fatal(err)
	}
	o, err := BackupOptions{Compression: CompressionNone}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	r := &run{repo: repo, o: o, info: src.info, id: id}
	r.blocks = &objectSeries{objects: repo.objects, pace: &pacer{}, magic: magicBlocks, kind: kindBlocks, db: src.info.Database, id: id, limit: 1 << 20}
	r.index.out = &objectSeries{objects: repo.objects, pace: &pacer{}, magic: magicIndex, kind: kindIndex, db: src.info.Database, id: id, limit: 1 << 20}
	for _, ids := range order {
		g := &group{ids: ids}
		for _, id := range ids {
			g.stored = append(g.stored, src.images[id]...)
		}
		// A section for each group: what is wrong within one, its decoder finds.
		if err := errors.Join(r.writeGroup(t.Context(), g), r.index.flush(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(r.blocks.finish(), r.index.flush(t.Context()), r.index.out.finish()); err != nil {
		t.Fatal(err)
	}
	m := r.manifest(costOfNothing)
	spoil(&m)
	data, err := m.encode(repo.id)
	if err != nil {
		t.Fatal(err)
	}
	if err := repo.put(t.Context(), objectName(id, kindManifest, 0), data); err != nil {
		t.Fatal(err)
	}
}

// What no checksum tells is found by counting and comparing.
func TestCraftedBackupsAreRefused(t *testing.T) {
	says := func(blocks uint64) func(m *Manifest) {
		return func(m *Manifest) { m.Blocks, m.RawBytes = blocks, int64(blocks)*4096 }
	}
	cases := map[string]struct {
		order [][]block.ID
		spoil func(m *Manifest)
		want  string
	}{
		"nothing wrong":     {[][]block.ID{{0, 1}, {3, 2}}, says(4), ""},
		"a block twice":     {[][]block.ID{{0, 1}, {1, 2}}, says(3), "twice"},
		"a block too few":   {[][]block.ID{{0, 1}, {2}}, says(4), "says 4 blocks, there are 3"},
		"a block too many":  {[][]block.ID{{0, 1}, {2}}, says(2), "says 2 blocks, there are 3"},
		"a group too few":   {[][]block.ID{{0, 1}, {2}}, func(m *Manifest) { says(3)(m); m.Groups = 3 }, "says 3 groups, there are 2"},
		"above S":           {[][]block.ID{{0, 1}, {2}}, func(m *Manifest) { says(3)(m); m.LSN, m.EndLSN = 1, 1 }, "above the snapshot's"},
		"behind high water": {[][]block.ID{{0, 1}, {5}}, func(m *Manifest) { says(3)(m); m.HighWater = 5 }, "high-water mark"},
		"no index": {[][]block.ID{{0, 1}}, func(m *Manifest) {
			says(2)(m)
			m.StoredBytes -= m.Objects[1].Size
			m.Objects = m.Objects[:1]
		}, "more groups than the index has"},
		"no blocks": {[][]block.ID{{0, 1}}, func(m *Manifest) {
			says(2)(m)
			m.StoredBytes -= m.Objects[0].Size
			m.Objects = m.Objects[1:]
		}, "in no object"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			src, repo := dense(8), newRepo(t)
			id := BackupID{1, 1}
			craft(t, repo, src, id, c.order, c.spoil)
			err := verifyAgain(t, repo, id)
			if c.want == "" && err == nil {
				return
			}
			if !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Fatal(err)
			}
		})
	}
}

// dense is a database of blocks 0 to n-1.
func dense(n int) *fakeSource {
	s := newFake(1, 0, 4<<10)
	rng := rand.New(rand.NewPCG(1, 2))
	for id := range block.ID(n) {
		s.put(rng, id)
		s.order = append(s.order, id)
	}
	s.info.HighWater, s.info.Blocks = block.ID(n), uint64(n)
	return s
}

// Objects that are sound in themselves, of the right id, kind, number and size,
// are not the manifest's: only the digest tells.
func TestReplacedObjectsAreRefused(t *testing.T) {
	id, order := BackupID{1, 1}, [][]block.ID{{0, 1}, {2}}
	repo := newRepo(t)
	craft(t, repo, dense(8), id, order, func(m *Manifest) { m.Blocks, m.RawBytes = 3, 3*4096 })
	mine := objectsOf(t, repo)
	for name := range mine {
		if name != headerName && name != bindingName {
			remove(t, repo, name)
		}
	}
	other := dense(8)
	other.put(rand.New(rand.NewPCG(9, 9)), 1)
	craft(t, repo, other, id, order, func(m *Manifest) { m.Blocks, m.RawBytes = 3, 3*4096 })
	if err := verifyAgain(t, repo, id); err != nil {
		t.Fatal(err)
	}
	name := objectName(id, kindManifest, 0)
	rewrite(t, repo, name, mine[name])
	if err := verifyAgain(t, repo, id); !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), "SHA-256") {
		t.Fatal(err)
	}
}

// Damage is reported with its place, by the first check that can see it.
func TestDamageHasItsPlace(t *testing.T) {
	id, repo := BackupID{1, 1}, newRepo(t)
	craft(t, repo, dense(8), id, [][]block.ID{{0, 1}, {2}}, func(m *Manifest) { m.Blocks, m.RawBytes = 3, 3*4096 })
	name := objectName(id, kindBlocks, 1)
	data := objectsOf(t, repo)[name]
	second := objectHeaderSize + groupHeaderSize + 2*4096
	rewrite(t, repo, name, flipped(data, second+groupHeaderSize+100))
	var c *block.CorruptError
	err := verifyAgain(t, repo, id)
	if !errors.As(err, &c) || c.Path != name || c.Offset != int64(second) || !strings.Contains(c.Reason, "group's checksum") {
		t.Fatal(err)
	}
}
