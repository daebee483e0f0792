package kv_test

import (
	"errors"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// TestL10_SnapshotHasAName: a long reader is found in the status by its name, keeps its
// view, and can be ended there; then it answers nothing any more.
func TestL10_SnapshotHasAName(t *testing.T) {
	db := openDB(t, kv.Options{})
	set := func(value string) {
		must(t, db.Update(func(tx *kv.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			must(t, err)
			return b.Put([]byte("k"), []byte(value))
		}))
	}
	set("old")
	tx, err := db.BeginSnapshot(mvcc.SnapshotOptions{Owner: "reports", Label: "monthly", AgeMax: time.Hour})
	must(t, err)
	defer tx.Rollback()
	set("new")
	read := func() (string, error) {
		b, err := tx.Bucket([]byte("b"))
		if err != nil {
			return "", err
		}
		v, err := b.Get([]byte("k"))
		return string(v), err
	}
	if v, err := read(); v != "old" || err != nil || tx.Writable() {
		t.Fatalf("%q, %v", v, err)
	}
	list := db.Store().Status().Snapshots
	if len(list) != 1 || list[0].Owner != "reports" || list[0].Label != "monthly" || list[0].Lease != time.Hour || list[0].LSN != tx.LSN() {
		t.Fatalf("%+v", list)
	}
	must(t, db.Store().Release(list[0].ID))
	if v, err := read(); !errors.Is(err, mvcc.ErrBroken) {
		t.Fatalf("%q, %v", v, err)
	}
	must(t, tx.Rollback())
	if list := db.Store().Status().Snapshots; len(list) != 0 {
		t.Fatalf("%+v", list)
	}
}
