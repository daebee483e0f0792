package spillway_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

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

// Example_backUp is the other one.
func Example_backUp() {
	dir, err := os.MkdirTemp("", "spillway")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := kv.Open(filepath.Join(dir, "db"), kv.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	target := filepath.Join(dir, "restored")
	if err := backUp(context.Background(), db, filepath.Join(dir, "backups"), target); err != nil {
		log.Fatal(err)
	}
	restored, err := kv.Open(target, kv.Options{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(restored.Check(context.Background()), restored.Close())
	// Output: <nil> <nil>
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

func backUp(ctx context.Context, db *kv.DB, repository, target string) error {
	repo, err := livebackup.OpenRepository(ctx, repository, livebackup.RepositoryOptions{Create: true})
	if err != nil {
		return err
	}
	res, err := livebackup.Backup(ctx, livebackup.NewSource(db.Store()), repo, livebackup.BackupOptions{Label: "nightly"})
	if err != nil {
		return err
	}
	if _, err := livebackup.Verify(ctx, repo, res.Manifest.ID, livebackup.VerifyOptions{}); err != nil {
		return err
	}
	_, err = livebackup.Restore(ctx, repo, livebackup.RestoreTarget{}, target, livebackup.RestoreOptions{})
	return err
}
