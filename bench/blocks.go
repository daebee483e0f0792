package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// The rows about backups by themselves need blocks, not records: a database of which
// a share of the blocks changed, chosen uniformly. It is a directory with the database
// and a list of its blocks.

const (
	blocksDB   = "db"
	blocksList = "blocks"
)

// blocksRAM is MaxRAM of such a database: most of it is on disk.
const blocksRAM = 64 << 20

// blocksPerTx is how many blocks a transaction writes.
const blocksPerTx = 1000

// openBlocks opens the database of blocks of a task.
func (m *measurement) openBlocks() (*mvcc.Store, error) {
	return mvcc.Open(filepath.Join(m.Dir, blocksDB), mvcc.Options{
		MaxRAM: blocksRAM, Durability: mvcc.DurableNever, FS: readingFS{vfs.OS, &m.databaseRead},
	})
}

// readingFS counts the bytes that are read through it.
type readingFS struct {
	vfs.FS
	read *atomic.Int64
}

func (r readingFS) OpenFile(name string, flag int, perm fs.FileMode) (vfs.File, error) {
	f, err := r.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return readingFile{f, r.read}, nil
}

type readingFile struct {
	vfs.File
	read *atomic.Int64
}

func (f readingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.read.Add(int64(n))
	return n, err
}

// fillBlocks makes a database of m.Records blocks that do not compress.
func (m *measurement) fillBlocks(ctx context.Context) error {
	store, err := m.openBlocks()
	if err != nil {
		return err
	}
	src := newSource(1, 0)
	list := make([]byte, 0, 8*m.Records)
	for err == nil && len(list) < 8*m.Records {
		list, err = allocBlocks(store, src, list, min(blocksPerTx, m.Records-len(list)/8))
		err = errors.Join(err, ctx.Err())
	}
	return errors.Join(err, store.Close(), os.WriteFile(filepath.Join(m.Dir, blocksList), list, 0o600))
}

// allocBlocks writes n new blocks in one transaction and appends their numbers.
func allocBlocks(store *mvcc.Store, src source, list []byte, n int) ([]byte, error) {
	return list, transact(store, func(tx *mvcc.WriteTx) error {
		for range n {
			b, err := tx.Alloc(block.TypeUser)
			if err != nil {
				return err
			}
			src.fill(b.Payload())
			list = binary.LittleEndian.AppendUint64(list, uint64(b.ID()))
			b.Release()
		}
		return nil
	})
}

func transact(store *mvcc.Store, fn func(*mvcc.WriteTx) error) error {
	tx, err := store.BeginWrite()
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	_, err = tx.Commit()
	return err
}

// changeBlocks changes one in so many blocks, chosen uniformly.
func (m *measurement) changeBlocks(ctx context.Context, oneIn int) (err error) {
	list, err := os.ReadFile(filepath.Join(m.Dir, blocksList))
	if err != nil {
		return err
	}
	store, err := m.openBlocks()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	src := newSource(uint64(os.Getpid()), 1)
	count := len(list) / 8
	for left := max(1, count/oneIn); left > 0 && ctx.Err() == nil; left -= blocksPerTx {
		err := transact(store, func(tx *mvcc.WriteTx) error {
			for range min(left, blocksPerTx) {
				at := 8 * src.IntN(count)
				b, err := tx.Edit(block.ID(binary.LittleEndian.Uint64(list[at:])))
				if err != nil {
					return err
				}
				src.fill(b.Payload()[:256])
				b.Release()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// repository is that of a task; it is made when it is first asked for.
func (m *measurement) repository(ctx context.Context) (*livebackup.Repository, error) {
	return livebackup.OpenRepository(ctx, m.repositoryDir(), livebackup.RepositoryOptions{Create: true})
}

func (m *measurement) repositoryDir() string { return filepath.Join(m.Backup.Dir, "repository") }

// backupBlocks makes a backup of the database of blocks, none of which is in memory
// when it starts.
func (m *measurement) backupBlocks(ctx context.Context, kind livebackup.BackupType) (r timed, err error) {
	repo, err := m.repository(ctx)
	if err == nil {
		err = errors.Join(DropFileCache(m.Dir), DropFileCache(m.repositoryDir()))
	}
	if err != nil {
		return r, err
	}
	store, err := m.openBlocks()
	if err != nil {
		return r, err
	}
	r, err = m.measureTime(func() error {
		res, err := livebackup.Backup(ctx, livebackup.NewSource(store), repo, livebackup.BackupOptions{
			Type: kind, Compression: livebackup.CompressionNone, Owner: "bench",
		})
		if err == nil && res.Manifest.Kind != string(kind) {
			err = fmt.Errorf("a %s backup was made where a %s one was asked for", res.Manifest.Kind, kind)
		}
		return err
	})
	return r, errors.Join(err, store.Close())
}

// databaseBytes is the size of the data file of the database of blocks.
func (m *measurement) databaseBytes() (float64, error) {
	n, err := dataBytes(filepath.Join(m.Dir, blocksDB))
	return float64(n), err
}
