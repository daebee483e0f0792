package livebackup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// history is a database with a random past, beside a model of it: the texts of
// its blocks.
type history struct {
	t     *testing.T
	rng   *rand.Rand
	fs    vfs.FS
	dir   string
	store *mvcc.Store
	model map[block.ID]string
	kept  map[block.LSN]map[block.ID]string // the model at each LSN asked for
	ram   int64                             // 0: enough
	n     int
}

func newHistory(t *testing.T, rng *rand.Rand, fs vfs.FS, dir string) *history {
	h := &history{t: t, rng: rng, fs: fs, dir: dir, model: map[block.ID]string{}, kept: map[block.LSN]map[block.ID]string{}}
	h.open()
	t.Cleanup(func() { h.store.Close() })
	return h
}

func (h *history) open() {
	h.t.Helper()
	var err error
	ram := cmp.Or(h.ram, 16<<20)
	h.store, err = mvcc.Open(h.dir, mvcc.Options{FS: h.fs, MaxRAM: ram, LogBytesMax: mvcc.LogBytesMin, Temp: []mvcc.TempDir{}, OverflowMax: -1})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *history) reopen() {
	h.t.Helper()
	if err := h.store.Close(); err != nil {
		h.t.Fatal(err)
	}
	h.open()
}

// commit changes, makes and frees some blocks.
func (h *history) commit(alloc, edit, free int) block.LSN {
	h.t.Helper()
	tx, err := h.store.BeginWrite()
	if err != nil {
		h.t.Fatal(err)
	}
	h.n++
	write := func(b mvcc.Block, err error) {
		if err != nil {
			h.t.Fatal(err)
		}
		clear(b.Payload()[:64])
		text := fmt.Sprintf("block %v by commit %d", b.ID(), h.n)
		copy(b.Payload(), text)
		h.model[b.ID()] = text
		b.Release()
	}
	ids := slices.Sorted(maps.Keys(h.model))
	h.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	free = min(free, len(ids))
	for _, id := range ids[:free] {
		if err := tx.Free(id); err != nil {
			h.t.Fatal(err)
		}
		delete(h.model, id)
	}
	for _, id := range ids[free:min(len(ids), free+edit)] {
		write(tx.Edit(id))
	}
	for range alloc {
		write(tx.Alloc(block.TypeUser))
	}
	lsn, err := tx.Commit()
	if err != nil {
		h.t.Fatal(err)
	}
	return lsn
}

// backup makes a backup and keeps the model for it.
func (h *history) backup(repo *Repository, o BackupOptions) Manifest {
	h.t.Helper()
	m := mustBackup(h.t, NewSource(h.store), repo, o)
	h.kept[m.LSN] = maps.Clone(h.model)
	return m
}

// texts are the user's blocks among images.
func texts(images map[block.ID][]byte) map[block.ID]string {
	found := map[block.ID]string{}
	for id, image := range images {
		if text, _, ok := strings.Cut(string(image[:64]), "\x00"); ok && strings.HasPrefix(text, "block ") {
			found[id] = text
		}
	}
	return found
}

// wantState proves that backup m leads to the state that it is said to be: by
// replaying its chain, by reading it in place, by restoring it.
func (h *history) wantState(repo *Repository, m Manifest, target string) {
	h.t.Helper()
	want := h.kept[m.EndLSN]
	images := contents(h.t, repo, m.ID)
	if got := texts(images); !maps.Equal(got, want) {
		h.t.Fatalf("%s backup %v: %d blocks of ours, want %d", m.Kind, m.ID, len(got), len(want))
	}
	img, err := OpenBackup(h.t.Context(), repo, m.ID, ImageOptions{CacheBytes: 1 << 20})
	if err != nil {
		h.t.Fatal(err)
	}
	defer img.Close()
	dst := make([]byte, m.BlockSize)
	for id := range m.HighWater + 3 {
		err := img.ReadBlock(id, dst)
		switch image, there := images[id]; {
		case !there && errors.Is(err, mvcc.ErrNotInUse):
		case !there || err != nil || string(image) != string(dst):
			h.t.Fatalf("%s backup %v in place: block %v (in use: %v): %v", m.Kind, m.ID, id, there, err)
		}
	}
	if target == "" {
		return
	}
	if _, err := Restore(h.t.Context(), repo, RestoreTarget{Backup: m.ID}, target, RestoreOptions{FS: h.fs}); err != nil {
		h.t.Fatal(err)
	}
	wantDatabase(h.t, h.fs, target, want)
}

// wantDatabase proves that a database is sound and holds the texts.
func wantDatabase(t *testing.T, fs vfs.FS, dir string, want map[block.ID]string) {
	t.Helper()
	store, err := mvcc.Open(dir, mvcc.Options{FS: fs, MaxRAM: 16 << 20, Temp: []mvcc.TempDir{}})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	wantStore(t, store, want)
}

// wantStore is wantDatabase for a store that is open.
func wantStore(t *testing.T, store *mvcc.Store, want map[block.ID]string) {
	t.Helper()
	if check, err := store.Check(t.Context(), nil); err != nil || len(check.Problems) > 0 {
		t.Fatalf("%+v, %v", check, err)
	}
	wantTexts(t, store, want)
}

// wantTexts proves that a store holds the texts: in the blocks that are in use, since
// the places of others may hold what was once there.
func wantTexts(t *testing.T, store *mvcc.Store, want map[block.ID]string) {
	t.Helper()
	b, err := store.OpenBackup(t.Context(), mvcc.BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	images, size := map[block.ID][]byte{}, store.BlockSize()
	buf, ids := make([]byte, 16*size), make([]block.ID, 16)
	for err == nil {
		var n int
		n, err = b.Next(t.Context(), buf, ids)
		for i := range n {
			images[ids[i]] = slices.Clone(buf[i*size:][:64])
		}
	}
	if got := texts(images); err != io.EOF || !maps.Equal(got, want) {
		t.Fatalf("%s holds %d blocks of ours, want %d; %v", store.Dir(), len(got), len(want), err)
	}
}

// smallGroups make several groups and objects of few blocks.
func smallGroups(t BackupType) BackupOptions {
	return BackupOptions{Type: t, GroupBytes: 32 << 10, ObjectBytes: 200 << 10, ChainMax: 1000, Compression: CompressionNone}
}

// Random histories, random chains: every backup leads to the state that it was
// taken of, on every path; and so it does for the database that was restored from one
// of them, which goes on with incrementals on backups from before (L14, R18).
func TestModel_Incremental_EveryBackupIsItsState(t *testing.T) {
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		seed := chance.Seed(t)
		rng := rand.New(rand.NewPCG(seed, 1))
		fs := simfs.New()
		if err := makeDir(fs, "/d"); err != nil {
			t.Fatal(err)
		}
		h := newHistory(t, rng, fs, "/d/db0")
		repo := openRepo(t, fs, "/d/repo")
		h.commit(150+rng.IntN(300), 0, 0)
		var made []Manifest
		kinds := map[string]int{}
		step := func() {
			for range rng.IntN(4) {
				h.commit(rng.IntN(20), rng.IntN(30), rng.IntN(20))
			}
			o := smallGroups([]BackupType{TypeAuto, TypeAuto, TypeAuto, TypeFull}[rng.IntN(4)])
			if len(made) > 0 && rng.IntN(5) == 0 {
				base := made[rng.IntN(len(made))]
				if base.RecordSum != 0 { // of a restored database without a commit of its own it cannot be told (R18)
					o = smallGroups(TypeIncremental)
					o.Base = base.ID
				}
			}
			made = append(made, h.backup(repo, o))
			kinds[made[len(made)-1].Kind]++
			if rng.IntN(3) == 0 {
				h.reopen()
			}
		}
		for range 8 {
			step()
		}
		back := made[rng.IntN(len(made))] // to a new timeline, from some backup
		h.wantState(repo, back, "/d/db1")
		h.store.Close()
		h.dir, h.model, made = "/d/db1", maps.Clone(h.kept[back.LSN]), slices.DeleteFunc(made, func(m Manifest) bool { return m.LSN > back.LSN })
		h.open()
		for range 4 {
			step()
		}
		for i, m := range made {
			target := ""
			if i%3 == 0 {
				target = fmt.Sprintf("/d/new%d", i)
			}
			h.wantState(repo, m, target)
		}
		if kinds[KindIncremental] < 2 {
			t.Fatalf("no incrementals: %v", kinds)
		}
		if _, err := Verify(t.Context(), repo, BackupID{}, VerifyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// What auto makes of it: a full backup first, incrementals on the newest, and a full
// one again when the chain is long or heavy.
func TestIncremental_AutoChooses(t *testing.T) {
	fs := simfs.New()
	h := newHistory(t, rand.New(rand.NewPCG(1, 1)), fs, "/db")
	repo := openRepo(t, fs, "/repo")
	h.commit(300, 0, 0)
	o := smallGroups(TypeAuto)
	o.ChainMax = 3
	take := func(o BackupOptions) Result {
		t.Helper()
		res, err := Backup(t.Context(), NewSource(h.store), repo, o)
		if err != nil {
			t.Fatal(err)
		}
		if (res.WhyFull == nil) != (res.Manifest.Kind == KindIncremental) {
			t.Fatalf("a %s backup, because %v", res.Manifest.Kind, res.WhyFull)
		}
		return res
	}
	want := func(res Result, kind string, why string) Manifest {
		t.Helper()
		if res.Manifest.Kind != kind || res.WhyFull != nil && !strings.Contains(res.WhyFull.Error(), why) {
			t.Fatalf("a %s backup, because %v", res.Manifest.Kind, res.WhyFull)
		}
		return res.Manifest
	}
	last := want(take(o), KindFull, "no backup")
	for range 3 {
		h.commit(2, 2, 1)
		m := want(take(o), KindIncremental, "")
		if m.Base != last.ID || m.BaseLSN != last.LSN || m.Blocks > 40 || m.Audit.Compared < auditMin/2 || m.BlocksInUse < 300 {
			t.Fatalf("%+v", m)
		}
		last = m
	}
	h.commit(2, 2, 1)
	want(take(o), KindFull, "there are 3 incrementals")
	m := want(take(o), KindIncremental, "") // of nothing
	if m.Blocks != 0 || m.LSN != m.BaseLSN || len(m.Objects) != 0 {
		t.Fatalf("%+v", m)
	}
	h.wantEmpty(repo, m)
	h.commit(0, 250, 0)
	want(take(o), KindIncremental, "")
	want(take(o), KindFull, " % of its size")
}

// wantEmpty proves that an incremental of nothing leads to its base's state.
func (h *history) wantEmpty(repo *Repository, m Manifest) {
	h.t.Helper()
	sameImages(h.t, contents(h.t, repo, m.ID), contents(h.t, repo, m.Base))
	if _, err := Verify(h.t.Context(), repo, m.ID, VerifyOptions{}); err != nil {
		h.t.Fatal(err)
	}
}

// Who asks for an incremental gets one, or hears why not.
func TestIncremental_NoBaseSaysWhy(t *testing.T) {
	fs := simfs.New()
	h := newHistory(t, rand.New(rand.NewPCG(2, 1)), fs, "/db")
	repo := openRepo(t, fs, "/repo")
	h.commit(100, 0, 0)
	refuse := func(o BackupOptions, why string) {
		t.Helper()
		_, err := Backup(t.Context(), NewSource(h.store), repo, o)
		if !errors.Is(err, ErrNoBase) || !strings.Contains(err.Error(), why) {
			t.Fatal(err)
		}
	}
	o := smallGroups(TypeIncremental)
	refuse(o, "the repository has no backup")
	first := h.backup(repo, smallGroups(TypeFull))
	h.commit(1, 1, 1)
	o.Base = newBackupID(7)
	refuse(o, "backup not found")
	o.Base = first.ID
	h.commit(1, 1, 1)
	second := h.backup(repo, BackupOptions{Base: first.ID, Type: TypeAuto}) // naming one asks for it
	if second.Kind != KindIncremental || second.Base != first.ID {
		t.Fatalf("%+v", second)
	}
	name := objectName(first.ID, kindBlocks, 1)
	data := objectsOf(t, repo)[name]
	remove(t, repo, name)
	refuse(o, "listed as damaged")
	o.Base = BackupID{}
	refuse(o, "listed as damaged")
	rewrite(t, repo, name, data)
	h.backup(repo, o)
	for _, bad := range []BackupOptions{{Type: "partial"}, {Type: TypeFull, Base: first.ID}, {ChainMax: -1}} {
		if err := bad.Validate(); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A source answers for what its map knows; auto takes what it can get.
func TestR16_BaseBelowTheMapIsRefused(t *testing.T) {
	fs := simfs.New()
	h := newHistory(t, rand.New(rand.NewPCG(3, 1)), fs, "/db")
	repo := openRepo(t, fs, "/repo")
	h.commit(100, 0, 0)
	var made []Manifest
	for range 4 {
		h.commit(1, 1, 1)
		made = append(made, h.backup(repo, smallGroups(TypeFull)))
	}
	src := &baseless{Source: NewSource(h.store), floor: made[3].LSN}
	o := smallGroups(TypeAuto)
	if m := mustBackup(t, src, repo, o); m.Base != made[3].ID {
		t.Fatalf("%+v", m)
	}
	h.commit(1, 1, 1)
	src.floor, src.opened = h.commit(1, 1, 1), 0
	res, err := Backup(t.Context(), src, repo, o)
	if err != nil || res.Manifest.Kind != KindFull || !errors.Is(res.WhyFull, mvcc.ErrBase) {
		t.Fatalf("%+v, %v", res, err)
	}
	if src.opened != 2 {
		t.Fatalf("%d snapshots were opened", src.opened)
	}
	o.Type, src.floor = TypeIncremental, h.commit(1, 1, 1)
	if _, err := Backup(t.Context(), src, repo, o); !errors.Is(err, ErrNoBase) || !errors.Is(err, mvcc.ErrBase) {
		t.Fatal(err)
	}
	src.floor, src.ignores = 0, true // a process of before there were incrementals
	if _, err := Backup(t.Context(), src, repo, o); !errors.Is(err, ErrNoBase) {
		t.Fatal(err)
	}
	o.Type = TypeAuto
	if m := mustBackup(t, src, repo, o); m.Kind != KindFull {
		t.Fatalf("%+v", m)
	}
	if n := len(h.store.Status().Snapshots); n != 0 {
		t.Fatalf("%d snapshots left open", n)
	}
}

// baseless is a source whose map begins at a floor, or who knows of none.
type baseless struct {
	Source
	floor   block.LSN
	ignores bool
	opened  int
}

func (s *baseless) Open(ctx context.Context, o SessionOptions) (Session, error) {
	s.opened++
	if o.Base != 0 && o.Base < s.floor {
		return nil, fmt.Errorf("open: %w", mvcc.ErrBase)
	}
	if s.ignores {
		o.Base, o.AuditBlocks = 0, 0
	}
	return s.Source.Open(ctx, o)
}

// What was restored from an abandoned future is no base; what lies before the fork
// is (R18).
func TestR18_BaseOfTheOwnHistoryOnly(t *testing.T) {
	fs := simfs.New()
	if err := makeDir(fs, "/d"); err != nil {
		t.Fatal(err)
	}
	h := newHistory(t, rand.New(rand.NewPCG(4, 1)), fs, "/d/db")
	repo := openRepo(t, fs, "/d/repo")
	h.commit(200, 0, 0)
	first := h.backup(repo, smallGroups(TypeFull))
	h.commit(5, 5, 5)
	second := h.backup(repo, smallGroups(TypeIncremental))
	before := maps.Clone(h.kept[second.LSN])
	h.commit(5, 5, 5)
	lost := h.backup(repo, smallGroups(TypeFull)) // the newest of all, and of the future that is abandoned
	if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: second.ID}, "/d/new", RestoreOptions{FS: fs}); err != nil {
		t.Fatal(err)
	}
	h.store.Close()
	h.dir, h.model = "/d/new", before
	h.open()
	h.commit(3, 3, 3)
	m := h.backup(repo, smallGroups(TypeAuto))
	if m.Base != second.ID || len(m.History) != 1 || m.History[0].LSN != second.LSN {
		t.Fatalf("base is %v, history %v; first %v, second %v, lost %v", m.Base, m.History, first.ID, second.ID, lost.ID)
	}
	for range 4 { // past the LSN of the lost one
		h.commit(3, 3, 3)
	}
	next := h.backup(repo, smallGroups(TypeAuto))
	if next.Base != m.ID || next.LSN <= lost.LSN {
		t.Fatalf("base is %v, LSN %v", next.Base, next.LSN)
	}
	h.wantState(repo, m, "")
	h.wantState(repo, next, "/d/again")
	o := smallGroups(TypeIncremental)
	o.Base = lost.ID
	if _, err := Backup(t.Context(), NewSource(h.store), repo, o); !errors.Is(err, ErrNoBase) {
		t.Fatal(err)
	}
}

// tampered hands out one of the blocks to be audited other than the base has it, as a
// database would whose map has missed a change or whose disk has rotted.
type tampered struct {
	Source
	behind bool // the database finds it by itself
	audits int
}

func (s *tampered) Open(ctx context.Context, o SessionOptions) (Session, error) {
	session, err := s.Source.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return &tamperedSession{Session: session, s: s}, nil
}

type tamperedSession struct {
	Session
	s *tampered
}

func (s *tamperedSession) Next(ctx context.Context, buf []byte, ids []block.ID) (int, error) {
	n, err := s.Session.Next(ctx, buf, ids)
	info := s.Info()
	seed := block.SeedOf(info.Database)
	for i := range n {
		image := buf[i*info.BlockSize:][:info.BlockSize]
		if trailer, _ := block.Verify(image, ids[i], seed); info.Base > 0 && trailer.LSN <= info.Base {
			if s.s.audits++; s.s.audits == 3 && s.s.behind {
				return 0, fmt.Errorf("next: %w", mvcc.ErrMapBehind)
			} else if s.s.audits == 3 {
				image[1000] ^= 1
				block.Seal(image, trailer, seed)
			}
		}
	}
	return n, err
}

// A difference between what did not change and the base is loud, and makes a full
// backup of an auto one.
func TestIncremental_AuditMismatchMakesAFull(t *testing.T) {
	fs := simfs.New()
	h := newHistory(t, rand.New(rand.NewPCG(5, 1)), fs, "/db")
	repo := openRepo(t, fs, "/repo")
	h.commit(300, 0, 0)
	h.backup(repo, smallGroups(TypeFull))
	h.commit(3, 3, 3)
	before := names(t, fs)
	for _, behind := range []bool{false, true} {
		src := &tampered{Source: NewSource(h.store), behind: behind}
		if _, err := Backup(t.Context(), src, repo, smallGroups(TypeIncremental)); !errors.Is(err, ErrAuditMismatch) {
			t.Fatal(err)
		}
		if now := names(t, fs); !slices.Equal(now, before) {
			t.Fatalf("left %v, had %v", now, before)
		}
	}
	var log strings.Builder
	o := smallGroups(TypeAuto)
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	res, err := Backup(t.Context(), &tampered{Source: NewSource(h.store)}, repo, o)
	if err != nil || res.Manifest.Kind != KindFull || !errors.Is(res.WhyFull, ErrAuditMismatch) {
		t.Fatalf("%+v, %v", res, err)
	}
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), ErrAuditMismatch.Error()) {
		t.Fatalf("logged: %s", log.String())
	}
	if len(mustList(t, repo)) != 2 || len(h.store.Status().Snapshots) != 0 {
		t.Fatal("more is left than two backups")
	}
}

// A base that rotted since it was listed is found by the audit, if it looks there: at
// whole groups that are compressed, and at the blocks themselves of others.
func TestIncremental_AuditFindsADamagedBase(t *testing.T) {
	for _, how := range []Compression{CompressionFastest, CompressionNone} {
		fs := simfs.New()
		h := newHistory(t, rand.New(rand.NewPCG(6, 1)), fs, "/db")
		repo := openRepo(t, fs, "/repo")
		h.commit(60, 0, 0)
		o := smallGroups(TypeFull)
		o.GroupBytes, o.Compression = 1<<20, how // one group
		first := h.backup(repo, o)
		name := objectName(first.ID, kindBlocks, 1)
		data := objectsOf(t, repo)[name]
		if how == CompressionNone {
			for at := objectHeaderSize + groupHeaderSize + 2000; at < len(data); at += first.BlockSize {
				data[at] ^= 1
			}
			rewrite(t, repo, name, data)
		} else {
			rewrite(t, repo, name, flipped(data, len(data)/2))
		}
		h.commit(1, 1, 1)
		if _, err := Backup(t.Context(), NewSource(h.store), repo, smallGroups(TypeIncremental)); !errors.Is(err, ErrNoBase) || !errors.Is(err, block.ErrCorrupt) {
			t.Fatal(err)
		}
		res, err := Backup(t.Context(), NewSource(h.store), repo, smallGroups(TypeAuto))
		if err != nil || res.Manifest.Kind != KindFull || !errors.Is(res.WhyFull, ErrNoBase) {
			t.Fatalf("%+v, %v", res, err)
		}
	}
}
