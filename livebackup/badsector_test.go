package livebackup

import (
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// The newest object of archived log has a bad sector. Exactly a backup needs none of it.
func TestRestore_ExactlyABackupBesideABadSector(t *testing.T) {
	for name, ops := range map[string]simfs.Op{"read": simfs.OpRead, "open": simfs.OpOpen} {
		t.Run(name, func(t *testing.T) {
			a := newArchived(t, 4)
			a.change(2)
			a.full()
			a.change(2)
			last := a.archive()
			a.fs.(*simfs.FS).Fail(simfs.Fault{Ops: ops, File: "/d/repo/" + last.Name(), Sticky: true})
			a.wantAt(RestoreTarget{Backup: a.made[0].ID}, a.made[0].EndLSN, RestoreOptions{})
		})
	}
}

// An old object of log, the last one before a hole, has a bad sector: the newest state does
// not need it.
func TestRestore_NewestStateBesideAnOldBadSector(t *testing.T) {
	a := newArchived(t, 4)
	a.change(2)
	a.full()
	a.change(2)
	old := a.archive()
	a.change(2)
	lost := a.archive()
	a.change(1)
	a.full()
	a.change(2)
	a.archive()
	if err := a.fs.Remove("/d/repo/" + lost.Name()); err != nil {
		t.Fatal(err)
	}
	a.fs.(*simfs.FS).Fail(simfs.Fault{Ops: simfs.OpRead, File: "/d/repo/" + old.Name(), Sticky: true})
	a.wantAt(RestoreTarget{}, a.from, RestoreOptions{})
}
