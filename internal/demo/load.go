package demo

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/spillwaydb/spillway/kv"
)

// The buckets of the database.
const (
	filesBucket    = "files"
	countersBucket = "counters"
)

// counters are small records that all transactions change, and what each holds
// at the start.
const (
	counters     = 1000
	counterStart = 1000
)

func counterKey(i int) []byte { return fmt.Appendf(nil, "counter-%04d", i) }

func counterValue(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// loader puts a tree into the database, one record a file.
type loader struct {
	db      *kv.DB
	txBytes int64 // how much one transaction puts, about
	done    int
	bytes   int64
	sampled int64 // bytes, of these that were compressed on trial
	packed  int64 // what they became
}

func (l *loader) load(ctx context.Context, t *tree, progress func(files int, bytes int64)) error {
	if err := l.db.Update(makeBuckets); err != nil {
		return fmt.Errorf("make buckets: %w", err)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("start compressor: %w", err)
	}
	defer z.Close()
	for rest := t.files; len(rest) > 0; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n := 0
		err := l.db.Update(func(tx *kv.Tx) (err error) {
			n, err = l.put(tx, rest, z)
			return err
		})
		if err != nil {
			return fmt.Errorf("load files: %w", err)
		}
		rest = rest[n:]
		progress(l.done, l.bytes)
	}
	return nil
}

func makeBuckets(tx *kv.Tx) error {
	if _, err := tx.CreateBucket([]byte(filesBucket)); err != nil {
		return err
	}
	b, err := tx.CreateBucket([]byte(countersBucket))
	if err != nil {
		return err
	}
	for i := range counters {
		if err := b.Put(counterKey(i), counterValue(counterStart)); err != nil {
			return err
		}
	}
	return nil
}

// sampleEvery is how many files there are to one that is compressed on trial.
const sampleEvery = 32

// put puts files until the transaction is large enough, and returns how many.
func (l *loader) put(tx *kv.Tx, files []file, z *zstd.Encoder) (n int, err error) {
	b, err := tx.Bucket([]byte(filesBucket))
	if err != nil {
		return 0, err
	}
	for bytes := int64(0); n < len(files) && bytes < l.txBytes; n++ {
		content, err := files[n].read()
		if err != nil {
			return n, err
		}
		if err := b.Put([]byte(files[n].path), content); err != nil {
			return n, fmt.Errorf("put %s: %w", files[n].path, err)
		}
		bytes += int64(len(content))
		l.done++
		l.bytes += int64(len(content))
		if l.done%sampleEvery == 0 {
			l.sampled += int64(len(content))
			l.packed += int64(len(z.EncodeAll(content, nil)))
		}
	}
	return n, nil
}

// sinkRate is how slow a sink has to be for a backup to take that long.
func (l *loader) sinkRate(databaseBytes int64, takes time.Duration) int64 {
	ratio := 1.0
	if l.sampled > 0 {
		ratio = min(1, float64(l.packed)/float64(l.sampled))
	}
	return max(1, int64(float64(databaseBytes)*ratio/takes.Seconds()))
}
