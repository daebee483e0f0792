package livebackup

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// chainOfThree makes a repository with a full backup and two incrementals, each of
// several objects, and returns their ids, the oldest first.
func chainOfThree(t *testing.T, seed uint64) (*history, *Repository, []BackupID) {
	t.Helper()
	fs := simfs.New()
	if err := makeDir(fs, "/d"); err != nil {
		t.Fatal(err)
	}
	h := newHistory(t, rand.New(rand.NewPCG(seed, 1)), fs, "/d/db")
	repo := openRepo(t, fs, "/d/repo")
	h.commit(150, 0, 0)
	ids := []BackupID{h.backup(repo, smallGroups(TypeFull)).ID}
	for range 2 {
		h.commit(10, 20, 10)
		ids = append(ids, h.backup(repo, smallGroups(TypeIncremental)).ID)
	}
	return h, repo, ids
}

// respoken publishes a changed manifest in the place of the old one.
func respoken(t *testing.T, repo *Repository, id BackupID, spoil func(m *Manifest)) {
	t.Helper()
	m, _, err := repo.manifest(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	spoil(&m)
	data, err := m.encode(repo.id)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, repo, objectName(id, kindManifest, 0), data)
}

// What a hostile hand may say of a chain: it is refused on every path, nothing is at
// the target, and no incremental is made on it.
func TestHostileChainsAreRefused(t *testing.T) {
	h, repo, ids := chainOfThree(t, 1)
	a, b, c := ids[0], ids[1], ids[2]
	cases := map[string]struct {
		id    BackupID
		spoil func(m *Manifest)
		chain bool // what is wrong is between two backups
	}{
		"its own base":         {c, func(m *Manifest) { m.Base = c }, false},
		"a base in the future": {b, func(m *Manifest) { m.Base = c }, false},
		"a cycle":              {b, func(m *Manifest) { m.Base, m.BaseLSN = c, m.LSN }, false},
		"no base":              {c, func(m *Manifest) { m.Base = BackupID{} }, false},
		"a base that is gone":  {c, func(m *Manifest) { m.Base = BackupID{1, a.Random + 1} }, true},
		"another base":         {c, func(m *Manifest) { m.Base = a }, true},
		"another manifest":     {c, func(m *Manifest) { m.BaseManifest[3]++ }, true},
		"a base that changed":  {a, func(m *Manifest) { m.Label = "other" }, true},
		"a lower base LSN":     {c, func(m *Manifest) { m.BaseLSN-- }, true},
		"a higher base LSN":    {c, func(m *Manifest) { m.BaseLSN++ }, true},
		"a base above":         {c, func(m *Manifest) { m.BaseLSN = m.LSN + 1 }, false},
		"base LSN 0":           {c, func(m *Manifest) { m.BaseLSN = 0 }, false},
		"another timeline":     {c, func(m *Manifest) { m.Timeline[0]++ }, true},
		"forked below its base": {c, func(m *Manifest) {
			m.History, m.Timeline = []block.Fork{{Timeline: m.Timeline, LSN: 1}}, block.TimelineID{9}
		}, true},
		"a long history":       {c, func(m *Manifest) { m.History = make([]block.Fork, historyMax+1) }, false},
		"too few in use":       {c, func(m *Manifest) { m.BlocksInUse = m.Blocks - 1 }, false},
		"too many in use":      {c, func(m *Manifest) { m.BlocksInUse = uint64(m.HighWater) + 1 }, false},
		"an audit of more":     {c, func(m *Manifest) { m.Audit.Compared = m.Audit.Asked + 1 }, false},
		"a full one with base": {c, func(m *Manifest) { m.Kind = KindFull }, false},
		"a full one, audited":  {a, func(m *Manifest) { m.Audit = Audit{1, 1} }, false},
		"of unknown kind":      {c, func(m *Manifest) { m.Kind = "partial" }, false},
		"other blocks":         {c, func(m *Manifest) { m.BlockSize, m.RawBytes = 8192, int64(m.Blocks)*8192 }, true},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			object := objectName(test.id, kindManifest, 0)
			data := objectsOf(t, repo)[object]
			defer rewrite(t, repo, object, data)
			respoken(t, repo, test.id, test.spoil)
			_, verified := Verify(t.Context(), repo, c, VerifyOptions{NoRecord: true})
			_, restored := Restore(t.Context(), repo, RestoreTarget{Backup: c}, "/d/new", RestoreOptions{FS: repo.fs})
			_, opened := OpenBackup(t.Context(), repo, c, ImageOptions{})
			_, listed := chainOf(mustList(t, repo), c)
			for _, err := range []error{verified, restored, opened, listed} {
				if !errors.Is(err, block.ErrCorrupt) || test.chain && !errors.Is(err, ErrChain) {
					t.Error(err)
				}
			}
			if list := mustList(t, repo); list[2].State() != StateDamaged {
				t.Errorf("listed as %s", list[2].State())
			}
			if entries, err := repo.fs.ReadDir("/d"); err != nil || len(entries) != 2 {
				t.Errorf("left %v, %v", entries, err)
			}
			o := smallGroups(TypeIncremental)
			o.Base = c
			if _, err := Backup(t.Context(), NewSource(h.store), repo, o); !errors.Is(err, ErrNoBase) {
				t.Error(err)
			}
		})
	}
	h.wantState(repo, mustList(t, repo)[2].Manifest, "/d/new")
}

// An incremental cannot be restored without its base, and a list says so; neither can
// those on top of it. The full backup below is not concerned.
func TestChain_DamageGoesUp(t *testing.T) {
	_, repo, ids := chainOfThree(t, 2)
	states := func() (list []State) {
		for _, e := range mustList(t, repo) {
			list = append(list, e.State())
		}
		return list
	}
	check := func(what string, want ...State) {
		t.Helper()
		if got := states(); !slices.Equal(got, want) {
			t.Fatalf("%s: listed as %v, want %v", what, got, want)
		}
	}
	objects := objectsOf(t, repo)
	for i, want := range [][]State{
		{StateDamaged, StateDamaged, StateDamaged}, {StateComplete, StateDamaged, StateDamaged}, {StateComplete, StateComplete, StateDamaged},
	} {
		for _, k := range []kind{kindManifest, kindBlocks, kindIndex} {
			name := objectName(ids[i], k, 1)
			rewrite(t, repo, name, objects[name][:len(objects[name])-1])
			check(name+" cut", want...)
			rewrite(t, repo, name, objects[name])
		}
		name := objectName(ids[i], kindManifest, 0)
		remove(t, repo, name)
		check(name+" missing", slices.Delete(slices.Clone(want), i, i+1)...)
		if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: ids[2]}, "/d/new", RestoreOptions{FS: repo.fs}); err == nil {
			t.Fatal("restored without a base")
		}
		rewrite(t, repo, name, objects[name])
	}
	// What verify finds in a base is said of the base, and so of all on top of it.
	name := objectName(ids[1], kindBlocks, 1)
	rewrite(t, repo, name, flipped(objects[name], len(objects[name])/2))
	if _, err := Verify(t.Context(), repo, ids[2], VerifyOptions{}); !errors.Is(err, block.ErrCorrupt) {
		t.Fatal(err)
	}
	check("rot in the middle", StateComplete, StateDamaged, StateDamaged)
	rewrite(t, repo, name, objects[name])
	for _, id := range ids[1:] {
		if _, err := Verify(t.Context(), repo, id, VerifyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	check("mended", StateComplete, StateProven, StateProven)
}

// Every byte of every member counts, for the newest: whichever is changed, verify
// refuses.
func TestChain_EveryFlippedByteIsFound(t *testing.T) {
	_, repo, ids := chainOfThree(t, 3)
	for name, data := range objectsOf(t, repo) {
		if name == headerName || name == bindingName {
			continue
		}
		for i := 0; i < len(data); i += 1 + len(data)/40 {
			data[i] ^= 1 << (i % 8)
			rewrite(t, repo, name, data)
			if err := verifyAgain(t, repo, ids[2]); !refused(err) {
				t.Fatalf("%s, byte %d: %v", name, i, err)
			}
			data[i] ^= 1 << (i % 8)
		}
		rewrite(t, repo, name, data)
	}
	if err := verifyAgain(t, repo, ids[2]); err != nil {
		t.Fatal(err)
	}
}

// craftIncrement writes an incremental on the full backup {1, 1} as craft does.
func craftIncrement(t *testing.T, repo *Repository, src *fakeSource, order [][]block.ID, spoil func(m *Manifest)) {
	t.Helper()
	base, err := repo.chain(t.Context(), BackupID{1, 1})
	if err != nil {
		t.Fatal(err)
	}
	craft(t, repo, src, BackupID{2, 1}, order, func(m *Manifest) {
		kept := *m
		*m = manifestOf(src.info, base)
		m.ID, m.Objects, m.StoredBytes, m.Groups, m.Compression = kept.ID, kept.Objects, kept.StoredBytes, kept.Groups, kept.Compression
		spoil(m)
	})
}

// A chain whose manifests, indexes and blocks agree is still none when the newest
// bitmap says otherwise, or when an increment holds what its base should have.
func TestCraftedChainsAreRefused(t *testing.T) {
	cases := map[string]struct {
		order [][]block.ID
		place block.ID
		want  string
	}{
		"nothing wrong":       {[][]block.ID{{3, 14}, {15}}, block.NoBlock, ""},
		"a block missing":     {[][]block.ID{{3, 14}}, 15, "it is missing"},
		"one that is free":    {[][]block.ID{{3, 14}, {15, 16}}, block.NoBlock, ""}, // and so not wanted
		"not above its base":  {[][]block.ID{{3, 14}, {15, 17}}, 17, "is not above the base's 100"},
		"a block twice":       {[][]block.ID{{3, 14}, {15}, {14}}, 14, "comes twice"},
		"without the bitmap":  {[][]block.ID{{14}}, block.NoBlock, ""}, // the old one counts: a state that never was, of sound blocks
		"from a fixed place":  {[][]block.ID{{3, 14}, {15, 4}}, block.NoBlock, ""},
		"the bitmap and more": {[][]block.ID{{3}}, 15, "it is missing"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			repo, src, rng := newRepo(t), newDense(), rand.New(rand.NewPCG(8, 8))
			craft(t, repo, src, BackupID{1, 1}, [][]block.ID{{2, 3}, {13, 14}}, says(4))
			src.info.LSN, src.info.HighWater, src.info.Base = 200, 18, 100
			src.order = append(src.order, 15, 17)
			src.putBitmap()
			for _, id := range []block.ID{4, 14, 15, 16, 17} {
				src.put(rng, id)
				src.reseal(id, 150)
			}
			src.reseal(3, 150)
			src.reseal(17, 100)
			blocks := 0
			for _, ids := range c.order {
				blocks += len(ids)
			}
			if c.place != 17 {
				src.order = src.order[:len(src.order)-1]
				src.putBitmap()
				src.reseal(3, 150)
			}
			craftIncrement(t, repo, src, c.order, func(m *Manifest) {
				m.Blocks, m.RawBytes = uint64(blocks), int64(blocks)*4096
				m.BlocksInUse = max(m.BlocksInUse, m.Blocks)
			})
			_, verified := Verify(t.Context(), repo, BackupID{2, 1}, VerifyOptions{})
			_, restored := Restore(t.Context(), repo, RestoreTarget{Backup: BackupID{2, 1}}, "/new", RestoreOptions{FS: repo.fs})
			for _, err := range []error{verified, restored} {
				var at *block.CorruptError
				if c.want == "" && err == nil {
					continue
				}
				if !errors.As(err, &at) || at.Block != c.place || !strings.Contains(at.Reason, c.want) {
					t.Error(err)
				}
			}
		})
	}
}

// reseal gives block id another LSN.
func (s *fakeSource) reseal(id block.ID, lsn block.LSN) {
	trailer, _ := block.Verify(s.images[id], id, block.SeedOf(s.info.Database))
	trailer.LSN = lsn
	block.Seal(s.images[id], trailer, block.SeedOf(s.info.Database))
}

// A set of blocks is what was put in and merged in.
func TestModel_BlockSetMerge(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 50 {
		sum, model := newBlockSet(), map[block.ID]bool{}
		for range 4 {
			part := newBlockSet()
			first, n := block.ID(rng.IntN(3*setPageBlocks)), rng.IntN(2*setPageBlocks)
			for i := range n {
				if id := first + block.ID(i); rng.IntN(20) > 0 || n > setPageBlocks {
					part.add(id)
					model[id] = true
				}
			}
			sum.merge(part)
		}
		if sum.count != uint64(len(model)) {
			t.Fatalf("%d blocks, want %d", sum.count, len(model))
		}
		for id := range block.ID(6 * setPageBlocks) {
			if sum.has(id) != model[id] {
				t.Fatalf("block %v: %v", id, sum.has(id))
			}
		}
		for id := range model {
			if sum.add(id) {
				t.Fatalf("block %v was added twice", id)
			}
		}
	}
}
