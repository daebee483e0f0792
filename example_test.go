package spillway_test

import (
	"fmt"
	"log"
	"os"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
)

// Example runs what the README shows.
func Example() {
	dir, err := os.MkdirTemp("", "spillway")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := app(dir); err != nil {
		log.Fatal(err)
	}
	// Output: three pears
}

func app(dir string) error {
	db, err := kv.Open(dir, kv.Options{})
	if err != nil {
		return err
	}
	defer db.Close()

	server, err := livebackup.Serve(db.Store(), livebackup.ServeOptions{}) // now "livebackup backup" finds us
	if err != nil {
		return err
	}
	defer server.Close()

	if err := db.Update(func(tx *kv.Tx) error { // durable when it returns
		orders, err := tx.CreateBucketIfNotExists([]byte("orders"))
		if err != nil {
			return err
		}
		return orders.Put([]byte("2026-11-22/1"), []byte("three pears"))
	}); err != nil {
		return err
	}

	return db.View(func(tx *kv.Tx) error { // one commit, however long it takes
		orders, err := tx.Bucket([]byte("orders"))
		if err != nil {
			return err
		}
		value, err := orders.Get([]byte("2026-11-22/1"))
		fmt.Printf("%s\n", value)
		return err
	})
}
