package livebackup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
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

// A scratch directory may be named relative to the working directory, or be that: what a
// drill restored goes from there, too, and what a dead one left.
func TestDrill_InTheWorkingDirectory(t *testing.T) {
	a := newArchived(t, 41)
	a.change(5)
	a.full()
	a.tail.Close()
	t.Chdir(t.TempDir())
	if err := os.Mkdir("below", 0o700); err != nil {
		t.Fatal(err)
	}
	const dead = "drill-00112233445566778899aabbccddeeff"
	for _, scratch := range []string{".", "", "below", "./below/"} {
		if err := os.WriteFile(filepath.Join(scratch, dead+lockSuffix), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(scratch, dead), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Drill(t.Context(), a.repo, RestoreTarget{}, scratch, DrillOptions{MaxRAM: 16 << 20, NoRecord: true}); err != nil {
			t.Errorf("in %q: %v", scratch, err)
		}
		left, err := filepath.Glob(filepath.Join(scratch, "*drill-*"))
		if err != nil || len(left) != 0 {
			t.Errorf("in %q: %v is left, %v", scratch, left, err)
		}
	}
}

// What a drill that was killed has left is removed by the next one, wherever it was; a
// drill that lives, and what only has the name of one, are left alone.
func TestDrill_SweepsWhatDeadOnesLeft(t *testing.T) {
	const scratch, stranger = "/d/scratch", "drill-00112233445566778899aabbccddeeff"
	for _, moment := range []string{"building", "restored"} {
		a := newArchived(t, 41)
		a.change(5)
		a.full()
		a.tail.Close()
		fsys := a.fs.(*simfs.FS)
		for _, dir := range []string{scratch, scratch + "/" + stranger, scratch + "/" + stranger + "0"} {
			if err := makeDir(fsys, dir); err != nil {
				t.Fatal(err)
			}
		}
		run := func(o DrillOptions) error {
			repo := openRepo(t, fsys, "/d/repo")
			o.FS, o.MaxRAM, o.NoRecord = fsys, 16<<20, true
			_, err := Drill(t.Context(), repo, RestoreTarget{}, scratch, o)
			return err
		}
		left := func() (names []string) {
			entries, err := fsys.ReadDir(scratch)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if !strings.HasPrefix(e.Name(), stranger) {
					names = append(names, e.Name())
				}
			}
			return names
		}
		kill := func() { fsys = fsys.Kill() }
		o := DrillOptions{}
		switch moment {
		case "building":
			o.Progress = func(Progress) { kill() }
		case "restored":
			o.Check = func(context.Context, string) error {
				if err := run(DrillOptions{}); err != nil { // beside it
					t.Fatal(err)
				}
				if n := len(left()); n != 2 {
					t.Fatalf("%d files are left of one that lives", n)
				}
				kill()
				return nil
			}
		}
		_ = run(o)
		if len(left()) < 2 {
			t.Fatalf("%s: nothing was left: %v", moment, left())
		}
		fsys.CutAfter(5 + a.rng.IntN(20)) // in the midst of sweeping, too
		_ = run(DrillOptions{})
		kill()
		if err := run(DrillOptions{}); err != nil || len(left()) != 0 {
			t.Errorf("%s: %v is left, %v", moment, left(), err)
		}
		if entries, err := fsys.ReadDir(scratch); err != nil || len(entries) != 2 {
			t.Errorf("%s: %d strangers are left, %v", moment, len(entries), err)
		}
	}
}
