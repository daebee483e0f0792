package livebackup_test

import (
	"context"
	"fmt"
	"log"

	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// A process that has a database open backs it up, proves the backup, and lets
// other processes of its user do the same.
func Example() {
	ctx := context.Background()
	store, err := mvcc.Open("/var/lib/app/db", mvcc.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	server, err := livebackup.Serve(store, livebackup.ServeOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	repo, err := livebackup.OpenRepository(ctx, "/backup/app", livebackup.RepositoryOptions{Create: true})
	if err != nil {
		log.Fatal(err)
	}
	res, err := livebackup.Backup(ctx, livebackup.NewSource(store), repo, livebackup.BackupOptions{Label: "nightly"})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := livebackup.Verify(ctx, repo, res.Manifest.ID, livebackup.VerifyOptions{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("proven:", res.Manifest.ID)
}

// Another process backs up the database that the first one holds open.
func ExampleDial() {
	ctx := context.Background()
	src, err := livebackup.Dial("/var/lib/app/db")
	if err != nil {
		log.Fatal(err) // ErrNotServed says what to do
	}
	repo, err := livebackup.OpenRepository(ctx, "/backup/app", livebackup.RepositoryOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := livebackup.Backup(ctx, src, repo, livebackup.BackupOptions{}); err != nil {
		log.Fatal(err)
	}
}

// Between backups the log is archived: what a loss of the database loses is at most
// the last ten seconds.
func ExampleArchive() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop() // Archive then takes what is durable with it, and returns
	src, err := livebackup.Dial("/var/lib/app/db")
	if err != nil {
		log.Fatal(err)
	}
	repo, err := livebackup.OpenRepository(ctx, "/backup/app", livebackup.RepositoryOptions{})
	if err != nil {
		log.Fatal(err)
	}
	err = livebackup.Archive(ctx, src, repo, livebackup.ArchiveOptions{
		Warn: func(err error) { log.Print(err) }, // a hole asks for a backup
	})
	if err != nil {
		log.Fatal(err)
	}
}
