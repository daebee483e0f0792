package kv

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// checked is a sound database of three levels with everything that a check looks
// at, and the problems that a check of it finds after harm was done to one block.
type checked struct {
	t  *testing.T
	db *DB
}

func newChecked(t *testing.T) *checked {
	db, err := Open(t.TempDir(), Options{Store: mvcc.Options{Durability: mvcc.DurableNever}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	err = db.Update(func(tx *Tx) error {
		for _, name := range []string{"a", "b"} {
			b, err := tx.CreateBucket([]byte(name))
			if err != nil {
				return err
			}
			for i := range 400 {
				if err := b.Put(fmt.Appendf(nil, "%0200d", i), make([]byte, 30)); err != nil {
					return err
				}
			}
			if err := b.Put([]byte("x"), make([]byte, 50_000)); err != nil {
				return err
			}
			if err := b.Put([]byte("y"), make([]byte, 20_000)); err != nil {
				return err
			}
			if _, err := b.CreateBucket([]byte("z")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return &checked{t, db}
}

// leafOf returns the leaf of a top-level bucket's key, and its slot.
func (c *checked) leafOf(key []byte) (id block.ID, slot int) {
	err := c.db.View(func(tx *Tx) error {
		var tr trail
		b, _, found, err := tx.tree.seek(&tr, key)
		if err != nil || !found {
			return fmt.Errorf("key %q: %v, %w", key, found, err)
		}
		b.Release()
		id, slot = tr[0].id, tr[0].slot
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return id, slot
}

func (c *checked) root() (f rootFields) {
	_ = c.db.View(func(tx *Tx) error {
		f = tx.tree.rootFields
		return nil
	})
	return f
}

// edit writes over a node and returns what it was.
func (c *checked) edit(id block.ID, fn func(n node)) (was node) {
	w, err := c.db.store.BeginWrite()
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := w.Edit(id)
	if err != nil {
		c.t.Fatal(err)
	}
	was = append(node(nil), b.Payload()...)
	fn(node(b.Payload()))
	b.Release()
	if _, err := w.Commit(); err != nil {
		c.t.Fatal(err)
	}
	return was
}

func (c *checked) problems() error {
	return c.db.View(func(tx *Tx) error {
		seen := map[block.ID]bool{}
		return tx.Check(context.Background(), func(id block.ID) error {
			if seen[id] {
				return corrupt(id, "K6: reached twice")
			}
			seen[id] = true
			return nil
		})
	})
}

// TestCheckFindsEveryDamage breaks K1 to K8, one after the other.
func TestCheckFindsEveryDamage(t *testing.T) {
	c := newChecked(t)
	if err := c.problems(); err != nil {
		t.Fatal(err)
	}
	root := c.root()
	if root.height != 3 {
		t.Fatalf("tree has %d levels", root.height)
	}
	key := func(bucket byte, name string) []byte { return append([]byte{bucket}, name...) }
	plain, _ := c.leafOf(key(1, fmt.Sprintf("%0200d", 100)))
	long, x := c.leafOf(key(1, "x"))
	long2, y := c.leafOf(key(1, "y"))
	nested, z := c.leafOf(key(1, "z"))
	top, a := c.leafOf(key(0, "a"))
	value := func(n node, slot int) []byte {
		cell, _ := n.cell(slot)
		return cell.value
	}
	for _, harm := range []struct {
		law  string
		id   block.ID
		fn   func(n node)
		want string
	}{
		{"K1", plain, func(n node) { n.setGarbage(n.garbage() + 1) }, "of garbage in an area"},
		{"K1", plain, func(n node) { n.setSlot(1, n.slot(0)) }, "overlap"},
		{"K1", plain, func(n node) { n.setSlot(1, n.slot(1)|0xffff) }, "out of bounds"},
		{"K1", plain, func(n node) { n.setCount(0) }, "empty node"},
		{"K1", plain, func(n node) { n.setLow(3) }, "not a sound node"},
		{"K2", plain, func(n node) { s := n.slot(1); n.setSlot(1, n.slot(2)); n.setSlot(2, s) }, "is not behind"},
		{"K2", plain, func(n node) { n.setHint(1, n.hint(1)+1) }, "hint of slot 1"},
		{"K2", plain, func(n node) { n.setShared(n.shared() + 9) }, "does not share"},
		{"K2", plain, func(n node) { k, _ := n.key(n.count() - 1); k[1] = 'Z' }, "not"},
		{"K3", plain, func(n node) { n[6] = 1 }, "not a sound node of level 0"},
		{"K4", root.root, func(n node) {
			for i := range n.count() {
				n.setSlot(i, n.slot(i)&^(3<<62))
			}
		}, "inline values only"},
		{"K5", long, func(n node) { binary.LittleEndian.PutUint64(value(n, x), 60_000) }, "index block"},
		{"K5", long, func(n node) { binary.LittleEndian.PutUint64(value(n, x), 100) }, "of 100 bytes is in blocks of its own"},
		{"K6", long2, func(n node) { v := value(n, y); copy(v[16:24], v[8:16]) }, "reached twice"},
		{"K7", nested, func(n node) { value(n, z)[0] = 77 }, "bucket 77 in bucket 1"},
		{"K7", nested, func(n node) { value(n, z)[0] = 1 }, "bucket 1 in bucket 1"},
		{"K7", nested, func(n node) { value(n, z)[0] = byte(3) }, "two names"},
		{"K8", top, func(n node) { n.remove(a, a+1) }, "which does not exist"},
	} {
		was := c.edit(harm.id, harm.fn)
		err := c.problems()
		if !errors.Is(err, block.ErrCorrupt) || !strings.Contains(err.Error(), harm.want) {
			t.Errorf("%s: check says %v, want %q", harm.law, err, harm.want)
		}
		c.edit(harm.id, func(n node) { copy(n, was) })
	}
	if err := c.problems(); err != nil {
		t.Error(err)
	}
}

// A block that is referred to twice does not hide what else is wrong, before or
// behind it.
func TestCheckGoesOnBesideDamage(t *testing.T) {
	c := newChecked(t)
	first, _ := c.leafOf(fmt.Appendf([]byte{1}, "%0200d", 0))
	long, y := c.leafOf([]byte("\x01y"))
	last, _ := c.leafOf(fmt.Appendf([]byte{3}, "%0200d", 300))
	c.edit(first, func(n node) { n.setGarbage(n.garbage() + 1) })
	c.edit(last, func(n node) { n.setGarbage(n.garbage() + 1) })
	c.edit(long, func(n node) {
		cell, _ := n.cell(y)
		copy(cell.value[16:24], cell.value[8:16])
	})
	text := fmt.Sprint(c.problems())
	for _, id := range []block.ID{first, last} {
		if !strings.Contains(text, fmt.Sprintf("block %v", id)) {
			t.Errorf("the damage of leaf %v is not named in %s", id, text)
		}
	}
	if !strings.Contains(text, "reached twice") {
		t.Errorf("the block that is reached twice is not named in %s", text)
	}
}
