package livebackup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// Encryption of a repository. An encrypted one is made with recipients, which are
// public keys; whoever has the identity of one of them, which is a secret key, can
// read it. Below the objects' formats nothing changes: a port stands between, and
// what it stores under an object's name is an age file (age-encryption.org/v1) of
// the object's bytes, to all recipients. So each object has a key of its own, each 64
// KiB of it are authenticated before anybody sees them, and so are their order and
// their end. Sizes and offsets are those of the object, not of the file.
//
// Not encrypted are the header, which says that the others are, and claims, which
// are no objects: they say which backups are in use, and by which process. Names of
// objects show how many backups there are, and which LSNs log is of.
//
// Anybody who knows the recipients, and they are in the header, can make objects
// that decrypt: that an object is authentic says that it is whole, not who made it.
// And whoever can write to the repository can write himself among the recipients in
// the header. Options that name the recipients are not taken in by that.
//
// New recipients are those that options name: what is written from then on is for
// them. What was written before stays as it is, and its identities stay needed.

// encryptionAge is the one kind of encryption that there is, as the header has it.
const encryptionAge = "age"

// Errors of keys.
var (
	// ErrKeyNeeded: the repository is encrypted, and no identity was given.
	ErrKeyNeeded = errors.New("repository is encrypted: an identity is needed")
	// ErrWrongKey: none of the identities that were given opens it.
	ErrWrongKey = errors.New("none of the identities given can decrypt this")
	// ErrNotEncrypted: keys were given for a repository that is not encrypted.
	ErrNotEncrypted = errors.New("keys were given, and the repository is not encrypted")
)

// sealedObjects keeps objects encrypted in other objects. Safe for concurrent use.
type sealedObjects struct {
	Objects
	recipients []age.Recipient
	identities []age.Identity
}

// isPlain reports whether what is called name is not encrypted.
func isPlain(name string) bool {
	_, lease := parseLeaseName(name)
	return name == headerName || name == pruneName || lease || strings.HasSuffix(name, "."+string(kindRun)) ||
		strings.HasPrefix(name, "archive-") || name == mergeName // the claims of who archives log, and who merges it
}

func (s *sealedObjects) Create(ctx context.Context, name string) (ObjectWriter, error) {
	w, err := s.Objects.Create(ctx, name)
	if err != nil || isPlain(name) {
		return w, err
	}
	out := &sealedWriter{w: w, buf: bufio.NewWriterSize(w, sealedWriteBytes)}
	if out.enc, err = age.Encrypt(out.buf, s.recipients...); err != nil {
		w.Abort()
		return nil, fmt.Errorf("encrypt %s: %w", name, err)
	}
	return out, nil
}

// sealedWriteBytes is how much is encrypted before it is written.
const sealedWriteBytes = 256 << 10

type sealedWriter struct {
	w   ObjectWriter
	buf *bufio.Writer
	enc io.WriteCloser
}

func (w *sealedWriter) Write(p []byte) (int, error) { return w.enc.Write(p) }

func (w *sealedWriter) Commit() error {
	if err := w.enc.Close(); err != nil {
		return err
	}
	if err := w.buf.Flush(); err != nil {
		return err
	}
	return w.w.Commit()
}

func (w *sealedWriter) Abort() { w.w.Abort() }

func (s *sealedObjects) Open(ctx context.Context, name string) (ObjectReader, error) {
	in, err := s.Objects.Open(ctx, name)
	if err != nil || isPlain(name) {
		return in, err
	}
	r := &sealedReader{name: name, in: in}
	r.plain, r.size, err = age.DecryptReaderAt(medium{in}, in.Size(), s.identities...)
	if err != nil {
		in.Close()
		return nil, r.explain(-1, err)
	}
	return r, nil
}

// sealedReader gives out nothing that was not authenticated.
type sealedReader struct {
	name  string
	in    ObjectReader
	plain io.ReaderAt
	size  int64
}

func (r *sealedReader) Size() int64  { return r.size }
func (r *sealedReader) Close() error { return r.in.Close() }

func (r *sealedReader) ReadAt(p []byte, off int64) (int, error) {
	if off > r.size {
		return 0, io.EOF
	}
	n, err := r.plain.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = r.explain(off, err)
	}
	return n, err
}

// explain tells what is wrong with the medium or the key from what is wrong with the
// object. A key that fits nothing may also be one to which damage was done.
func (r *sealedReader) explain(off int64, err error) error {
	var noMatch *age.NoIdentityMatchError
	var key *identityError
	var read *mediumError
	switch {
	case errors.As(err, &read):
		return read.err
	case errors.As(err, &key):
		return fmt.Errorf("%s: ask an identity for its key: %w", r.name, key.err)
	case errors.As(err, &noMatch):
		return fmt.Errorf("%s: %w", r.name, ErrWrongKey)
	}
	return damaged(r.name, off, "it does not decrypt", err)
}

// medium tells its own errors from others'.
type medium struct{ io.ReaderAt }

func (m medium) ReadAt(p []byte, off int64) (int, error) {
	n, err := m.ReaderAt.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = &mediumError{err}
	}
	return n, err
}

type mediumError struct{ err error }

func (e *mediumError) Error() string { return e.err.Error() }
func (e *mediumError) Unwrap() error { return e.err }

// foreignIdentity is an identity that is not age's own: its errors may be those of a
// device or a service, and say nothing of the object.
type foreignIdentity struct{ age.Identity }

func (i foreignIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	key, err := i.Identity.Unwrap(stanzas)
	if err != nil && !errors.Is(err, age.ErrIncorrectIdentity) {
		err = &identityError{err}
	}
	return key, err
}

type identityError struct{ err error }

func (e *identityError) Error() string { return e.err.Error() }

func markForeign(identities []age.Identity) (list []age.Identity) {
	for _, i := range identities {
		switch i.(type) {
		case *age.X25519Identity, *age.HybridIdentity:
			list = append(list, i)
		default:
			list = append(list, foreignIdentity{i})
		}
	}
	return list
}

// Sizes of an age file behind its header.
const (
	sealedNonceBytes = 16
	sealedChunkBytes = 64 << 10
	sealedTagBytes   = 16 // of each chunk
)

// sealedBytes is what n bytes take in an age file, but for the header.
func sealedBytes(n int64) int64 {
	return sealedNonceBytes + n + sealedTagBytes*max(1, (n+sealedChunkBytes-1)/sealedChunkBytes)
}

// storedBytes is what an object of n bytes takes, but for what is the same for all
// objects that are for the same recipients.
func (r *Repository) storedBytes(n int64) int64 {
	if len(r.recipients) == 0 {
		return n
	}
	return sealedBytes(n)
}

// unseal makes objects those of an encrypted repository, if its header says that it
// is one, and refuses keys that do not fit.
func (r *Repository) unseal(ctx context.Context, h repositoryHeader, o RepositoryOptions) error {
	switch {
	case h.Encryption == "" && len(h.Recipients) > 0:
		return damaged(headerName, -1, "recipients without encryption", nil)
	case h.Encryption == "" && len(o.Recipients)+len(o.Identities) > 0:
		return ErrNotEncrypted
	case h.Encryption == "":
		return nil
	case h.Encryption != encryptionAge:
		return fmt.Errorf("%s: %w: encryption %q", headerName, ErrVersion, h.Encryption)
	case len(o.Identities) == 0:
		return ErrKeyNeeded
	}
	names := h.Recipients
	if len(o.Recipients) > 0 {
		names = o.Recipients
	}
	s, err := newSealed(r.objects, names, o.Identities)
	if err != nil {
		return err
	}
	r.objects, r.recipients = s, names
	// What is there already may be for others.
	if _, _, err := r.Database(ctx); errors.Is(err, ErrWrongKey) {
		return err
	}
	return nil
}

// checkKeys refuses keys that no repository should be made with.
func (r *Repository) checkKeys(o RepositoryOptions) error {
	switch {
	case len(o.Recipients) == 0:
		return optionError("identities without recipients: for whom is the repository to be encrypted?")
	case len(o.Identities) == 0:
		return fmt.Errorf("%w, to prove that what is written can be read", ErrKeyNeeded)
	}
	_, err := newSealed(r.objects, o.Recipients, o.Identities)
	return err
}

// newSealed proves that what it will write can be read.
func newSealed(objects Objects, recipients []string, identities []age.Identity) (*sealedObjects, error) {
	s := &sealedObjects{Objects: objects, identities: markForeign(identities)}
	var err error
	if s.recipients, err = parseRecipients(recipients); err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, s.recipients...)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt to the recipients: %w", err)
	}
	if _, err := age.Decrypt(&sealed, s.identities...); err != nil {
		var noMatch *age.NoIdentityMatchError
		if errors.As(err, &noMatch) {
			return nil, fmt.Errorf("what is for the recipients: %w", ErrWrongKey)
		}
		return nil, fmt.Errorf("decrypt what is for the recipients: %w", err)
	}
	return s, nil
}

// Recipients are the public keys for which new objects are encrypted; none if the
// repository is not encrypted.
func (r *Repository) Recipients() []string { return r.recipients }
