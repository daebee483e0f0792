package kv_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

// edit writes over the payload of a block behind the database's back.
func edit(t testing.TB, db *kv.DB, id block.ID, fn func(payload []byte)) {
	t.Helper()
	w, err := db.Store().BeginWrite()
	must(t, err)
	b, err := w.Edit(id)
	must(t, err)
	fn(b.Payload())
	b.Release()
	_, err = w.Commit()
	must(t, err)
}

// damageLeaves destroys all leaves but those that hold the first and the last
// keep keys of the tree, and returns how many.
func damageLeaves(t testing.TB, db *kv.DB, keep int) int {
	t.Helper()
	var leaves []block.ID
	must(t, db.View(func(tx *kv.Tx) error {
		types := allocated(t, db)
		return tx.Check(context.Background(), func(id block.ID) error {
			if types[id] == block.TypeLeaf {
				leaves = append(leaves, id) // in the order of their keys
			}
			return nil
		})
	}))
	w, err := db.Store().BeginWrite()
	must(t, err)
	leaves = leaves[keep : len(leaves)-keep]
	for _, id := range leaves {
		b, err := w.Edit(id)
		must(t, err)
		b.Payload()[7] = 0 // no node any more
		b.Release()
	}
	_, err = w.Commit()
	must(t, err)
	return len(leaves)
}

// victim is a small database with a block of every kind.
func victim(t testing.TB) *kv.DB {
	db, err := kv.Open(t.TempDir(), kv.Options{Store: mvcc.Options{Durability: mvcc.DurableNever}})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	must(t, db.Update(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		for i := range 120 {
			must(t, b.Put(fmt.Appendf(bytes.Repeat([]byte("k"), 1+i*3), "%d", i), make([]byte, i*5)))
		}
		must(t, b.Put([]byte("direct"), make([]byte, 10_000)))
		must(t, b.Put([]byte("index"), make([]byte, 60_000)))
		nested, err := b.CreateBucket([]byte("nested"))
		must(t, err)
		return nested.Put([]byte("k"), []byte("v"))
	}))
	return db
}

// useAll does everything that reads, and then everything that writes, and wants
// only that it ends, and that what goes wrong is called damage.
func useAll(t testing.TB, db *kv.DB) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil && !errors.Is(err, block.ErrCorrupt) && !errors.Is(err, kv.ErrBucketNotFound) &&
			!errors.Is(err, kv.ErrIncompatibleValue) && !errors.Is(err, kv.ErrTxFailed) {
			t.Errorf("damage is reported as %v", err)
		}
	}
	check(db.View(func(tx *kv.Tx) error {
		seen := map[block.ID]bool{}
		check(tx.Check(context.Background(), func(id block.ID) error {
			if seen[id] {
				return &block.CorruptError{Block: id, Reason: "reached twice"}
			}
			seen[id] = true
			return nil
		}))
		b, err := tx.Bucket([]byte("b"))
		if err != nil {
			return err
		}
		for _, err := range b.All() {
			check(err)
		}
		for _, err := range b.Backward() {
			check(err)
		}
		check(b.Scan(nil, nil, func(k, v []byte) error { return nil }))
		for _, k := range []string{"a", "direct", "index", "kkkk3", "nested", "z"} {
			_, err := b.Get([]byte(k))
			check(err)
		}
		_, err = b.Stats()
		return err
	}))
	for _, fn := range []func(b *kv.Bucket) error{
		func(b *kv.Bucket) error { return b.Put([]byte("kkk"), make([]byte, 900)) },
		func(b *kv.Bucket) error { return b.Put([]byte("index"), make([]byte, 900)) },
		func(b *kv.Bucket) error { return b.Delete([]byte("direct")) },
		func(b *kv.Bucket) error { return b.DeleteBucket([]byte("nested")) },
		func(b *kv.Bucket) error {
			c := b.Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				if v != nil {
					check(c.Delete())
				}
			}
			return c.Err()
		},
		func(b *kv.Bucket) error { return b.Tx().DeleteBucket([]byte("b")) },
	} {
		check(db.Update(func(tx *kv.Tx) error {
			b, err := tx.Bucket([]byte("b"))
			if err == nil {
				err = fn(b)
			}
			if err == nil {
				err = kv.ErrBucketNotFound // roll back
			}
			return err
		}))
	}
}

func sortedBlocks(t testing.TB, db *kv.DB) []block.ID {
	return slices.Sorted(maps.Keys(allocated(t, db)))
}

// harm changes a block, uses the database, and changes the block back.
func harm(t testing.TB, db *kv.DB, id block.ID, fn func(payload []byte)) {
	t.Helper()
	var sound []byte
	edit(t, db, id, func(p []byte) {
		sound = bytes.Clone(p)
		fn(p)
	})
	useAll(t, db)
	edit(t, db, id, func(p []byte) { copy(p, sound) })
}

// FuzzHostileBlock writes anything into any block of a database.
func FuzzHostileBlock(f *testing.F) {
	f.Add(uint8(0), uint16(0), []byte{0xff, 0xff})
	f.Add(uint8(1), uint16(2), []byte{0, 0, 0xff, 0xff})
	f.Add(uint8(2), uint16(12), bytes.Repeat([]byte{0xff}, 64))
	f.Add(uint8(3), uint16(6), []byte{1, 0x6e})
	db := victim(f)
	ids := sortedBlocks(f, db)
	f.Fuzz(func(t *testing.T, which uint8, at uint16, data []byte) {
		harm(t, db, ids[int(which)%len(ids)], func(p []byte) {
			copy(p[int(at)%len(p):], data)
		})
	})
}

// TestHostileBlocks sets every header byte and a part of the others of every
// block to extremes.
func TestHostileBlocks(t *testing.T) {
	db := victim(t)
	step := 499
	if testing.Short() || raceEnabled {
		step = 997
	}
	for _, id := range sortedBlocks(t, db) {
		for at := 0; at < db.Store().BlockSize()-block.TrailerSize; at++ {
			if at > 16 && at%step != 0 {
				continue
			}
			for _, v := range []byte{0, 0xff} {
				harm(t, db, id, func(p []byte) { p[at] = v })
			}
		}
	}
}

// A branch whose children are itself, or all the same leaf, ends every walk.
func TestCircleIsDamage(t *testing.T) {
	for _, target := range []string{"root", "first"} {
		db := victim(t)
		var root uint64
		must(t, db.View(func(tx *kv.Tx) error {
			root, _ = kv.TreeOf(tx)
			return nil
		}))
		edit(t, db, block.ID(root), func(p []byte) {
			n := int(binary.LittleEndian.Uint16(p))
			to := root
			for i := range n {
				s := p[12+8*i:]
				off := int(binary.LittleEndian.Uint16(s)) + int(binary.LittleEndian.Uint16(s[4:]))
				if i == 0 && target == "first" {
					to = binary.LittleEndian.Uint64(p[off:])
				}
				binary.LittleEndian.PutUint64(p[off:], to)
			}
		})
		must(t, db.View(func(tx *kv.Tx) error {
			seen := map[block.ID]bool{}
			wantErr(t, tx.Check(context.Background(), func(id block.ID) error {
				if seen[id] {
					return block.ErrCorrupt
				}
				seen[id] = true
				return nil
			}), block.ErrCorrupt)
			return nil
		}))
		useAll(t, db)
	}
}

// Hints that lie make a search go wrong. A cursor that searches again after every
// change must not go round in such a leaf.
func TestCursorNeverGoesRound(t *testing.T) {
	db := victim(t)
	for id, typ := range allocated(t, db) {
		if typ != block.TypeLeaf {
			continue
		}
		for _, hint := range []uint16{0, 0xffff} {
			edit(t, db, id, func(p []byte) {
				for i := range int(binary.LittleEndian.Uint16(p)) {
					binary.LittleEndian.PutUint16(p[12+8*i+2:], hint)
				}
			})
			for _, move := range []func(*kv.Cursor) (k, v []byte){(*kv.Cursor).Next, (*kv.Cursor).Prev} {
				wantErr(t, db.Update(func(tx *kv.Tx) error {
					walkAndChange(t, tx, move)
					return errRollback
				}), errRollback)
			}
		}
	}
}

func walkAndChange(t *testing.T, tx *kv.Tx, move func(*kv.Cursor) (k, v []byte)) {
	t.Helper()
	b, err := tx.Bucket([]byte("b"))
	if err != nil {
		return // it is the damage that hides it
	}
	other, err := tx.CreateBucketIfNotExists([]byte("other"))
	if err != nil {
		return
	}
	c := b.Cursor()
	for steps := 0; ; steps++ {
		if k, _ := move(c); k == nil {
			break
		}
		if steps > 1000 {
			t.Fatal("a bucket of 123 entries has no end")
		}
		if err := other.Put([]byte("k"), nil); err != nil {
			break
		}
	}
	if err := c.Err(); err != nil && !errors.Is(err, block.ErrCorrupt) {
		t.Error(err)
	}
}
