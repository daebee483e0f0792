package kv_test

import (
	"fmt"
	"log"
	"os"

	"github.com/spillwaydb/spillway/kv"
)

func Example() {
	dir, err := os.MkdirTemp("", "kv")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	db, err := kv.Open(dir, kv.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	// livebackup.Serve(db.Store(), livebackup.ServeOptions{}) lets the CLI back it up
	// while it runs.

	err = db.Update(func(tx *kv.Tx) error {
		fruit, err := tx.CreateBucketIfNotExists([]byte("fruit"))
		if err != nil {
			return err
		}
		for _, name := range []string{"pear", "apple", "plum"} {
			if err := fruit.Put([]byte(name), []byte{byte(len(name))}); err != nil {
				return err
			}
		}
		return nil // commits; durable when Update returns
	})
	if err != nil {
		log.Fatal(err)
	}

	err = db.View(func(tx *kv.Tx) error {
		fruit, err := tx.Bucket([]byte("fruit"))
		if err != nil {
			return err
		}
		for e, err := range fruit.Prefix([]byte("p")) {
			if err != nil {
				return err
			}
			fmt.Printf("%s %d\n", e.Key, e.Value[0])
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// pear 4
	// plum 4
}
