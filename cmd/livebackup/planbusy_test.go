package main

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// cmdServeBusy: serve-busy DIR RECORDS serves a database that has next to no room for
// originals and may hold 1 MiB of log for others, and changes its records all over at full
// speed until the script ends. It returns when it has been watched for long enough to
// tell how fast that is.
func cmdServeBusy(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	var records int
	_, err := fmt.Sscan(args[1], &records)
	ts.Check(err)
	db, err := kv.Open(dir, kv.Options{Store: mvcc.Options{
		MaxRAM: 4 << 20, OverflowMax: -1, LogHoldMax: 1 << 20, Durability: mvcc.DurableNever, AllowMemoryTemp: true,
		Temp: []mvcc.TempDir{{Path: filepath.Dir(dir), BytesMax: 1 << 20}},
	}})
	ts.Check(err)
	server, err := livebackup.Serve(db.Store(), livebackup.ServeOptions{})
	ts.Check(err)
	quit, known := make(chan struct{}), make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		rng := rand.New(rand.NewPCG(1, 2))
		var once sync.Once
		for err == nil {
			select {
			case <-quit:
				return
			default:
			}
			err = changeRecords(db, rng, records)
			if db.Store().Changes().Lately.Seconds > 3 {
				once.Do(func() { close(known) })
			}
		}
	})
	ts.Defer(func() {
		close(quit)
		writer.Wait()
		ts.Check(err)
		ts.Check(server.Close())
		ts.Check(db.Close())
	})
	select {
	case <-known:
	case <-time.After(time.Minute):
		ts.Fatalf("after a minute nobody knows how fast records are changed")
	}
}

// changeRecords writes noise to some of a database that make-db has made.
func changeRecords(db *kv.DB, rng *rand.Rand, records int) error {
	return db.Update(func(tx *kv.Tx) error {
		b, err := tx.Bucket([]byte("records"))
		value := make([]byte, 500)
		for range 50 {
			if err != nil {
				return err
			}
			for i := range value {
				value[i] = byte(rng.Uint32())
			}
			err = b.Put(fmt.Appendf(nil, "key-%06d", rng.IntN(records)), value)
		}
		return err
	})
}
