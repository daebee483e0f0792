package prove

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/mvcc"
)

// takeWhole takes a backup while f is called between its steps.
func takeWhole(t *testing.T, w *world, o mvcc.BackupOptions, base images, f func() error) (*taking, error) {
	t.Helper()
	o.FullSpeed = true
	b, err := w.take(context.Background(), o, base, 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.close() })
	for done := false; !done; {
		if done, err = b.next(w.ctx); err != nil {
			return b, err
		}
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	return b, nil
}

func takingWorld(t *testing.T, set func(*mvcc.Options)) *world {
	t.Helper()
	disk, err := newDisk()
	if err != nil {
		t.Fatal(err)
	}
	o := smallOptions(disk)
	if set != nil {
		set(&o)
	}
	w := &world{ctx: context.Background(), rng: rand.New(rand.NewPCG(chance.Seed(t), 71)), fs: disk, o: o, m: newBlockModel(), cover: &Coverage{}}
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.s.Close(), leftOpen(disk)); err != nil {
			t.Error(err)
		}
	})
	return w
}

// TestL1_R11_R12_IncrementalsAreTheModel: a full backup and a chain of incrementals, on
// bases that were taken and on bases that only the model has, each while there are commits
// and checkpoints.
func TestL1_R11_R12_IncrementalsAreTheModel(t *testing.T) {
	w := takingWorld(t, nil)
	change := func() error { return w.commit(func(e *edit) error { return e.mixed(6, 150) }) }
	if err := inOrder(func() error { return w.grow(80) }, func() error { return w.grow(80) }, change); err != nil {
		t.Fatal(err)
	}
	var base images
	var lsn block.LSN
	for i := range 6 {
		o := mvcc.BackupOptions{Base: lsn, AuditBlocks: 4 * (i % 2)}
		on := base
		if i%3 == 2 {
			on = nil
		}
		n := 0
		b, err := takeWhole(t, w, o, on, func() error {
			if n++; n%4 == 0 {
				return w.checkpoint()
			}
			return change()
		})
		if err != nil {
			t.Fatal(err)
		}
		state, err := b.finish()
		if err != nil {
			t.Fatal(err)
		}
		if base, lsn = state, b.b.Final().LSN; on == nil {
			base, lsn = nil, 0 // what is left out has no image
		}
		if err := errors.Join(b.close(), change()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestR12_FallenForwardIsTheModel: a full backup and an incremental fall forward; with
// their redo they are the state at which they end.
func TestR12_FallenForwardIsTheModel(t *testing.T) {
	w := takingWorld(t, littleTemp)
	for range 10 {
		if err := w.grow(60); err != nil {
			t.Fatal(err)
		}
	}
	var base images
	var lsn block.LSN
	for range 2 {
		if lsn > 0 {
			for at := 0; at < 600; at += 60 {
				if err := w.commit(func(e *edit) error { return changeAll(e, at, 60) }); err != nil {
					t.Fatal(err)
				}
			}
		}
		at := 0
		b, err := takeWhole(t, w, mvcc.BackupOptions{Base: lsn}, base, func() error {
			for range 3 {
				if at >= 600 {
					break
				}
				if err := w.commit(func(e *edit) error { return changeAll(e, at, 60) }); err != nil {
					return err
				}
				at += 60
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if base, err = b.finish(); err != nil {
			t.Fatal(err)
		}
		if b.fell == nil {
			t.Fatal("it did not fall forward")
		}
		lsn = b.b.Final().LSN
		if err := b.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func changeAll(e *edit, from, n int) error {
	for _, id := range e.held[from : from+n] {
		if err := e.change(id); err != nil {
			return err
		}
	}
	return nil
}

// TestTaking_SeesWhatIsMissing: a block that was not carried, one of another version, and
// a bitmap from before a free are each told.
func TestTaking_SeesWhatIsMissing(t *testing.T) {
	w := takingWorld(t, nil)
	if err := w.grow(40); err != nil {
		t.Fatal(err)
	}
	full, err := takeWhole(t, w, mvcc.BackupOptions{}, nil, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	base, err := full.finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := inOrder(func() error { return w.sweepAll(5) }, func() error { return w.shrink(30) }); err != nil {
		t.Fatal(err)
	}
	inc, err := takeWhole(t, w, mvcc.BackupOptions{Base: full.info.LSN}, base, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inc.finish(); err != nil {
		t.Fatal(err)
	}
	for id, data := range inc.held {
		if bytes.Equal(block.Payload(data), block.Payload(base[id])) {
			continue // chance wrote what was there
		}
		delete(inc.held, id)
		if _, err := inc.finish(); err == nil {
			t.Errorf("nobody notices that block %v is missing", id)
		}
		if !inc.isOwn(id) {
			inc.held[id] = base[id]
			clear(inc.now)
			if err := inc.got(id, base[id]); err == nil {
				t.Errorf("nobody notices that block %v is the base's", id)
			}
		}
		inc.held[id] = data
	}
	delete(base, full.layout.Bitmap(0)+20)
	if _, err := inc.finish(); err == nil {
		t.Error("nobody notices that a block is missing in the base")
	}
}
