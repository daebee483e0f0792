package watch

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

func newKeptSim(t *testing.T) (*kept, *simfs.FS) {
	t.Helper()
	fsys := simfs.New()
	k := &kept{t: t, dir: "/repo"}
	var err error
	k.db, err = kv.Open(filepath.Join(t.TempDir(), "db"), kv.Options{Store: mvcc.Options{MaxRAM: 4 << 20, CloseWait: -1}})
	k.ok(err)
	t.Cleanup(func() { k.ok(k.db.Close()) })
	k.repo, err = livebackup.OpenRepository(t.Context(), k.dir, livebackup.RepositoryOptions{Create: true, FS: fsys})
	k.ok(err)
	return k, fsys
}

func (k *kept) big(n int) {
	k.t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		k.ok(k.db.Update(func(tx *kv.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			v := make([]byte, 40<<10)
			for j := range v {
				v[j] = byte(rng.Uint32())
			}
			return b.Put([]byte(fmt.Sprint(i%10)), v)
		}))
	}
}

// A look, which comes every few seconds, reads ends of archived log, and no objects.
func TestRepository_LookReadsLittleLog(t *testing.T) {
	k, fsys := newKeptSim(t)
	k.commit()
	k.backup()
	for range 8 {
		k.big(60)
		k.archive()
	}
	var mu sync.Mutex
	var bytes int64
	fsys.Fail(simfs.Fault{Ops: simfs.OpRead, File: "/repo/log-*", Match: func(e simfs.Event) bool {
		mu.Lock()
		bytes += e.Len
		mu.Unlock()
		return false
	}})
	_, err := livebackup.LogSpaces(t.Context(), k.repo)
	k.ok(err)
	was := bytes
	bytes = 0
	_, err = readRepository(t.Context(), k.repo)
	k.ok(err)
	if bytes > 4*was+1<<20 {
		t.Errorf("a look reads %d MiB of log", bytes>>20)
	}
}

// A bad sector in the newest archived object: the backups are shown all the same.
func TestRepository_LookBesideABadSector(t *testing.T) {
	k, fsys := newKeptSim(t)
	k.commit()
	m := k.backup()
	k.big(5)
	k.archive()
	fsys.Fail(simfs.Fault{Ops: simfs.OpRead | simfs.OpOpen, File: "/repo/log-*", Sticky: true})
	_, err := livebackup.LogSpaces(t.Context(), k.repo)
	k.ok(err)
	r, err := readRepository(t.Context(), k.repo)
	if err != nil || r.Newest != m.ID {
		t.Errorf("%+v, %v", r, err)
	}
}
