package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/livebackup"
)

const getLong = `Prints the value of one record as it is in a backup, byte by byte, without
restoring anything: only the blocks on the way to it are read.

Nested buckets are separated by "/". Names and keys are text; "hex:" in front of
one means that its bytes follow as hexadecimal digits.`

const extractLong = `Prints the records of a bucket as they are in a backup, in the order of their
keys, one JSON object a line: {"key": ..., "value": ...}. What is not valid
UTF-8 stands under "key_base64" and "value_base64". Nested buckets are left out:
name them. Nothing is restored: only the blocks of the bucket are read.`

const getExample = `  livebackup get --repo /backups/app --bucket orders --key 2026-11-22/1`

const extractExample = `  livebackup extract --repo /backups/app --bucket orders --prefix 2026-11-
  livebackup extract --repo /backups/app --bucket users/settings \
                     --backup 0000000012-8f3a9c21 > settings.json`

// imageFlags say which bucket of which backup.
type imageFlags struct {
	repo   repositoryFlags
	backup string
	bucket string
	maxRAM human.Size
}

func (f *imageFlags) add(c *cobra.Command) {
	f.repo.add(c)
	c.Flags().StringVar(&f.backup, "backup", "", "which `backup`; the newest if left out")
	c.Flags().StringVar(&f.bucket, "bucket", "", "the `bucket`; nested ones like outer/inner (required)")
	c.Flags().Var(&f.maxRAM, "max-ram", "memory for blocks; 0 is 64MiB")
	for _, err := range []error{
		c.MarkFlagRequired("bucket"),
		c.RegisterFlagCompletionFunc("backup", func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return f.repo.complete(c.Context())
		}),
	} {
		if err != nil {
			panic(err) // the flag was not defined: a mistake in this package
		}
	}
}

// view opens the bucket in place and calls fn with it.
func (f *imageFlags) view(ctx context.Context, fn func(*kv.Bucket) error) error {
	path, err := bucketPath(f.bucket)
	if err != nil {
		return err
	}
	id, err := parseBackup(f.backup)
	if err != nil {
		return err
	}
	repo, err := f.repo.open(ctx)
	if err != nil {
		return err
	}
	img, err := livebackup.OpenBackup(ctx, repo, id, livebackup.ImageOptions{})
	if err != nil {
		return err
	}
	defer img.Close()
	o := kv.Options{}
	if o.Store.MaxRAM = int64(f.maxRAM); o.Store.MaxRAM == 0 {
		o.Store.MaxRAM = 64 << 20
	}
	db, err := kv.OpenImage(img, o)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *kv.Tx) error {
		b, err := tx.Bucket(path[0])
		for _, name := range path[1:] {
			if err == nil {
				b, err = b.Bucket(name)
			}
		}
		if err != nil {
			return fmt.Errorf("bucket %s: %w", f.bucket, err)
		}
		return fn(b)
	})
}

func bucketPath(text string) (path [][]byte, err error) {
	for _, part := range strings.Split(text, "/") {
		name, err := parseBytes(part)
		if err == nil && len(name) == 0 {
			err = errors.New("an empty name")
		}
		if err != nil {
			return nil, &usageError{fmt.Errorf("--bucket %q: %w", text, err)}
		}
		path = append(path, name)
	}
	return path, nil
}

func (a *app) get() *cobra.Command {
	var f imageFlags
	var key string
	c := &cobra.Command{
		Use: "get --repo DIR --bucket BUCKET --key KEY", Short: "Print one record of a backup, without restoring it",
		Long: getLong, Example: getExample, Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runGet(ctx, f, key) }),
	}
	f.add(c)
	c.Flags().StringVar(&key, "key", "", "the record's `key` (required)")
	if err := c.MarkFlagRequired("key"); err != nil {
		panic(err) // the flag was not defined: a mistake in this package
	}
	return c
}

func (a *app) runGet(ctx context.Context, f imageFlags, text string) error {
	key, err := parseBytes(text)
	if err != nil {
		return &usageError{fmt.Errorf("--key %q: %w", text, err)}
	}
	return f.view(ctx, func(b *kv.Bucket) error {
		value, err := b.Get(key)
		if err != nil {
			return err
		}
		if value == nil {
			return fmt.Errorf("key %s: %w", text, errNoRecord)
		}
		return a.print(recordOf(key, value), func(w io.Writer) { w.Write(value) })
	})
}

// errNoRecord says that a backup holds no such record.
var errNoRecord = errors.New("there is no such record in the backup")

func (a *app) extract() *cobra.Command {
	var f imageFlags
	var prefix string
	c := &cobra.Command{
		Use: "extract --repo DIR --bucket BUCKET", Short: "Print the records of a bucket of a backup, without restoring it",
		Long: extractLong, Example: extractExample, Args: noArgs,
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runExtract(ctx, f, prefix) }),
	}
	f.add(c)
	c.Flags().StringVar(&prefix, "prefix", "", "only keys with this `prefix`")
	return c
}

func (a *app) runExtract(ctx context.Context, f imageFlags, text string) error {
	prefix, err := parseBytes(text)
	if err != nil {
		return &usageError{fmt.Errorf("--prefix %q: %w", text, err)}
	}
	return f.view(ctx, func(b *kv.Bucket) error {
		out := json.NewEncoder(a.stdout)
		out.SetEscapeHTML(false)
		c := b.Cursor()
		for key, value := c.Seek(prefix); key != nil && bytes.HasPrefix(key, prefix); key, value = c.Next() {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if value == nil {
				continue // a nested bucket
			}
			if err := out.Encode(recordOf(key, value)); err != nil {
				return fmt.Errorf("print record: %w", err)
			}
		}
		return c.Err()
	})
}

// record is a record as programs read it.
type record struct {
	Key         *string `json:"key,omitempty"`
	KeyBase64   *string `json:"key_base64,omitempty"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 *string `json:"value_base64,omitempty"`
}

func recordOf(key, value []byte) (r record) {
	r.Key, r.KeyBase64 = textOf(key)
	r.Value, r.ValueBase64 = textOf(value)
	return r
}

// textOf is b as text, or where it is none, as base64.
func textOf(b []byte) (text, base64ed *string) {
	if utf8.Valid(b) {
		s := string(b)
		return &s, nil
	}
	s := base64.StdEncoding.EncodeToString(b)
	return nil, &s
}
