package kv_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/kv"
	"github.com/spillwaydb/spillway/mvcc"
)

var giantFlag = flag.Bool("giant", false, "store the largest value there can be: takes 5 GB of disk and minutes")

// TestGiantValue: a value of many times MaxRAM, up to the longest there can be,
// goes in and out through streams, survives, and leaves nothing when deleted. It
// fits into temporary storage as that is by default.
func TestGiantValue(t *testing.T) {
	if kv.MaxValueSize != 1<<30 {
		t.Errorf("the longest value has %d bytes, which is not 1 GiB", kv.MaxValueSize)
	}
	if raceEnabled {
		t.Run("16 MiB", func(t *testing.T) { giant(t, 16<<20, 2<<20) })
		t.Skip("the rest takes too long with the race detector")
	}
	t.Run("64 MiB", func(t *testing.T) { giant(t, 64<<20, 8<<20) })
	t.Run("1 GiB", func(t *testing.T) {
		if !*giantFlag {
			t.Skip("takes 5 GB of disk and minutes: ask for it with -giant")
		}
		giant(t, 1<<30, 64<<20)
		t.Logf("peak resident memory of this process: %s", peakRSS())
	})
}

func giant(t *testing.T, size, ram int64) {
	dir := t.TempDir()
	key := []byte("giant")
	open := func() *kv.DB {
		db, err := kv.Open(dir, kv.Options{Store: mvcc.Options{MaxRAM: ram}})
		must(t, err)
		return db
	}
	db := open()
	want := sha256.New()
	must(t, db.Update(func(tx *kv.Tx) error {
		b := bucket(t, tx, "b")
		wantErr(t, b.PutReader(key, failAtOnce{}, kv.MaxValueSize+1), kv.ErrValueTooLarge)
		return b.PutReader(key, io.TeeReader(noise(), want), size)
	}))
	prove := func() {
		t.Helper()
		must(t, db.View(func(tx *kv.Tx) error { return proveDigest(bucket(t, tx, "b"), key, size, want) }))
	}
	prove()
	must(t, db.Close())
	db = open()
	prove()
	must(t, db.Update(func(tx *kv.Tx) error { return bucket(t, tx, "b").Delete(key) }))
	if n := db.Store().Status().AllocatedBlocks; n > 10 {
		t.Errorf("%d blocks are allocated behind a deleted value", n)
	}
	mustCheck(t, db)
	must(t, db.Close())
}

// noise is an endless stream that cannot be made shorter, the same each time.
func noise() io.Reader { return rand.NewChaCha8([32]byte{1}) }

// failAtOnce is not to be read.
type failAtOnce struct{}

func (failAtOnce) Read([]byte) (int, error) { return 0, errors.New("a value that is refused was read") }

func proveDigest(b *kv.Bucket, key []byte, size int64, want hash.Hash) error {
	r, err := b.Reader(key)
	if err != nil {
		return err
	}
	if r.Size() != size {
		return errors.New("the value has another size")
	}
	got := sha256.New()
	if n, err := io.Copy(got, r); err != nil || n != size {
		return errors.Join(errors.New("the value ends early"), err)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return errors.New("the value has another digest")
	}
	return nil
}

// peakRSS is what the system says, where it does.
func peakRSS() string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown here"
	}
	for line := range strings.Lines(string(status)) {
		if peak, found := strings.CutPrefix(line, "VmHWM:"); found {
			return strings.TrimSpace(peak)
		}
	}
	return "unknown here"
}
