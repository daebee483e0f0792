package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sort"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// blocksMin is the size of the database, in blocks, from which on the bounds hold:
// the smaller it is, the more of it is the head of Zipf's law.
const blocksMin = 8192

// What one transaction changes and one call of Next takes, in blocks.
const (
	perCommit = 4
	perNext   = 16
)

// load is a row of the table.
type load struct {
	blocks    int
	zipf      bool
	perBlock  float64 // overwrites while the backup runs
	burst     int     // blocks that are handed out between two bursts; 0: no bursts
	fileOrder bool
	seed      uint64
}

// result is what came of it, in blocks.
type result struct {
	cost   mvcc.Cost
	blocks uint64 // in the backup
	floor  int
	at     int // handed out when the floor was reached
}

// driver is one run.
type driver struct {
	load
	s       *mvcc.Store
	ids     []block.ID // in random order
	sums    []float64  // of the weights of ids
	rng     *rand.Rand
	changed map[block.ID]struct{} // since the backup was opened
}

// run takes one backup of a new database in dir, under the load. o is the store's
// options.
func run(dir string, o mvcc.Options, l load) (r result, err error) {
	o.Durability = mvcc.DurableNever
	s, err := mvcc.Open(dir, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	d := &driver{load: l, s: s, rng: rand.New(rand.NewPCG(l.seed, 1))}
	if err := d.fill(); err != nil {
		return r, err
	}
	if err := d.overwrite(2 * l.blocks); err != nil { // what is hot has to show before
		return r, err
	}
	return d.backup()
}

// fill allocates the blocks and fixes how often each changes.
func (d *driver) fill() error {
	for len(d.ids) < d.blocks {
		tx, err := d.s.BeginWrite()
		if err != nil {
			return err
		}
		for range min(64, d.blocks-len(d.ids)) {
			b, err := tx.Alloc(block.TypeLeaf)
			if err != nil {
				return errors.Join(err, tx.Rollback())
			}
			d.ids = append(d.ids, b.ID())
			b.Release()
		}
		if _, err := tx.Commit(); err != nil {
			return err
		}
	}
	d.rng.Shuffle(len(d.ids), func(i, j int) { d.ids[i], d.ids[j] = d.ids[j], d.ids[i] })
	sum := 0.0
	for rank := range d.ids {
		weight := 1.0
		if d.zipf {
			weight = 1 / float64(rank+1)
		}
		sum += weight
		d.sums = append(d.sums, sum)
	}
	return nil
}

// overwrite changes n blocks, each drawn by its weight.
func (d *driver) overwrite(n int) error {
	for n > 0 {
		tx, err := d.s.BeginWrite()
		if err != nil {
			return err
		}
		for range min(n, perCommit) {
			id := d.ids[sort.SearchFloat64s(d.sums, d.rng.Float64()*d.sums[len(d.sums)-1])]
			b, err := tx.Edit(id)
			if err != nil {
				return errors.Join(err, tx.Rollback())
			}
			binary.LittleEndian.PutUint64(b.Payload(), d.rng.Uint64())
			b.Release()
			if d.changed != nil {
				d.changed[id] = struct{}{}
			}
			n--
		}
		if _, err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

// backup takes a backup and overwrites so many blocks meanwhile.
func (d *driver) backup() (r result, err error) {
	b, err := d.s.OpenBackup(context.Background(), mvcc.BackupOptions{
		Owner: "originals", FullSpeed: true, FileOrder: d.fileOrder, OnExhaustion: mvcc.ExhaustionAbort,
	})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	d.changed = map[block.ID]struct{}{}
	buf, ids := make([]byte, perNext*d.s.BlockSize()), make([]block.ID, perNext)
	handed, idle, due := 0, 0, 0.0
	for {
		n, err := b.Next(context.Background(), buf, ids)
		if err == io.EOF {
			break
		}
		if err != nil {
			return r, err
		}
		handed += n
		due += d.perBlock * float64(n)
		if idle += n; idle >= d.burst {
			idle = 0
			whole := math.Floor(due)
			due -= whole
			if err := d.overwrite(int(whole)); err != nil {
				return r, err
			}
		}
		if over := len(d.changed) - handed; over > r.floor {
			r.floor, r.at = over, handed
		}
	}
	r.cost, r.blocks = b.Cost(), b.Info().Blocks
	if uint64(handed) != r.blocks {
		return r, fmt.Errorf("%d blocks were handed out of %d", handed, r.blocks)
	}
	return r, nil
}

// most is the bound of the peak, as a share of the database; 1 where there is none.
func (l *load) most() float64 {
	a := l.perBlock
	switch {
	case l.burst > 0:
		return 1
	case l.zipf && a <= 5:
		return 0.10
	case l.zipf:
		return 1
	case a < 1:
		return 0.02
	}
	return 1.1*(1-(1+math.Log(a))/a) + 0.02
}
