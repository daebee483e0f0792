package kv_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// backupImage is a backup in memory.
type backupImage struct {
	info   mvcc.BackupInfo
	blocks map[block.ID][]byte
}

func (b backupImage) Info() mvcc.BackupInfo { return b.info }

func (b backupImage) ReadBlock(id block.ID, dst []byte) error {
	image, ok := b.blocks[id]
	if !ok {
		return fmt.Errorf("block %v: %w", id, mvcc.ErrNotInUse)
	}
	copy(dst, image)
	return nil
}

func pullBackup(t testing.TB, db *kv.DB) backupImage {
	t.Helper()
	b, err := db.Store().OpenBackup(context.Background(), mvcc.BackupOptions{Owner: "test"})
	must(t, err)
	defer b.Close()
	img := backupImage{b.Info(), map[block.ID][]byte{}}
	size := img.info.BlockSize
	for {
		buf, ids := make([]byte, 64*size), make([]block.ID, 64)
		n, err := b.Next(context.Background(), buf, ids)
		if errors.Is(err, io.EOF) {
			return img
		}
		must(t, err)
		for i, id := range ids[:n] {
			img.blocks[id] = buf[i*size : (i+1)*size]
		}
	}
}

// openStandby builds a standby of a backup and opens it.
func openStandby(t testing.TB, img backupImage) *kv.DB {
	t.Helper()
	fsys := simfs.New()
	must(t, fsys.Mkdir("/db", 0o700))
	b, err := mvcc.NewBuilder("/db", img.info, mvcc.BuildOptions{FS: fsys, Standby: true})
	must(t, err)
	for id, image := range img.blocks {
		must(t, b.Write(id, image))
	}
	must(t, b.Finish())
	db, err := kv.Open("/db", kv.Options{Store: mvcc.Options{FS: fsys, MaxRAM: 16 << 20, CloseWait: -1}})
	must(t, err)
	return db
}

// R20, L1: a standby is read while it is rolled forward: each new transaction sees
// the newest commit that was applied, whatever it and others before it have
// looked up; open ones keep what they see. Names of buckets come and go.
func TestR20_StandbyIsReadWhileItFollows(t *testing.T) {
	rng := rand.New(rand.NewPCG(chance.Seed(t), 3))
	primary := namesDB(t, mvcc.DurableCommit)
	top := &named{kids: map[string]*named{}}
	n := namer{rng: rng}
	update := func() {
		must(t, primary.Update(func(tx *kv.Tx) error { return n.change(tx, top) }))
	}
	for range 20 {
		update()
	}
	standby := openStandby(t, pullBackup(t, primary))
	tail, err := primary.Store().OpenLogTail("test", standby.Store().Status().NewestLSN)
	must(t, err)
	var old []snapshotOf
	for range 150 {
		update()
		_, err := tail.Read(1<<30, standby.Store().Apply)
		must(t, err)
		for range 2 { // the second one finds what the first one may have remembered
			must(t, standby.View(func(tx *kv.Tx) error { return top.find(tx, rng, 1) }))
		}
		if rng.IntN(15) == 0 {
			tx, err := standby.Begin(false)
			must(t, err)
			old = append(old, snapshotOf{tx, top.clone()})
		}
		for _, s := range old {
			must(t, s.top.find(s.tx, rng, 1))
		}
	}
	wantErr(t, standby.Update(func(*kv.Tx) error { return nil }), mvcc.ErrStandby)
	wantErr(t, standby.Batch(func(*kv.Tx) error { return nil }), mvcc.ErrStandby)
	for _, s := range old {
		must(t, s.tx.Rollback())
	}
	mustCheck(t, standby)
	tail.Close()
	must(t, standby.Close())
}

// A backup is opened in place and read as the database that it is of; a database
// on a medium that cannot be written as well (R20).
func TestR20_ReadOnly(t *testing.T) {
	fsys := simfs.New()
	o := kv.Options{Store: mvcc.Options{FS: fsys, MaxRAM: 16 << 20, CloseWait: -1}}
	db, err := kv.Open("/db", o)
	must(t, err)
	value := func(i int) []byte { return fmt.Append(nil, "value ", i, " ", string(make([]byte, i*7))) }
	must(t, db.Update(func(tx *kv.Tx) error {
		b := bucket(t, tx, "things")
		for i := range 2000 {
			if err := b.Put(fmt.Append(nil, i), value(i)); err != nil {
				return err
			}
		}
		return nil
	}))
	img := pullBackup(t, db)
	must(t, db.Update(func(tx *kv.Tx) error { return tx.DeleteBucket([]byte("things")) }))
	must(t, db.Update(func(tx *kv.Tx) error { return bucket(t, tx, "things").Put([]byte("7"), []byte("new")) }))
	must(t, db.Close())
	small := kv.Options{Store: mvcc.Options{MaxRAM: 2 << 20, CloseWait: -1}}
	old, err := kv.OpenImage(img, small)
	must(t, err)
	must(t, old.View(func(tx *kv.Tx) error {
		b := bucket(t, tx, "things")
		for i := range 2000 {
			got, err := b.Get(fmt.Append(nil, i))
			if err != nil || string(got) != string(value(i)) {
				t.Fatalf("%d: %q, %v", i, got, err)
			}
		}
		return nil
	}))
	o.Store.ReadOnly = true
	fsys.Fail(simfs.Fault{Ops: simfs.Events, Sticky: true})
	now, err := kv.Open("/db", o)
	must(t, err)
	must(t, now.View(func(tx *kv.Tx) error {
		if got, err := bucket(t, tx, "things").Get([]byte("7")); err != nil || string(got) != "new" {
			t.Fatalf("%q, %v", got, err)
		}
		return nil
	}))
	for _, db := range []*kv.DB{old, now} {
		mustCheck(t, db)
		wantErr(t, db.Update(func(*kv.Tx) error { return nil }), mvcc.ErrReadOnly)
		_, err := db.Mark("x")
		wantErr(t, err, mvcc.ErrReadOnly)
		must(t, db.Close())
		_, err = db.Mark("x")
		wantErr(t, err, kv.ErrDatabaseClosed)
	}
}

// A mark names the newest state.
func TestMark(t *testing.T) {
	db := namesDB(t, mvcc.DurableCommit)
	must(t, db.Update(func(tx *kv.Tx) error { return bucket(t, tx, "a").Put([]byte("k"), []byte("v")) }))
	before := db.Store().Status().NewestLSN
	lsn, err := db.Mark("named")
	must(t, err)
	if lsn != before+1 {
		t.Fatalf("LSN %v behind %v", lsn, before)
	}
	must(t, db.View(func(tx *kv.Tx) error {
		if got, err := bucket(t, tx, "a").Get([]byte("k")); err != nil || string(got) != "v" {
			t.Fatalf("%q, %v", got, err)
		}
		return nil
	}))
}

// Who closes a database that somebody else is closing returns when it is closed, not before:
// a program that ended then left it open, and one that opened it again found it locked.
func TestCloseByTwoAtOnce(t *testing.T) {
	dir, o := t.TempDir(), kv.Options{Store: mvcc.Options{MaxRAM: 2 << 20, CloseWait: -1}}
	db, err := kv.Open(dir, o)
	must(t, err)
	tx, err := db.Begin(true) // Close waits for it
	must(t, err)
	var closers sync.WaitGroup
	closers.Go(func() { must(t, db.Close()) })
	for !errors.Is(db.View(func(*kv.Tx) error { return nil }), kv.ErrDatabaseClosed) {
		runtime.Gosched()
	}
	back := make(chan struct{}, 1)
	closers.Go(func() {
		must(t, db.Close())
		back <- struct{}{}
		again, err := kv.Open(dir, o)
		must(t, err)
		must(t, again.Close())
	})
	for range 10_000 {
		runtime.Gosched()
	}
	select {
	case <-back:
		t.Error("a second Close returns while a write transaction keeps the first waiting")
	default:
	}
	must(t, tx.Rollback())
	closers.Wait()
}
