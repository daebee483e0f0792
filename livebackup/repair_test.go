package livebackup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// spoiltRun is a history in a repository, with a database to be damaged.
type spoiltRun struct {
	*archived
	old []byte // the data file some time ago
}

// file is what is in the data file.
func (d *spoiltRun) file() []byte {
	b, err := d.fs.(*simfs.FS).Bytes(d.dir + "/data")
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

// patch writes to the data file behind the store's back.
func (d *spoiltRun) patch(off int64, b []byte) {
	d.t.Helper()
	f, err := d.fs.OpenFile(d.dir+"/data", os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(b, off)
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// spoil damages the place of a block; stale if no check can see it.
func (d *spoiltRun) spoil(id block.ID) (stale bool) {
	all, size := d.file(), int64(d.store.BlockSize())
	at := int64(id) * size
	now := slices.Clone(all[at : at+size])
	switch d.rng.IntN(5) {
	case 0:
		now[d.rng.IntN(len(now))] ^= 1 << d.rng.IntN(8)
	case 1:
		clear(now)
	case 2:
		copy(now, all[2*size:]) // the meta block
		if id == 2 {
			copy(now, all[3*size:])
		}
	case 3:
		clear(now[d.rng.IntN(len(now)/2):])
	default:
		if old := d.old[min(at, int64(len(d.old))):]; int64(len(old)) < size || bytes.Equal(old[:size], now) || lsnOf(old[:size]) == 0 {
			clear(now)
		} else {
			copy(now, old[:size])
			stale = true
		}
	}
	d.patch(at, now)
	return stale
}

func lsnOf(image []byte) block.LSN {
	return block.LSN(binary.LittleEndian.Uint64(image[len(image)-8:]))
}

// churn makes commits that fill the log, so that old log is used again.
func (d *spoiltRun) churn(n int) {
	for range n {
		tx, err := d.store.BeginWrite()
		if err != nil {
			d.t.Fatal(err)
		}
		ids := slices.Sorted(maps.Keys(d.model))
		for range 8 {
			b, err := tx.Edit(ids[d.rng.IntN(len(ids))])
			if err != nil {
				d.t.Fatal(err)
			}
			p := b.Payload()[256:]
			for i := 0; i < len(p); i += 8 {
				binary.LittleEndian.PutUint64(p[i&^7:][:8:8], d.rng.Uint64())
				if len(p)-i < 16 {
					break
				}
			}
			b.Release()
		}
		lsn, err := tx.Commit()
		if err != nil {
			d.t.Fatal(err)
		}
		d.kept[lsn] = maps.Clone(d.model)
	}
}

// rest brings the file to rest: everything is in place.
func (d *spoiltRun) rest() {
	q, err := d.store.Quiesce()
	if err != nil {
		d.t.Fatal(err)
	}
	q.Release()
}

// push archives what is new, as an archive does: the store remembers it.
func (d *spoiltRun) push() LogObject {
	o := d.archive()
	sum, err := d.tail.Sum(o.To)
	if err == nil {
		err = d.store.RememberHead([16]byte(d.repo.id), mvcc.Head{LSN: o.To, Sum: sum})
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return o
}

// newDamaged makes a history of backups and log, whose database has only the end of
// its log, and brings the file to rest.
func newDamaged(t *testing.T, seed uint64) *spoiltRun {
	d := &spoiltRun{archived: newArchived(t, seed)}
	d.commit(150, 0, 0)
	d.change(3)
	d.full()
	d.rest()
	d.old = d.file()
	for i := range 3 {
		d.change(3)
		d.churn(12)
		d.tail.Done(d.push().To)
		d.rest()
		if i < 2 && d.rng.IntN(3) == 0 {
			d.incremental()
		}
	}
	d.change(2)
	d.tail.Close()
	d.reopen()
	d.rest()
	tail, err := d.store.OpenLogTail("probe", d.from)
	if errors.Is(err, mvcc.ErrLogGone) { // a segment ended just there: nobody has the last commits
		d.store.Close()
		return newDamaged(t, seed+1)
	}
	if err != nil {
		t.Fatal(err)
	}
	tail.Close()
	return d
}

// blocks picks some blocks that are in use, among them meta block and bitmap.
func (d *spoiltRun) blocks(n int) (ids []block.ID) {
	ids = append(slices.Sorted(maps.Keys(d.model)), 2, 3)
	d.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	return ids[:n]
}

// versioned is the data file without what is in no version.
func (d *spoiltRun) versioned() []byte {
	b, size := d.file(), d.store.BlockSize()
	clear(b[:2*size])
	clear(b[4*size : 13*size])
	return b
}

// repairNamed repairs blocks that no check finds, and what they hid.
func (d *spoiltRun) repairNamed(src Source, named []block.ID) []RepairedBlock {
	d.t.Helper()
	if len(named) == 0 {
		return nil
	}
	more, err := Repair(d.t.Context(), src, d.repo, RepairOptions{Blocks: named})
	if err != nil || more.Failed() > 0 || len(more.Blocks) != len(named) {
		d.t.Fatalf("%+v, %v", more, err)
	}
	hid, err := Repair(d.t.Context(), src, d.repo, RepairOptions{}) // if the bitmap was an old one
	if err != nil || hid.Failed() > 0 || len(hid.Blocks) > 0 && !slices.Contains(named, 3) {
		d.t.Fatalf("%+v, %v", hid, err)
	}
	return append(more.Blocks, hid.Blocks...)
}

// Random histories of backups and archived log; random damage of every kind in random
// blocks, of a store in this process or behind the socket: repaired, the file is what it
// was, byte for byte. What a dry run says is what is done, and it does nothing.
func TestModel_Repair(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	from := map[mvcc.RepairState]int{}
	rolled := 0
	for round := range rounds {
		seed := chance.Seed(t)
		d := newDamaged(t, seed)
		var src Source = NewSource(d.store)
		if round%2 == 0 {
			src = served(t, NewSource(d.store), ServeOptions{})
		}
		want, named := d.versioned(), []block.ID(nil)
		ids := d.blocks(10)
		for _, id := range ids {
			if d.spoil(id) {
				named = append(named, id)
			}
		}
		spoilt := d.file()
		dry, err := Repair(t.Context(), src, d.repo, RepairOptions{DryRun: true})
		if err != nil || dry.Failed() > 0 {
			t.Fatalf("%+v, %v", dry, err)
		}
		if !bytes.Equal(spoilt, d.file()) {
			t.Fatal("a dry run has written")
		}
		res, err := Repair(t.Context(), src, d.repo, RepairOptions{})
		if err != nil || res.Failed() > 0 || len(res.Check.Problems) > 0 {
			t.Fatalf("%+v, %v", res, err)
		}
		for i, b := range dry.Blocks {
			if got := res.Blocks[i]; got.Block != b.Block || got.State != b.State || got.LSN != b.LSN || got.Backup != b.Backup || got.AsOf != b.AsOf {
				t.Fatalf("a dry run said %+v, it was %+v", b, got)
			}
		}
		res.Blocks = append(res.Blocks, d.repairNamed(src, named)...)
		for _, b := range res.Blocks {
			from[b.State]++
			if b.AsOf > b.BackupLSN {
				rolled++
			}
		}
		d.rest()
		if !bytes.Equal(want, d.versioned()) {
			t.Fatalf("not what it was: %+v", res.Blocks)
		}
		wantStore(t, d.store, d.model)
		again, err := Repair(t.Context(), src, d.repo, RepairOptions{})
		if err != nil || len(again.Blocks) > 0 {
			t.Fatalf("%+v, %v", again, err)
		}
		d.store.Close()
	}
	if from[mvcc.RepairImage] == 0 || rolled == 0 {
		t.Fatalf("repaired from %v, %d times with archived log", from, rolled)
	}
}

// rolledBlock damages a block that is repaired from a backup and archived log behind it, and
// from nothing else.
func (d *spoiltRun) rolledBlock(src Source) (id block.ID) {
	d.t.Helper()
	size, all := int64(d.store.BlockSize()), d.file()
	ids := slices.DeleteFunc(slices.Sorted(maps.Keys(d.model)), func(id block.ID) bool {
		_, was := d.kept[d.made[0].LSN][id]
		return !was
	})
	for _, id := range ids {
		d.patch(int64(id)*size, make([]byte, 64))
	}
	dry, err := Repair(d.t.Context(), src, d.repo, RepairOptions{DryRun: true, Blocks: ids})
	if err != nil || dry.Failed() > 0 {
		d.t.Fatalf("%+v, %v", dry, err)
	}
	for _, b := range dry.Blocks {
		if id == 0 && b.State == mvcc.RepairImage && b.AsOf > b.BackupLSN {
			id = b.Block
			continue
		}
		d.patch(int64(b.Block)*size, all[int64(b.Block)*size:][:size])
	}
	if id == 0 {
		d.t.Fatal("no block needs archived log")
	}
	return id
}

// What a repository cannot prove it does not repair: another database's, another
// history's, one that is ahead; log that is missing. The file stays as it is.
func TestRepair_Refuses(t *testing.T) {
	d := newDamaged(t, 5)
	src := NewSource(d.store)
	id := d.rolledBlock(src)
	before := d.file()
	unchanged := func(what string) {
		t.Helper()
		if !bytes.Equal(before, d.file()) {
			t.Fatalf("%s: something was written", what)
		}
	}

	foreign := newArchived(t, 6)
	foreign.change(2)
	foreign.full()
	if _, err := Repair(t.Context(), src, foreign.repo, RepairOptions{}); !errors.Is(err, ErrForeignDatabase) {
		t.Fatal(err)
	}
	unchanged("another database")

	if _, err := Restore(t.Context(), d.repo, RestoreTarget{Backup: d.made[0].ID}, "/d/other", RestoreOptions{FS: d.fs}); err != nil {
		t.Fatal(err)
	}
	other := &history{t: t, rng: d.rng, fs: d.fs, dir: "/d/other", model: maps.Clone(d.kept[d.made[0].LSN]), kept: map[block.LSN]map[block.ID]string{}}
	other.open()
	other.commit(3, 3, 0)
	repo := openRepo(t, d.fs, "/d/repo2")
	other.backup(repo, BackupOptions{})
	if _, err := Repair(t.Context(), src, repo, RepairOptions{}); !errors.Is(err, ErrForeignTimeline) {
		t.Fatal(err)
	}
	unchanged("another timeline")
	other.store.Close()

	logs, err := d.repo.logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range slices.Backward(d.made[1:]) { // so that the log behind the first is needed
		if _, err := Delete(t.Context(), d.repo, m.ID, DeleteOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	hidden := d.hide(logs[0].Name())
	res, err := Repair(t.Context(), src, d.repo, RepairOptions{})
	if err != nil || res.Failed() != 1 || res.Blocks[0].Block != id || !errors.Is(res.Blocks[0].Err, ErrLogGap) {
		t.Fatalf("%+v, %v", res, err)
	}
	unchanged("a hole")

	rewrite(t, d.repo, logs[0].Name(), hidden)
	if res, err = Repair(t.Context(), src, d.repo, RepairOptions{}); err != nil || res.Failed() != 0 || len(res.Blocks) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	wantStore(t, d.store, d.model)
}

// hide takes an object away, and returns what it was.
func (d *spoiltRun) hide(name string) []byte {
	d.t.Helper()
	b, err := d.fs.(*simfs.FS).Bytes(d.repo.dir + "/" + name)
	if err == nil {
		b = bytes.Clone(b)
		err = d.repo.objects.Delete(d.t.Context(), name)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return b
}

// Whatever a client sends, an image is proven by the server before it is used, and a
// request is decoded strictly.
func TestRepair_TravelsOverTheSocket(t *testing.T) {
	var asked []mvcc.BlockRepair
	fake := newFake(1, 10, 1<<16)
	fake.onRepair = func(r mvcc.BlockRepair) (mvcc.BlockRepaired, error) {
		r.Image = slices.Clone(r.Image)
		asked = append(asked, r)
		if r.Block == 7 {
			return mvcc.BlockRepaired{}, fmt.Errorf("x: %w", mvcc.ErrLogGone)
		}
		return mvcc.BlockRepaired{Block: r.Block, State: mvcc.RepairImage, LSN: 9}, nil
	}
	client := served(t, fake, ServeOptions{})
	for _, r := range []mvcc.BlockRepair{
		{Block: 3}, {Block: 1 << 40, DryRun: true}, {Block: 5, Image: fake.images[fakeFirst], AsOf: 1 << 50},
	} {
		asked = nil
		out, err := client.RepairBlock(t.Context(), r)
		if err != nil || out.LSN != 9 || len(asked) != 1 {
			t.Fatalf("%+v, %v", out, err)
		}
		if got := asked[0]; got.Block != r.Block || got.AsOf != r.AsOf || got.DryRun != r.DryRun || !bytes.Equal(got.Image, r.Image) {
			t.Fatalf("block %v became %v", r.Block, got.Block)
		}
	}
	if _, err := client.RepairBlock(t.Context(), mvcc.BlockRepair{Block: 7}); !errors.Is(err, mvcc.ErrLogGone) {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{nil, make([]byte, repairHead-1), append(make([]byte, repairHead), 1), func() []byte {
		b := encodeRepair(mvcc.BlockRepair{})
		b[16] = 4
		return b
	}(), func() []byte {
		b := encodeRepair(mvcc.BlockRepair{})
		b[16] = repairFlagImage
		return b
	}()} {
		if _, err := decodeRepair(bad); !errors.Is(err, ErrProtocol) {
			t.Fatalf("%x: %v", bad, err)
		}
	}
}

// A database that cannot be opened, because its meta block is damaged, is opened with
// what the repository has.
func TestRepair_WhatOpeningNeeds(t *testing.T) {
	d := newDamaged(t, 8)
	d.archiveRest()
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	d.spoilMeta()
	o := mvcc.Options{FS: d.fs, MaxRAM: 16 << 20, Temp: []mvcc.TempDir{}}
	if _, err := mvcc.Open(d.dir, o); !errors.Is(err, block.ErrCorrupt) {
		t.Fatal(err)
	}
	var mended []RepairedBlock
	o.Mend = MendFrom(t.Context(), d.repo, func(b RepairedBlock) { mended = append(mended, b) })
	store, err := mvcc.Open(d.dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(mended) != 1 || mended[0].Block != 2 || mended[0].Backup.IsZero() || mended[0].Found == "" {
		t.Fatalf("%+v", mended)
	}
	wantStore(t, store, d.model)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	wantDatabase(t, d.fs, d.dir, d.model)

	foreign := newArchived(t, 9)
	foreign.change(2)
	foreign.full()
	d.spoilMeta()
	before := d.file()
	o.Mend = MendFrom(t.Context(), foreign.repo, nil)
	if _, err := mvcc.Open(d.dir, o); !errors.Is(err, ErrForeignDatabase) {
		t.Fatal(err)
	}
	if size := d.store.BlockSize(); !bytes.Equal(before[2*size:], d.file()[2*size:]) {
		t.Fatal("something was written")
	}
}

// archiveRest archives what is behind the newest archived log.
func (d *spoiltRun) archiveRest() {
	d.attach(d.from)
	d.push()
	d.tail.Close()
}

// spoilMeta damages the meta block of a closed database, and its second copy.
func (d *spoiltRun) spoilMeta() {
	d.patch(2*int64(d.store.BlockSize()), make([]byte, 64))
	f, err := d.fs.OpenFile(d.dir+"/doublewrite", os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(f.Truncate(0), f.Truncate(3<<20), f.Sync(), f.Close())
	}
	if err != nil {
		d.t.Fatal(err)
	}
}
