package kv_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// openDB opens a new database that is checked and closed when the test ends.
func openDB(t testing.TB, o kv.Options) *kv.DB {
	t.Helper()
	dir := "/db"
	if o.Store.FS == nil {
		dir = t.TempDir()
	}
	db, err := kv.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			mustCheck(t, db)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func blockSize(n int) kv.Options { return kv.Options{Store: mvcc.Options{BlockSize: n}} }

// mustCheck proves the newest state: K1 to K8, and that the blocks that the tree
// reaches are exactly those of its types that are allocated.
func mustCheck(t testing.TB, db *kv.DB) {
	t.Helper()
	if err := db.Check(context.Background()); err != nil {
		t.Error(err)
	}
	must(t, db.View(func(tx *kv.Tx) error {
		reached := checkTx(t, tx)
		for id, typ := range allocated(t, db) {
			if !reached[id] {
				t.Errorf("block %v (%v) is allocated and not reached", id, typ)
			}
			delete(reached, id)
		}
		for id := range reached {
			t.Errorf("block %v is reached and not allocated", id)
		}
		return nil
	}))
}

// checkTx proves the tree of a transaction and returns its blocks.
func checkTx(t testing.TB, tx *kv.Tx) map[block.ID]bool {
	t.Helper()
	reached := map[block.ID]bool{}
	err := tx.Check(context.Background(), func(id block.ID) error {
		if reached[id] {
			t.Errorf("block %v is reached twice", id)
		}
		reached[id] = true
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return reached
}

// allocated returns the blocks of trees, by what a backup would copy.
func allocated(t testing.TB, db *kv.DB) map[block.ID]block.Type {
	t.Helper()
	backup, err := db.Store().OpenBackup(context.Background(), mvcc.BackupOptions{Owner: "test"})
	must(t, err)
	defer backup.Close()
	size := backup.Info().BlockSize
	buf, ids := make([]byte, 64*size), make([]block.ID, 64)
	all := map[block.ID]block.Type{}
	for {
		n, err := backup.Next(context.Background(), buf, ids)
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		for i := range n {
			typ := block.Type(buf[(i+1)*size-block.TrailerSize+4])
			switch typ {
			case block.TypeBranch, block.TypeLeaf, block.TypeOverflow, block.TypeIndex:
				all[ids[i]] = typ
			}
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

// bucket returns a top-level bucket that is made if it is not there.
func bucket(t testing.TB, tx *kv.Tx, name string) *kv.Bucket {
	t.Helper()
	var b *kv.Bucket
	var err error
	if tx.Writable() {
		b, err = tx.CreateBucketIfNotExists([]byte(name))
	} else {
		b, err = tx.Bucket([]byte(name))
	}
	must(t, err)
	return b
}
