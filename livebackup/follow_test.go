package livebackup

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// standby restores what the archive has as a standby and opens it.
func (a *archived) standby(dir string) *mvcc.Store {
	a.t.Helper()
	if _, err := Restore(a.t.Context(), a.repo, RestoreTarget{}, dir, RestoreOptions{FS: a.fs, Standby: true, MaxRAM: 16 << 20}); err != nil {
		a.t.Fatal(err)
	}
	store, err := mvcc.Open(dir, mvcc.Options{FS: a.fs, MaxRAM: 16 << 20, Temp: []mvcc.TempDir{}})
	if err != nil {
		a.t.Fatal(err)
	}
	return store
}

// A repository that cannot be read, wherever in it that happens, is tried again, later
// and later, and told of each time; the standby goes on as if nothing had been. Damage
// ends it, with what is lost.
func TestFollow_TriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newArchived(t, 8)
		a.change(2)
		a.full()
		a.archive()
		store := a.standby("/d/standby")
		defer store.Close()
		ctx, cancel := context.WithCancel(t.Context())
		warned, turns := 0, 0
		fault := a.fs.(*simfs.FS).Fail(simfs.Fault{Ops: simfs.OpRead | simfs.OpOpen, File: "/d/repo/*", Sticky: true})
		began := time.Now()
		err := Follow(ctx, a.repo, store, FollowOptions{
			Warn: func(err error) {
				if !errors.As(err, new(repositoryTrouble)) {
					t.Errorf("warned of %v", err)
				}
				if warned++; warned%4 == 0 {
					fault.Disarm()
				}
			},
			Progress: func(p FollowProgress) {
				if p.LSN != a.from {
					t.Errorf("at LSN %v, the archive at %v", p.LSN, a.from)
				}
				wantTexts(t, store, a.kept[p.LSN])
				if turns++; turns == 12 {
					cancel()
					return
				}
				fault.Disarm()
				a.change(2)
				a.archive()
				// each turn in another place: the list, the header, chunks, within a commit
				fault = a.fs.(*simfs.FS).Fail(simfs.Fault{Ops: simfs.OpRead | simfs.OpOpen, File: "/d/repo/*", Skip: turns, Sticky: true})
			},
		})
		fault.Disarm()
		if err != nil || turns != 12 || warned < 8 {
			t.Fatalf("%d turns, %d warnings, %v", turns, warned, err)
		}
		if waited := time.Since(began); waited < 20*time.Second { // 1 + 2 + 4 + 8 s for four failures
			t.Fatalf("it waited only %v", waited)
		}

		a.change(3)
		bad := a.archive()
		rot(t, a.repo, bad.Name())
		if err := Follow(t.Context(), a.repo, store, FollowOptions{}); !errors.As(err, new(*LogLostError)) {
			t.Fatal(err)
		}
		a.tail.Close()
		a.store.Close()
	})
}

// A standby that is served and followed is promoted by asking its process: that ends
// the following, and nothing that was applied is lost (L14, R20).
func TestPromote_OfAFollowedStandby(t *testing.T) {
	a := newArchived(t, 9)
	a.change(2)
	a.full()
	a.change(3)
	a.archive()
	store := a.standby("/d/standby")
	following, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	caughtUp := make(chan struct{})
	go func() {
		ended <- Follow(following, a.repo, store, FollowOptions{Every: time.Millisecond, Progress: func(p FollowProgress) {
			if p.LSN == a.from {
				select {
				case <-caughtUp:
				default:
					close(caughtUp)
				}
			}
		}})
	}()
	<-caughtUp
	o := mvcc.Options{FS: a.fs, MaxRAM: 16 << 20, Temp: []mvcc.TempDir{}}
	server := func(o2 ServeOptions) *Client { return served(t, NewSource(store), o2) }
	if _, err := server(ServeOptions{}).Promote(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatal(err)
	}
	client := server(ServeOptions{Promote: func(context.Context) (out Promoted, err error) {
		stop()
		if err = errors.Join(<-ended, store.Close(), mvcc.Promote("/d/standby", o)); err != nil {
			return out, err
		}
		s, err := mvcc.Open("/d/standby", o)
		if err != nil {
			return out, err
		}
		return Promoted{s.Timeline().String(), s.Status().NewestLSN}, s.Close()
	}})
	before := store.Timeline().String()
	out, err := client.Promote(t.Context())
	if err != nil || out.LSN != a.from || out.Timeline == before {
		t.Fatalf("%+v, %v", out, err)
	}
	s, err := mvcc.Open("/d/standby", o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Standby() || s.Timeline().String() != out.Timeline {
		t.Fatal("it is a standby still")
	}
	wantStore(t, s, a.kept[a.from])
	if _, err := served(t, NewSource(s), ServeOptions{}).Promote(t.Context()); !errors.Is(err, mvcc.ErrNotStandby) {
		t.Fatal(err)
	}
}

// Archived log of an encrypted repository, from end to end: archived, rolled forward to
// any commit and moment by whoever has a key, followed, across a change of recipients;
// without a key for it nothing is restored, and nothing is left at the target.
func TestEncryption_ArchivedLog(t *testing.T) {
	first, second, stranger := newKeys(t), newHybridKeys(t), newKeys(t)
	a := newArchived(t, 10)
	open := func(o RepositoryOptions) *Repository {
		t.Helper()
		repo, err := OpenRepository(t.Context(), "/d/sealed", o)
		if err != nil {
			t.Fatal(err)
		}
		return repo
	}
	old := sealedOptions(a.fs, first)
	a.repo = open(old)
	a.change(2)
	a.full()
	a.change(4)
	a.archive()
	end := a.from
	for _, o := range a.repo.Recipients() {
		if o != first.recipient {
			t.Fatal(o)
		}
	}
	for lsn := a.made[0].LSN; lsn <= end; lsn++ {
		a.repo = open(reading(old, stranger, first))
		a.wantAt(RestoreTarget{LSN: lsn}, lsn, RestoreOptions{})
	}
	p, err := PlanRestore(t.Context(), a.repo, RestoreTarget{LSN: end - 1})
	if err != nil || p.Time.IsZero() {
		t.Fatalf("%+v, %v", p, err)
	}
	a.wantAt(RestoreTarget{At: p.Time}, end-1, RestoreOptions{})
	if _, err := OpenRepository(t.Context(), "/d/sealed", reading(old, stranger)); !errors.Is(err, ErrWrongKey) {
		t.Fatal(err)
	}

	rotated := sealedOptions(a.fs, second)
	rotated.Identities = append(rotated.Identities, first.identity)
	a.repo = open(rotated)
	a.change(4)
	a.archive()
	a.repo = open(reading(old, first, second))
	for lsn := end; lsn <= a.from; lsn++ {
		a.wantAt(RestoreTarget{LSN: lsn}, lsn, RestoreOptions{})
	}
	a.repo = open(reading(old, first)) // the key of before
	a.wantAt(RestoreTarget{LSN: end}, end, RestoreOptions{})
	_, err = Restore(t.Context(), a.repo, RestoreTarget{LSN: a.from}, "/d/none", RestoreOptions{FS: a.fs, MaxRAM: 16 << 20})
	if !errors.Is(err, ErrWrongKey) {
		t.Fatal(err)
	}
	if _, err := a.fs.Lstat("/d/none"); err == nil {
		t.Fatal("something is at the target")
	}
	for name, want := range map[string]bool{fmt.Sprint(first.identity): true, fmt.Sprint(stranger.identity): false} {
		o := reading(old)
		identity, err := age.ParseX25519Identity(name)
		if err != nil {
			t.Fatal(err)
		}
		o.Identities = []age.Identity{identity}
		if _, err := OpenRepository(t.Context(), "/d/sealed", o); (err == nil) != want {
			t.Fatalf("%v", err)
		}
	}
}

// changeLarge makes a commit of many records in the log.
func (a *archived) changeLarge() {
	a.t.Helper()
	tx, err := a.store.BeginWrite()
	if err != nil {
		a.t.Fatal(err)
	}
	for range 600 {
		b, err := tx.Alloc(block.TypeUser)
		if err != nil {
			a.t.Fatal(errors.Join(err, tx.Rollback()))
		}
		p := b.Payload()
		for i := range p {
			p[i] = byte(a.rng.Uint32())
		}
		text := fmt.Sprintf("block %v by a large commit", b.ID())
		copy(p, text+"\x00")
		a.model[b.ID()] = text
		b.Release()
	}
	if _, err := tx.Commit(); err != nil {
		a.t.Fatal(err)
	}
}

// A reading that is cut off anywhere, also between the records of one large commit, goes
// on where it was.
func TestFollow_GoesOnWithinACommit(t *testing.T) {
	a := newArchived(t, 11)
	a.change(2)
	a.full()
	a.changeLarge()
	a.change(2)
	a.archive()
	within := 0
	reads := func(skip int) *simfs.Armed {
		return a.fs.(*simfs.FS).Fail(simfs.Fault{Ops: simfs.OpRead, File: "/d/repo/log-*", Skip: skip})
	}
	run := func(n, skip int) int {
		dir := fmt.Sprint("/d/standby", n)
		target := RestoreTarget{Backup: a.made[0].ID}
		if _, err := Restore(t.Context(), a.repo, target, dir, RestoreOptions{FS: a.fs, Standby: true, MaxRAM: 16 << 20}); err != nil {
			t.Fatal(err)
		}
		store, err := mvcc.Open(dir, mvcc.Options{FS: a.fs, MaxRAM: 16 << 20, Temp: []mvcc.TempDir{}})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		f := follower{repo: a.repo, store: store}
		fault := reads(skip)
		_, err = f.once(t.Context())
		fault.Disarm()
		if fault.Fired() > 0 && !errors.As(err, new(repositoryTrouble)) {
			t.Fatalf("read %d: %v", skip, err)
		}
		if _, applied := store.Applying(); applied > 0 {
			within++
		}
		if p, err := f.once(t.Context()); err != nil || p.LSN != a.from {
			t.Fatalf("read %d: at %v of %v: %v", skip, p.LSN, a.from, err)
		}
		wantTexts(t, store, a.model)
		return fault.Seen()
	}
	all := run(0, 1<<30)
	for n := range 6 {
		run(n+1, all-1-n*2)
	}
	if within == 0 {
		t.Fatal("never cut off within the commit")
	}
}
