package kv_test

import (
	"encoding/binary"
	"testing"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// TestR7_SmallerLogLimitThanTheSegmentThatIsThere: the segment in use cannot be
// released, so the limit makes way for it; commits used to wait for ever.
func TestR7_SmallerLogLimitThanTheSegmentThatIsThere(t *testing.T) {
	dir := t.TempDir()
	put := func(o mvcc.Options, n int) {
		db, err := kv.Open(dir, kv.Options{Store: o})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *kv.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			for i := 0; i < n && err == nil; i++ {
				err = b.Put(binary.BigEndian.AppendUint64(nil, uint64(i)), make([]byte, 100))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	put(mvcc.Options{}, 20000)
	put(mvcc.Options{LogBytesMax: 4 << 20}, 100)
}
