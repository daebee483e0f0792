package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// Repository keeps the backups of one database. It holds nothing open and
// needs no Close. Safe for concurrent use, also by several processes.
type Repository struct {
	objects    Objects
	id         RepositoryID
	dir        string // "" if it is not a local directory
	fs         vfs.FS
	made       bool
	recipients []string // none: it is not encrypted
}

// RepositoryOptions of OpenRepository.
type RepositoryOptions struct {
	// Create makes the repository if the directory is missing or empty. Its
	// parent must exist.
	Create bool

	// Recipients are public keys (age1...). A repository that is made with some is
	// encrypted, for all of them. For one that is there already they take the place
	// of those that it was made with, from now on.
	Recipients []string
	// Identities are secret keys, of which one must be that of a recipient: what is
	// written is read back. ErrKeyNeeded and ErrWrongKey, if the repository is
	// encrypted and there is none, or not the right one; ErrNotEncrypted if there are
	// keys and it is not encrypted. See ReadIdentities.
	Identities []age.Identity

	FS vfs.FS // nil: vfs.OS
}

// repositoryHeader is the payload of object "repository".
type repositoryHeader struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`

	Encryption string   `json:"encryption,omitempty"` // of every other object: none, or "age"
	Recipients []string `json:"recipients,omitempty"` // for whom, unless options name others
}

// databaseBinding is the payload of object "database". The first backup writes it.
type databaseBinding struct {
	Bound time.Time `json:"bound"`
}

// OpenRepository opens the repository in directory dir.
func OpenRepository(ctx context.Context, dir string, o RepositoryOptions) (*Repository, error) {
	if o.FS == nil {
		o.FS = vfs.OS
	}
	if o.Create {
		if err := makeDir(o.FS, dir); err != nil {
			return nil, fmt.Errorf("create repository %s: %w", dir, err)
		}
	}
	info, err := o.FS.Lstat(filepath.Join(dir, "."))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("open repository %s: %w", dir, ErrRepositoryNotFound)
	case err == nil && !info.IsDir() && info.Mode()&fs.ModeSymlink == 0:
		return nil, fmt.Errorf("open repository %s: %w: it is no directory", dir, ErrNotRepository)
	case err != nil:
		return nil, fmt.Errorf("open repository: %w", err)
	}
	r := &Repository{objects: &localObjects{fs: o.FS, dir: dir}, dir: dir, fs: o.FS}
	if err := r.open(ctx, o); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", dir, err)
	}
	return r, nil
}

// makeDir makes a private directory if it is missing, durably.
func makeDir(fsys vfs.FS, dir string) error {
	err := fsys.Mkdir(dir, dirMode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	synced := fsys.SyncDir(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return nil // one who made it may have died before this; it need not be ours to sync
	}
	return synced
}

// Made reports whether OpenRepository found nothing and made the repository: to
// whoever expected one, a sign of a mistyped path or of a disk that is not mounted.
func (r *Repository) Made() bool { return r.made }

// ID is the repository's own name, drawn when it was made.
func (r *Repository) ID() RepositoryID { return r.id }

func (r *Repository) open(ctx context.Context, o RepositoryOptions) error {
	h, err := r.readHeader(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		h, err = r.make(ctx, o)
	}
	if err != nil {
		return err
	}
	return r.unseal(ctx, h, o)
}

// make writes the header of a new repository.
func (r *Repository) make(ctx context.Context, o RepositoryOptions) (h repositoryHeader, err error) {
	if !o.Create {
		return h, fmt.Errorf("%w: it has no header", ErrNotRepository)
	}
	if err := r.checkVacant(); err != nil {
		return h, err
	}
	h = repositoryHeader{Created: time.Now().UTC(), CreatedBy: createdBy}
	if len(o.Recipients)+len(o.Identities) > 0 {
		h.Encryption, h.Recipients = encryptionAge, o.Recipients
		if err := r.checkKeys(o); err != nil {
			return h, err
		}
	}
	err = r.writeHeader(ctx, h)
	if err != nil && !errors.Is(err, ErrObjectExists) {
		return h, err
	}
	r.made = err == nil
	return r.readHeader(ctx) // ours, or that of one who was faster
}

// checkVacant refuses a directory in which there is anything but headers that
// somebody began to write.
func (r *Repository) checkVacant() error {
	entries, err := r.fs.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), headerName+".") || !strings.HasSuffix(e.Name(), tempSuffix) {
			return fmt.Errorf("%w: it has no header, and holds %s", ErrNotRepository, e.Name())
		}
	}
	return nil
}

func (r *Repository) readHeader(ctx context.Context) (h repositoryHeader, err error) {
	data, err := readSmall(ctx, r.objects, headerName, smallBytesMax)
	if err != nil {
		return h, err
	}
	if len(data) < len(magicHeader) || magic(data[:8]) != magicHeader {
		return h, fmt.Errorf("%w: its header is something else", ErrNotRepository)
	}
	who, err := decodeEnvelope(headerName, data, magicHeader, &h)
	r.id = who.repository
	return h, err
}

func (r *Repository) writeHeader(ctx context.Context, h repositoryHeader) error {
	data, err := encodeEnvelope(magicHeader, identity{repository: newRepositoryID()}, h)
	if err != nil {
		return err
	}
	if len(data) > smallBytesMax {
		return optionError("%d recipients are more than a header has room for", len(h.Recipients))
	}
	return r.put(ctx, headerName, data)
}

// put publishes a small object, if its name is free.
func (r *Repository) put(ctx context.Context, name string, data []byte) error {
	w, err := r.objects.Create(ctx, name)
	if err != nil {
		return writeError("write "+name, err)
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return writeError("write "+name, err)
	}
	if err := w.Commit(); err != nil {
		return writeError("publish "+name, err)
	}
	return nil
}

// Database returns whose backups these are; ok is false before the first.
func (r *Repository) Database(ctx context.Context) (db block.DatabaseID, ok bool, err error) {
	db, err = r.readOwn(ctx, bindingName, smallBytesMax, magicBinding, &databaseBinding{})
	if errors.Is(err, fs.ErrNotExist) {
		return db, false, nil
	}
	return db, err == nil, err
}

// readOwn reads an object that is an envelope, its payload into v, and proves that it is
// this repository's. It returns the database that it names.
func (r *Repository) readOwn(ctx context.Context, name string, limit int64, m magic, v any) (block.DatabaseID, error) {
	data, err := readSmall(ctx, r.objects, name, limit)
	if err != nil {
		return block.DatabaseID{}, err
	}
	who, err := decodeEnvelope(name, data, m, v)
	if err == nil && who.repository != r.id {
		err = damaged(name, -1, "it belongs to repository "+who.repository.String(), nil)
	}
	return who.database, err
}

// bind makes the repository that of database db, or refuses.
func (r *Repository) bind(ctx context.Context, db block.DatabaseID) error {
	owner, bound, err := r.Database(ctx)
	if err == nil && !bound {
		if err = r.writeBinding(ctx, db); err != nil && !errors.Is(err, ErrObjectExists) {
			return err
		}
		if err := r.makeIntent(ctx); err != nil {
			return err
		}
		owner, _, err = r.Database(ctx) // ours, or that of one who was faster
	}
	if err != nil {
		return err
	}
	if owner != db {
		return fmt.Errorf("%w: it keeps %v, this is %v", ErrForeignDatabase, owner, db)
	}
	return nil
}

func (r *Repository) writeBinding(ctx context.Context, db block.DatabaseID) error {
	data, err := encodeEnvelope(magicBinding, identity{r.id, db}, databaseBinding{Bound: time.Now().UTC()})
	if err != nil {
		return err
	}
	return r.put(ctx, bindingName, data)
}

// openObject opens an object that must be there.
func openObject(ctx context.Context, objects Objects, name string) (ObjectReader, error) {
	r, err := objects.Open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged(name, -1, "object is missing", err)
	}
	return r, err
}

// readSmall reads a whole object of at most limit bytes.
func readSmall(ctx context.Context, objects Objects, name string, limit int64) ([]byte, error) {
	r, err := objects.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Size() > limit {
		return nil, damaged(name, -1, fmt.Sprintf("%d bytes are more than the %d that it may have", r.Size(), limit), nil)
	}
	data := make([]byte, r.Size())
	if err := readFull(r, data, 0); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}
