package mvcc

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// A system tells that it could not write something once, to the first who syncs the
// file through that descriptor, whoever wrote it. In the data file that may be who
// remembers a repository's head, while the cleaner has blocks on their way.

// loseOthersWrites has a round under way that has written block id, and not yet block
// behind, when the sync of a superblock fails, and takes what was on its way with it. It
// returns when the round is over.
func loseOthersWrites(t *testing.T, fsys *simfs.FS, g *gates, s *Store, behind block.ID, how simfs.SyncFailure) {
	t.Helper()
	h := headAt(t, s, s.log.Durable())
	write := g.next(simfs.OpWrite, fileData, touches(s.geo.offset(behind)))
	round := async(func() { _ = s.cleaner.awaitRound(s.cleaner.rounds()) })
	<-write.reached
	fault := fsys.Fail(simfs.Fault{Ops: simfs.OpSync, File: fileData, Err: syscall.EIO, Sync: how})
	if err := s.RememberHead(numbered(7), h); !errors.Is(err, ErrPoisoned) {
		t.Errorf("remember: %v", err)
	}
	fault.Disarm() // the failure was told: whoever syncs now succeeds
	write.open()
	<-round
}

// twoApart are two blocks that are not written in one go.
func twoApart(t *testing.T, o Options) (s *Store, id, behind block.ID) {
	t.Helper()
	s, id = oneBlock(t, o)
	anotherBlock(t, s)
	return s, id, anotherBlock(t, s)
}

// TestL8_SyncThatFailedForSomebodyElse: the sync of the round succeeds, because the
// failure was told already. No commit may be given up for that.
func TestL8_SyncThatFailedForSomebodyElse(t *testing.T) {
	for _, how := range []simfs.SyncFailure{simfs.SyncPending, simfs.SyncCacheNew, simfs.SyncCacheOld} {
		fsys := simfs.New()
		g := newGates(fsys)
		o := smallOptions(fsys)
		s, id, behind := twoApart(t, o)
		lsn := set(t, s, id, 2)
		set(t, s, behind, 2)
		loseOthersWrites(t, fsys, g, s, behind, how)
		if redo := s.redoStart(); redo > lsn {
			t.Errorf("%v: redo begins at %v, though commit %v may not be in place", how, redo, lsn)
		}
		_ = s.Close()
		for _, after := range []*simfs.FS{fsys.Crash(nil, simfs.DropAll), fsys} {
			o.FS = after
			s = mustOpen(t, o)
			r := beginRead(t, s)
			if got := value(t, r, id); got != 2 {
				t.Errorf("%v: block %v is %d, commit %v was acknowledged", how, id, got, lsn)
			}
			r.Close()
			mustClose(t, s)
		}
	}
}

// TestL8_VersionLostBySomebodyElse: the failed store goes on to read, and gives a rescue
// backup. What the data file shows then of a block that was on its way is an old version,
// sound in itself.
func TestL8_VersionLostBySomebodyElse(t *testing.T) {
	fsys := simfs.New()
	g := newGates(fsys)
	s, id, behind := twoApart(t, smallOptions(fsys))
	set(t, s, id, 2)
	set(t, s, behind, 2)
	loseOthersWrites(t, fsys, g, s, behind, simfs.SyncCacheOld)
	squeeze(t, s)
	r := beginRead(t, s)
	if b, err := r.Block(id); err == nil {
		if got := b.Payload()[0]; got != 2 {
			t.Errorf("block %v is %d for readers", id, got)
		}
		b.Release()
	} else if !errors.Is(err, block.ErrCorrupt) {
		t.Error(err)
	}
	r.Close()
	squeeze(t, s)
	b, err := s.OpenBackup(context.Background(), BackupOptions{Rescue: true})
	if err == nil {
		p := &backupPull{b: b, images: map[block.ID][]byte{}}
		err = p.rest(t)
		if image := p.images[id]; image != nil && image[0] != 2 {
			t.Errorf("block %v is %d in a rescue backup", id, image[0])
		}
		ok(t, b.Close())
	}
	if err != nil && !errors.Is(err, block.ErrCorrupt) {
		t.Error(err)
	}
	_ = s.Close()
}
