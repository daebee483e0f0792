package prove

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// edit is a write transaction, with the image that it will leave.
type edit struct {
	rng  *rand.Rand
	tx   *mvcc.WriteTx
	next image
	held []block.ID // in a fixed order
	done []edited
}

// edited is a block that an edit made, changed or freed.
type edited struct {
	id    block.ID
	freed bool
}

// alloc takes a block and fills it.
func (e *edit) alloc() error {
	b, err := e.tx.Alloc(block.Type(4 + e.rng.IntN(5)))
	if err != nil {
		return err
	}
	defer b.Release()
	if _, used := e.next.blocks[b.ID()]; used {
		return fmt.Errorf("block %v is handed out, and is in use", b.ID())
	}
	e.scribble(b.Payload())
	e.held = append(e.held, b.ID())
	e.set(b)
	return nil
}

// change edits a block, having compared what the transaction finds there.
func (e *edit) change(id block.ID) error {
	b, err := e.tx.Edit(id)
	if err != nil {
		return err
	}
	defer b.Release()
	if contentOf(b) != e.next.blocks[id] {
		return fmt.Errorf("transaction on %v edits block %v and finds another version", e.tx.Base(), id)
	}
	e.scribble(b.Payload())
	e.set(b)
	return nil
}

// set notes what a block became.
func (e *edit) set(b mvcc.Block) {
	e.next.blocks[b.ID()] = contentOf(b)
	e.done = append(e.done, edited{id: b.ID()})
}

func (e *edit) free(id block.ID) error {
	if err := e.tx.Free(id); err != nil {
		return err
	}
	delete(e.next.blocks, id)
	e.done = append(e.done, edited{id, true})
	e.held = slices.DeleteFunc(e.held, func(h block.ID) bool { return h == id })
	return nil
}

func (e *edit) setRoot() {
	binary.LittleEndian.PutUint64(e.next.root[8:], e.rng.Uint64())
	e.tx.SetRoot(e.next.root)
}

// scribble changes a payload a little, half or wholly, and sometimes moves a part
// of it, as putting something into an array does.
func (e *edit) scribble(p []byte) {
	if e.rng.IntN(4) == 0 {
		n, from, to := 8*e.rng.IntN(40), 4*e.rng.IntN(500), 4*e.rng.IntN(500)
		copy(p[to:to+n], p[from:from+n])
	}
	n := [...]int{1, 9, 300, len(p) / 2, len(p)}[e.rng.IntN(5)]
	at := e.rng.IntN(len(p) - n + 1)
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], e.rng.Uint64()|1)
	for i := range n {
		p[at+i] = word[i%8] + byte(i/8)
	}
	if n == 1 {
		p[at] ^= 0x55
	}
}

// grow allocates n blocks.
func (e *edit) grow(n int) error {
	for range n {
		if err := e.alloc(); err != nil {
			return err
		}
	}
	return nil
}

// touch changes n blocks, drawn at random.
func (e *edit) touch(n int) error {
	for range min(n, len(e.held)) {
		if err := e.change(e.held[e.rng.IntN(len(e.held))]); err != nil {
			return err
		}
	}
	return nil
}

// sweepAll changes the first n blocks, each once.
func (e *edit) sweepAll(n int) error {
	for _, id := range e.held[:min(n, len(e.held))] {
		if err := e.change(id); err != nil {
			return err
		}
	}
	return nil
}

// changeAll changes those of some blocks that are in use.
func (e *edit) changeAll(list []block.ID) error {
	for _, id := range list {
		if _, used := e.next.blocks[id]; used {
			if err := e.change(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// freeAll frees those of some blocks that are in use.
func (e *edit) freeAll(list []block.ID) error {
	for _, id := range list {
		if _, used := e.next.blocks[id]; used {
			if err := e.free(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// shrink frees the newest blocks until keep are left.
func (e *edit) shrink(keep int) error {
	for len(e.held) > keep {
		if err := e.free(e.held[len(e.held)-1]); err != nil {
			return err
		}
	}
	return nil
}

// mixed does n changes of any kind around a size of target blocks.
func (e *edit) mixed(n, target int) error {
	for range n {
		var err error
		roll := e.rng.IntN(100)
		switch {
		case len(e.held) == 0 || roll < 30 && len(e.held) < target:
			err = e.alloc()
		case roll < 35 && len(e.held) >= target, roll >= 85:
			err = e.free(e.held[e.rng.IntN(len(e.held))])
		case roll == 35:
			e.setRoot()
		default:
			err = e.change(e.held[e.rng.IntN(len(e.held))])
		}
		if err != nil {
			return err
		}
	}
	return nil
}
