package demo

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/kv"
)

// digest stands for every key and every value of a database at one LSN.
type digest struct {
	lsn     block.LSN
	buckets []bucketDigest
	sum     int64 // of the counters
}

type bucketDigest struct {
	name    string
	records int
	bytes   int64
	sum     [sha256.Size]byte
}

func (b bucketDigest) String() string {
	return fmt.Sprintf("%s records, %s, sha256 %s", human.Count(b.records), human.Bytes(b.bytes), hex.EncodeToString(b.sum[:8]))
}

// readAll reads everything that a transaction sees.
func readAll(ctx context.Context, tx *kv.Tx) (*digest, error) {
	d := &digest{lsn: tx.LSN()}
	for name, err := range tx.Buckets() {
		if err != nil {
			return nil, fmt.Errorf("list buckets at LSN %v: %w", d.lsn, err)
		}
		if err := d.bucket(ctx, tx, name); err != nil {
			return nil, fmt.Errorf("read bucket %s at LSN %v: %w", name, d.lsn, err)
		}
	}
	return d, nil
}

func (d *digest) bucket(ctx context.Context, tx *kv.Tx, name []byte) error {
	b, err := tx.Bucket(name)
	if err != nil {
		return err
	}
	out := bucketDigest{name: string(name)}
	h := sha256.New()
	err = b.Scan(nil, nil, func(key, value []byte) error {
		if out.records%256 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		out.records++
		out.bytes += int64(len(key) + len(value))
		hashRecord(h, key, value)
		if out.name == countersBucket && len(value) == 8 {
			d.sum += int64(binary.BigEndian.Uint64(value))
		}
		return nil
	})
	h.Sum(out.sum[:0])
	d.buckets = append(d.buckets, out)
	return err
}

// hashRecord takes lengths in, so that no two databases look alike.
func hashRecord(h hash.Hash, key, value []byte) {
	var lengths [16]byte
	binary.BigEndian.PutUint64(lengths[:8], uint64(len(key)))
	binary.BigEndian.PutUint64(lengths[8:], uint64(len(value)))
	h.Write(lengths[:]) // a hash.Hash never fails
	h.Write(key)
	h.Write(value)
}

// compareDigests notes, for each bucket, whether two digests are equal.
func (r *Report) compareDigests(what string, want, got *digest) []Comparison {
	var list []Comparison
	for i := range max(len(want.buckets), len(got.buckets)) {
		var w, g bucketDigest
		if i < len(want.buckets) {
			w = want.buckets[i]
		}
		if i < len(got.buckets) {
			g = got.buckets[i]
		}
		c := r.compare(what+": bucket "+max(w.name, g.name), w.String(), g.String())
		list = append(list, c)
	}
	return append(list, r.compare(what+": sum of counters", human.Count(want.sum), human.Count(got.sum)))
}
