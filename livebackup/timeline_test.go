package livebackup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// copyOf is one copy of a database: a source with a history, of which it knows what
// a store does: the sums of the newest commits, and the heads that it remembers.
type copyOf struct {
	*fakeSource
	sums     []uint32 // by LSN: its whole history, which no store has
	window   int      // how many of the newest commits its log holds
	now, was mvcc.Head
	seen     bool // the repository was seen to have now

	onRemember func() // may be nil
}

const firstLSN = 100

func newCopy(rng *rand.Rand, seed uint64) *copyOf {
	c := &copyOf{fakeSource: newFake(seed, 2, 4<<10), sums: make([]uint32, firstLSN+1), window: 3}
	c.info.Timeline = block.NewTimelineID()
	for i := range c.sums {
		c.sums[i] = rng.Uint32() | 1
	}
	c.describe()
	return c
}

func (c *copyOf) describe() {
	c.info.LSN = block.LSN(len(c.sums) - 1)
	c.info.RecordSum = c.sums[c.info.LSN]
}

func (c *copyOf) commit(rng *rand.Rand) {
	c.sums = append(c.sums, rng.Uint32()|1)
	c.describe()
}

// clone copies the directory.
func (c *copyOf) clone() *copyOf {
	d := *c
	fake := fakeSource{info: c.info, images: c.images, order: c.order}
	d.fakeSource, d.sums = &fake, slices.Clone(c.sums)
	return &d
}

// fork goes on from the newest head that a repository was seen to have: what both
// copies have, if there are two.
func (c *copyOf) fork() {
	at := c.was
	if c.seen {
		at = c.now
	}
	c.info.History = append([]block.Fork{{Timeline: c.info.Timeline, LSN: at.LSN}}, c.info.History...)
	c.info.Timeline = block.NewTimelineID()
}

// restored is the database that m restores to; sums are its commits.
func restored(m *Manifest, sums []uint32, from *copyOf) *copyOf {
	c := from.clone()
	c.sums, c.now, c.was, c.seen = slices.Clone(sums), mvcc.Head{}, mvcc.Head{}, false
	c.info.History = append([]block.Fork{{Timeline: m.Timeline, LSN: m.EndLSN}}, m.History...)
	c.info.Timeline = block.NewTimelineID()
	c.describe()
	return c
}

func (c *copyOf) CheckHead(_ context.Context, _ RepositoryID, h mvcc.Head) error {
	if inLog := int(h.LSN) > len(c.sums)-1-c.window; inLog && int(h.LSN) < len(c.sums) {
		if c.sums[h.LSN] != h.Sum {
			return mvcc.ErrHistory
		}
	} else if h != c.now && h != c.was {
		return mvcc.ErrHistory
	}
	c.seen = c.seen || h == c.now
	return nil
}

func (c *copyOf) RememberHead(_ context.Context, _ RepositoryID, h mvcc.Head) error {
	if c.seen {
		c.was = c.now
	}
	c.now, c.seen = h, false
	if c.onRemember != nil {
		c.onRemember()
	}
	return nil
}

// owns reports whether the state of m is one of c's own history, by what no
// repository knows.
func (c *copyOf) owns(m *Manifest) bool {
	return int(m.EndLSN) < len(c.sums) && c.sums[m.EndLSN] == m.RecordSum
}

// world is a repository with everybody who pushes to it.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	repo   *Repository
	copies []*copyOf
	states map[BackupID][]uint32 // what led to each backup
	last   *copyOf               // who pushed last
	now    block.TimelineID      // of the newest backup
	left   map[block.TimelineID]bool
}

func (w *world) any() *copyOf { return w.copies[w.rng.IntN(len(w.copies))] }

func (w *world) backup(c *copyOf) {
	res, err := Backup(w.t.Context(), c, w.repo, BackupOptions{})
	m := res.Manifest
	switch {
	case err == nil:
		w.states[m.ID], w.last = slices.Clone(c.sums), c
		if w.left[m.Timeline] {
			w.t.Fatalf("%v was let in again, behind backups of %v", m.Timeline, w.now)
		}
		if m.Timeline != w.now {
			w.left[w.now], w.now = true, m.Timeline
		}
		w.presentIsOf(c)
	case errors.Is(err, ErrTimelineAbandoned), errors.Is(err, mvcc.ErrHistory), errors.Is(err, ErrRepositoryAhead):
		// Who pushed last, and went on with what it had then, is never refused.
		if c == w.last {
			w.t.Fatalf("refused, though nobody else pushed: %v", err)
		}
		if w.rng.IntN(2) == 0 {
			c.fork()
		}
	default:
		w.t.Fatal(err)
	}
}

// presentIsOf proves that what the repository holds to be of the present is what
// the database that has just pushed has in its history, and no other backup.
func (w *world) presentIsOf(c *copyOf) {
	for _, e := range mustList(w.t, w.repo) {
		m := &e.Manifest
		enabled := e.Disabled == ""
		if enabled && !c.owns(m) {
			w.t.Fatalf("%v at LSN %v of %v counts, and is another history than that of %v", e.ID, m.EndLSN, m.Timeline, c.info.Timeline)
		}
		if lineageOf(c.info.Timeline, c.info.History).usable(m) && !c.owns(m) {
			w.t.Fatalf("%v is held to be a base, and is of another history", e.ID)
		}
		if m.Timeline == c.info.Timeline && !enabled {
			w.t.Fatalf("%v of the present timeline is disabled: %s", e.ID, e.Disabled)
		}
	}
}

func (w *world) step() {
	c := w.any()
	switch n := w.rng.IntN(21); {
	case n == 20:
		damageRecord(w.t, w.rng, w.repo)
	case n < 8:
		for range w.rng.IntN(6) {
			c.commit(w.rng)
		}
	case n < 15:
		w.backup(c)
	case n < 16:
		w.giveUp(c)
	case n < 17:
		w.copies = append(w.copies, c.clone())
	case n < 19:
		w.restore(c)
	default:
		c.fork()
	}
	if len(w.copies) > 4 {
		i := w.rng.IntN(len(w.copies))
		w.copies = slices.Delete(w.copies, i, i+1)
	}
}

// giveUp is a push that came to nothing after it was remembered.
func (w *world) giveUp(c *copyOf) {
	h, err := w.repo.heads(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if w.repo.enter(w.t.Context(), c, h, c.info) != nil {
		return
	}
	if err := c.RememberHead(w.t.Context(), w.repo.id, mvcc.Head{LSN: c.info.LSN, Sum: c.info.RecordSum}); err != nil {
		w.t.Fatal(err)
	}
	w.last = c // the timeline may have attached
}

// restore adds what a random backup restores to, a disabled one too.
func (w *world) restore(c *copyOf) {
	list := mustList(w.t, w.repo)
	if len(list) == 0 {
		return
	}
	e := list[w.rng.IntN(len(list))]
	w.copies = append(w.copies, restored(&e.Manifest, w.states[e.ID], c))
}

// Copies, restores and forks of one database push to one repository in any order:
// what counts there is always the history of who pushed last, nobody's base is
// another's, and who is alone is never refused.
func TestModel_L14_R18_WhoPushesIsThePresent(t *testing.T) {
	seed := chance.Seed(t)
	worlds := 12
	if testing.Short() {
		worlds = 5
	}
	for n := range worlds {
		rng := rand.New(rand.NewPCG(seed, uint64(n)))
		w := &world{t: t, rng: rng, repo: newRepo(t), copies: []*copyOf{newCopy(rng, 1)}, states: map[BackupID][]uint32{}, left: map[block.TimelineID]bool{}}
		for range 60 {
			w.step()
		}
	}
}

func forkOf(i mvcc.BackupInfo, name byte, at block.LSN) mvcc.BackupInfo {
	i.History = append([]block.Fork{{Timeline: i.Timeline, LSN: at}}, i.History...)
	i.Timeline = block.TimelineID{name}
	i.LSN = max(i.LSN, at)
	return i
}

// Each row of the table in timeline.go.
func TestR18_WhatAPushGets(t *testing.T) {
	root := newFake(1, 2, 4<<10).info
	older := forkOf(root, 0xa1, 50)
	now := forkOf(root, 0xa2, 80)
	stranger := root
	stranger.Timeline = block.TimelineID{0xff}
	cases := []struct {
		name   string
		before []mvcc.BackupInfo // that attached
		push   mvcc.BackupInfo
		want   error
		number uint32 // of the newest record, afterwards
	}{
		{"nothing is known", nil, root, nil, 1},
		{"nothing is known, a fork", nil, now, nil, 1},
		{"the present one", []mvcc.BackupInfo{root, older}, older, nil, 2},
		{"forked from the present one", []mvcc.BackupInfo{root}, now, nil, 2},
		{"two restores of one backup", []mvcc.BackupInfo{root, older}, now, nil, 3},
		{"the first of two restores", []mvcc.BackupInfo{root, older, now}, older, ErrTimelineAbandoned, 3},
		{"and its fork", []mvcc.BackupInfo{root, older, now}, forkOf(older, 0xa3, 60), nil, 4},
		{"the original of a restore", []mvcc.BackupInfo{root, now}, root, ErrTimelineAbandoned, 2},
		{"an original that never pushed", []mvcc.BackupInfo{now}, root, ErrTimelineAbandoned, 1},
		{"and its fork", []mvcc.BackupInfo{now}, forkOf(root, 0xa4, 90), nil, 2},
		{"a stranger", []mvcc.BackupInfo{root}, stranger, ErrForeignTimeline, 1},
		{"a stranger's fork", []mvcc.BackupInfo{root, now}, forkOf(stranger, 0xfe, 10), ErrForeignTimeline, 2},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			repo := newRepo(t)
			for _, i := range c.before {
				if err := repo.attach(t.Context(), i); err != nil {
					t.Fatal(err)
				}
			}
			if err := repo.attach(t.Context(), c.push); !errors.Is(err, c.want) || err == nil != (c.want == nil) {
				t.Fatal(err)
			}
			list, err := Timelines(t.Context(), repo)
			if err != nil || uint32(len(list)) != c.number {
				t.Fatalf("%+v, %v", list, err)
			}
			if last := list[len(list)-1]; !last.Present || c.want == nil && last.Timeline != c.push.Timeline {
				t.Fatalf("%+v", list)
			}
		})
	}
}

// Two timelines that attach at once both do, one after the other.
func TestR18_TwoAttachAtOnce(t *testing.T) {
	root := newFake(1, 2, 4<<10).info
	repo := newRepo(t)
	if err := repo.attach(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	const n = 8
	for i := range n {
		go func() { errs <- repo.attach(t.Context(), forkOf(root, byte(i+1), 50)) }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if list, err := Timelines(t.Context(), repo); err != nil || len(list) != n+1 {
		t.Fatalf("%+v, %v", list, err)
	}
}

// Two copies that back up at the same time, each with nothing new of the other in
// sight: not both backups stay (R18, see heads).
func TestR18_RivalsFindEachOther(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, late := range []bool{false, true} {
		repo := newRepo(t)
		one := newCopy(rng, 1)
		mustBackup(t, one, repo, BackupOptions{Type: TypeFull})
		other := one.clone()
		one.commit(rng)
		other.commit(rng)
		push := func() {
			one.onRemember, one.onNext = nil, nil
			mustBackup(t, other, repo, BackupOptions{Type: TypeFull})
		}
		if late { // one has looked for the last time before it publishes
			one.onRemember = push
		} else {
			one.onNext = func(int) error { push(); return nil }
		}
		if _, err := Backup(t.Context(), one, repo, BackupOptions{Type: TypeFull}); !errors.Is(err, mvcc.ErrHistory) {
			t.Fatal(err)
		}
		if list := mustList(t, repo); len(list) != 2 || !other.owns(&list[1].Manifest) {
			t.Fatalf("%+v", list)
		}
		for range 5 {
			other.commit(rng)
		}
		mustBackup(t, other, repo, BackupOptions{Type: TypeFull})
	}
}

// A repository from before there were records: what its manifests say.
func TestR18_RegistryFromManifests(t *testing.T) {
	src, repo := newFake(1, 2, 4<<10), newRepo(t)
	root := src.info
	mustBackup(t, src, repo, BackupOptions{})
	src.info = forkOf(root, 0xa1, 100)
	mustBackup(t, src, repo, BackupOptions{})
	remove(t, repo, timelineName(1))
	remove(t, repo, timelineName(2))
	if list := mustList(t, repo); list[0].Disabled != "" || list[1].Disabled != "" {
		t.Fatalf("%+v", list)
	}
	src.info = root
	if _, err := Backup(t.Context(), src, repo, BackupOptions{}); !errors.Is(err, ErrTimelineAbandoned) {
		t.Fatal(err)
	}
	src.info = forkOf(root, 0xa2, 50) // an older state was restored
	mustBackup(t, src, repo, BackupOptions{})
	list := mustList(t, repo)
	if list[0].State() != StateDisabled || list[1].State() != StateDisabled || list[2].State() != StateComplete {
		t.Fatalf("%+v", list)
	}
	if !strings.Contains(list[0].Disabled, "was left at LSN 50") {
		t.Fatal(list[0].Disabled)
	}
}

// Where nothing says what led to the present timeline, nothing is disabled.
func TestR18_OldRepositoryOfTwoTimelines(t *testing.T) {
	src, repo := newFake(1, 2, 4<<10), newRepo(t)
	mustBackup(t, src, repo, BackupOptions{})
	src.info = forkOf(src.info, 0xa1, 100)
	src.info.History = nil // as restores were, before histories
	remove(t, repo, timelineName(1))
	craft(t, repo, src, BackupID{2, 1}, [][]block.ID{{2, 3}}, says(2))
	for _, e := range mustList(t, repo) {
		if e.Disabled != "" {
			t.Fatal(e.Disabled)
		}
	}
}

// Records are passed over where they are damaged, and the present timeline gets
// another one; where they cannot be read, nobody pushes.
func TestR18_DamagedRegistry(t *testing.T) {
	fs := simfs.New()
	src, repo := newFake(1, 2, 4<<10), openRepo(t, fs, "/repo")
	mustBackup(t, src, repo, BackupOptions{})
	root := src.info
	src.info = forkOf(root, 0xa1, 80)
	mustBackup(t, src, repo, BackupOptions{})
	name := timelineName(2)
	data, err := readSmall(t.Context(), repo.objects, name, smallBytesMax)
	if err != nil {
		t.Fatal(err)
	}
	for at := range data {
		rewrite(t, repo, name, flipped(data, at))
		if list := mustList(t, repo); list[0].State() != StateDisabled || list[1].State() != StateComplete {
			t.Fatalf("byte %d: %+v", at, list)
		}
	}
	unreadable := fs.Fail(simfs.Fault{Ops: simfs.OpRead, File: name, Sticky: true})
	if _, err := Backup(t.Context(), src, repo, BackupOptions{}); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if n := len(mustList(t, repo)); n != 2 {
		t.Fatalf("%d listed", n)
	}
	unreadable.Disarm()
	mustBackup(t, src, repo, BackupOptions{})
	if list, err := Timelines(t.Context(), repo); err != nil || len(list) != 2 || list[1].Timeline != src.info.Timeline {
		t.Fatalf("%+v, %v", list, err)
	}
	src.info = root
	if _, err := Backup(t.Context(), src, repo, BackupOptions{}); !errors.Is(err, ErrTimelineAbandoned) {
		t.Fatal(err)
	}
}

// The newest backup is the newest that is not disabled; a disabled one is restored
// by its id, and by nothing else (S4-19, S4-21).
func TestL14_DisabledIsRestoredByName(t *testing.T) {
	src, repo := newFake(1, 30, 4<<10), newRepo(t)
	root := src.info
	first := mustBackup(t, src, repo, BackupOptions{})
	src.info.LSN = 150
	second := mustBackup(t, src, repo, BackupOptions{})
	src.info = forkOf(root, 0xa1, 100)
	if err := repo.attach(t.Context(), src.info); err != nil {
		t.Fatal(err)
	}
	if m, err := repo.chain(t.Context(), BackupID{}); err != nil || m[0].ID != first.ID {
		t.Fatalf("%v, %v", m, err)
	}
	for i, id := range []BackupID{second.ID, {}} {
		target := fmt.Sprintf("/new%d", i)
		res, err := Restore(t.Context(), repo, RestoreTarget{Backup: id}, target, RestoreOptions{FS: repo.fs})
		if want := []BackupID{second.ID, first.ID}[i]; err != nil || res.Manifest.ID != want {
			t.Fatalf("%v, %v", res.Manifest.ID, err)
		}
	}
	if _, err := Verify(t.Context(), repo, second.ID, VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	if list := mustList(t, repo); list[1].State() != StateDisabled || list[1].Proof == nil {
		t.Fatalf("%+v", list[1])
	}
	src.info = forkOf(src.info, 0xa2, 100) // of what the disabled one restores to
	src.info.History = []block.Fork{{Timeline: root.Timeline, LSN: 150}}
	if err := repo.attach(t.Context(), src.info); err != nil {
		t.Fatal(err)
	}
	if list := mustList(t, repo); list[1].State() != StateProven {
		t.Fatalf("%+v", list[1])
	}
}
