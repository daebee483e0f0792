package livebackup

import (
	"errors"
	"testing"

	"github.com/spillwaydb/spillway/block"
)

// A drill restores, checks and compares, records the newest point that is proven, and
// leaves nothing behind; what it finds damaged or lost it tells, and does not record.
func TestDrill(t *testing.T) {
	a := newArchived(t, 41)
	a.change(5)
	a.full()
	a.change(4)
	o := a.archive()
	a.tail.Close()
	if err := makeDir(a.fs, "/d/scratch"); err != nil {
		t.Fatal(err)
	}
	drill := func(target RestoreTarget, o DrillOptions) (DrillResult, error) {
		t.Helper()
		o.FS, o.MaxRAM = a.fs, 16<<20
		res, err := Drill(t.Context(), a.repo, target, "/d/scratch", o)
		if left, readErr := a.fs.ReadDir("/d/scratch"); readErr != nil || len(left) > 0 {
			t.Fatalf("left %v, %v", left, readErr)
		}
		return res, err
	}
	proof := func() *Proof { return mustList(t, a.repo)[0].Proof }

	if res, err := drill(RestoreTarget{}, DrillOptions{NoRecord: true}); err != nil || res.Restore.LSN != a.from || proof() != nil {
		t.Fatalf("%+v, %v, recorded %v", res, err, proof())
	}
	res, err := drill(RestoreTarget{Recover: RecoverNone}, DrillOptions{})
	if err != nil || res.Compared != a.made[0].Blocks || proof() == nil || proof().Drill.LSN != a.made[0].LSN {
		t.Fatalf("%+v, %v, recorded %+v", res, err, proof())
	}
	res, err = drill(RestoreTarget{}, DrillOptions{})
	if err != nil || res.Restored <= 0 || res.Duration < res.Restored || !proof().OK || proof().Drill.LSN != a.from {
		t.Fatalf("%+v, %v, recorded %+v", res, err, proof())
	}
	if e := mustList(t, a.repo)[0]; e.State() != StateProven {
		t.Fatalf("it is listed as %s", e.State())
	}

	data := objectBytes(t, a.repo, o.Name())
	data[logHeaderSize+chunkHeadSize+3] ^= 1
	rewrite(t, a.repo, o.Name(), data)
	if _, err := drill(RestoreTarget{}, DrillOptions{}); !errors.As(err, new(*LogLostError)) {
		t.Fatalf("log is damaged: %v", err)
	}
	name := objectName(a.made[0].ID, kindBlocks, 1)
	data = objectBytes(t, a.repo, name)
	data[len(data)/2] ^= 1
	rewrite(t, a.repo, name, data)
	if _, err := drill(RestoreTarget{Recover: RecoverNone}, DrillOptions{}); !errors.Is(err, block.ErrCorrupt) {
		t.Fatalf("a backup is damaged: %v", err)
	}
	if proof().Drill.LSN != a.from {
		t.Fatalf("recorded %+v", proof())
	}
}
