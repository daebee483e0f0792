package livebackup

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

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
	o, err := BackupOptions{Compression: CompressionNone, ObjectBytes: 1 << 20}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	r := newRun(repo, src, o, src.info, nil, time.Time{})
	r.become(id, nil)
	for _, ids := range order {
		g := &group{ids: ids}
		for _, id := range ids {
			g.stored = append(g.stored, src.images[id]...)
		}
		g.crc = checksum(g.stored)
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

// says makes a manifest agree with a number of blocks.
func says(blocks uint64) func(m *Manifest) {
	return func(m *Manifest) { m.Blocks, m.RawBytes = blocks, int64(blocks)*4096 }
}

// What no checksum tells is found by counting and comparing.
func TestCraftedBackupsAreRefused(t *testing.T) {
	cases := map[string]struct {
		order [][]block.ID
		spoil func(m *Manifest)
		want  string
	}{
		"nothing wrong":     {[][]block.ID{{2, 3}, {14, 13}}, says(4), ""},
		"a block twice":     {[][]block.ID{{2, 3}, {3, 13}}, says(4), "twice"},
		"a block too few":   {[][]block.ID{{2, 3}, {13}}, says(4), "says 4 blocks, there are 3"},
		"a block too many":  {[][]block.ID{{2, 3}, {13}}, says(2), "says 2 blocks, there are 3"},
		"a group too few":   {[][]block.ID{{2, 3}, {13}}, func(m *Manifest) { says(3)(m); m.Groups = 3 }, "says 3 groups, there are 2"},
		"above S":           {[][]block.ID{{2, 3}, {13}}, func(m *Manifest) { says(3)(m); m.LSN, m.EndLSN = 1, 1 }, "above the snapshot's"},
		"behind high water": {[][]block.ID{{2, 3}, {14}}, func(m *Manifest) { says(3)(m); m.HighWater = 14 }, "high-water mark"},
		"no index": {[][]block.ID{{2, 3}}, func(m *Manifest) {
			says(2)(m)
			m.StoredBytes -= m.Objects[1].Size
			m.Objects = m.Objects[:1]
		}, "more groups than the index has"},
		"no blocks": {[][]block.ID{{2, 3}}, func(m *Manifest) {
			says(2)(m)
			m.StoredBytes -= m.Objects[0].Size
			m.Objects = m.Objects[1:]
		}, "in no object"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			src, repo := newDense(), newRepo(t)
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

// A backup whose manifest, index and blocks agree with each other is still none
// when the database's own bitmap says otherwise. Verify and restore both tell.
func TestBackupsThatTheBitmapDeniesAreRefused(t *testing.T) {
	cases := map[string]struct {
		order [][]block.ID
		place block.ID
		want  string
	}{
		"a block missing":     {[][]block.ID{{2, 3}, {13}}, 14, "it is missing"},
		"a block too many":    {[][]block.ID{{2, 3}, {13, 14, 15}}, block.NoBlock, "there are 5 blocks, the bitmaps name 4"},
		"one for another":     {[][]block.ID{{2, 3}, {13, 15}}, 14, "it is missing"},
		"no meta block":       {[][]block.ID{{3}, {13, 14}}, 2, "it is missing"},
		"no bitmap":           {[][]block.ID{{2}, {13, 14}}, 3, "it is missing"},
		"nothing":             {nil, 2, "it is missing"},
		"from a fixed place":  {[][]block.ID{{2, 3, 4}, {13, 14}}, 4, "it is a reserved place"},
		"all but what it has": {[][]block.ID{{2, 3}}, 13, "it is missing"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			repo, id, blocks := newRepo(t), BackupID{1, 1}, 0
			for _, ids := range c.order {
				blocks += len(ids)
			}
			craft(t, repo, newDense(), id, c.order, says(uint64(blocks)))
			_, verified := Verify(t.Context(), repo, id, VerifyOptions{})
			_, restored := Restore(t.Context(), repo, RestoreTarget{Backup: id}, "/new", RestoreOptions{FS: repo.fs})
			for _, err := range []error{verified, restored} {
				var at *block.CorruptError
				if !errors.As(err, &at) || at.Block != c.place || !strings.Contains(at.Reason, c.want) {
					t.Error(err)
				}
			}
			if e := mustList(t, repo)[0]; e.State() != StateDamaged || e.Proof.OK {
				t.Errorf("listed as %s, proof %+v", e.State(), e.Proof)
			}
		})
	}
}

// newDense makes a database of blocks 2, 3, 13 and 14. Of 4, a fixed place, and
// of 15, which is free, it has images that no backup should hold.
func newDense() *fakeSource {
	s := newFake(1, 2, 4<<10)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, id := range []block.ID{4, 13, 14, 15} {
		s.put(rng, id)
	}
	s.order = append(s.order, 13, 14)
	s.putBitmap()
	s.info.HighWater, s.info.Blocks = 16, uint64(len(s.order))
	return s
}

// Objects that are sound in themselves, of the right id, kind, number and size,
// are not the manifest's: only the digest tells.
func TestReplacedObjectsAreRefused(t *testing.T) {
	id, order := BackupID{1, 1}, [][]block.ID{{2, 3}, {13, 14}}
	repo := newRepo(t)
	craft(t, repo, newDense(), id, order, says(4))
	mine := objectsOf(t, repo)
	for name := range mine {
		if name != headerName && name != bindingName {
			remove(t, repo, name)
		}
	}
	other := newDense()
	other.put(rand.New(rand.NewPCG(9, 9)), 13)
	craft(t, repo, other, id, order, says(4))
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
	craft(t, repo, newDense(), id, [][]block.ID{{2, 3}, {13, 14}}, says(4))
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
