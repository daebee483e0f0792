package mvcc

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// R7: a round that frees the log while a commit asks for room does not refuse it.
func TestR7_RoundEndsWhileRoomIsAskedFor(t *testing.T) {
	wrong := 0
	for seed := range uint64(5) {
		fsys := simfs.New()
		ok(t, fsys.Mkdir(testDir, 0o700))
		c := &crashRun{t: t, o: smallOptions(fsys), m: newModel(), rng: rand.New(rand.NewPCG(seed, 0))}
		c.s = mustOpen(t, c.o)
		ok(t, c.allocMany(60))
		ok(t, c.s.log.Settle())
		fsys.SetCapacity(fsys.UsedBytes())
		rewrite := func(w *writeOp) error {
			for _, id := range w.held[:60] {
				if err := w.edit(id); err != nil {
					return err
				}
			}
			return nil
		}
		for range 200 {
			if err := c.change(rewrite); errors.Is(err, ErrNoSpace) {
				if again := c.change(rewrite); again == nil { // nothing was freed by anybody
					wrong++
				}
			} else {
				ok(t, err)
			}
		}
		mustClose(t, c.s)
	}
	if wrong > 0 {
		t.Errorf("%d of 1000 commits were refused, and the same one had room at once", wrong)
	}
}
