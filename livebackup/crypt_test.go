package livebackup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
)

// keys are those of one who may read.
type keys struct {
	recipient string
	identity  age.Identity
}

func newKeys(t *testing.T) keys {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return keys{i.Recipient().String(), i}
}

func newHybridKeys(t *testing.T) keys {
	t.Helper()
	i, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return keys{i.Recipient().String(), i}
}

// sealedOptions are for all of who, who reads with the keys of the first.
func sealedOptions(fs vfs.FS, who ...keys) RepositoryOptions {
	o := RepositoryOptions{Create: true, FS: fs, Identities: []age.Identity{who[0].identity}}
	for _, k := range who {
		o.Recipients = append(o.Recipients, k.recipient)
	}
	return o
}

func sealedRepo(t *testing.T, o RepositoryOptions) *Repository {
	t.Helper()
	repo, err := OpenRepository(t.Context(), "/repo", o)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// reading is what o is for one who reads only.
func reading(o RepositoryOptions, who ...keys) RepositoryOptions {
	o.Create, o.Recipients, o.Identities = false, nil, nil
	for _, k := range who {
		o.Identities = append(o.Identities, k.identity)
	}
	return o
}

// All that can be done with a repository can be done with an encrypted one, by each
// of the recipients, whatever kind of key it is.
func TestEncryption_RoundTrip(t *testing.T) {
	for name, who := range map[string][]keys{
		"one":     {newKeys(t)},
		"several": {newKeys(t), newKeys(t), newKeys(t)},
		"hybrid":  {newHybridKeys(t), newHybridKeys(t)},
	} {
		t.Run(name, func(t *testing.T) {
			fs, g := simfs.New(), newGrowing(1)
			o := sealedOptions(fs, who...)
			repo := sealedRepo(t, o)
			for i := range 6 {
				g.backup(t, repo, BackupOptions{Type: []BackupType{TypeFull, TypeIncremental}[i%2], ObjectBytes: 1, GroupBytes: 8 << 10})
				g.change()
			}
			for _, k := range who {
				repo := sealedRepo(t, reading(o, k))
				if !slices.Equal(repo.Recipients(), o.Recipients) {
					t.Fatalf("recipients are %v", repo.Recipients())
				}
				for _, e := range g.wantSound(t, repo) {
					if e.State() != StateComplete {
						t.Fatalf("%v is %s: %v", e.ID, e.State(), e.Damage)
					}
				}
			}
			id := mustList(t, repo)[5].ID
			if _, err := Verify(t.Context(), repo, id, VerifyOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := Restore(t.Context(), repo, RestoreTarget{Backup: id}, "/new", RestoreOptions{FS: fs}); err != nil {
				t.Fatal(err)
			}
			if _, err := Prune(t.Context(), repo, mustPlan(t, repo, RetentionPolicy{Generations: 1})); err != nil {
				t.Fatal(err)
			}
			if list := g.wantSound(t, repo); len(list) != 2 || list[1].State() != StateProven {
				t.Fatalf("%+v", list)
			}
			wantOnly(t, repo, namesOf(t, repo)...)
		})
	}
}

// Nothing of what is encrypted is ever on the disk as it is, in no state of it.
func TestEncryption_NoPlainTextOnDisk(t *testing.T) {
	fs, src := simfs.New(), newFake(1, 6, 4<<10)
	src.info.Database = block.DatabaseID([]byte("sixteen letters!"))
	secret := "Attack at dawn, from the north."
	for _, id := range src.order {
		if id != fakeMeta && id != fakeBitmap {
			image := make([]byte, 4<<10)
			copy(image, secret)
			block.Seal(image, block.Trailer{Type: block.TypeLeaf, ID: id, LSN: 1}, block.SeedOf(src.info.Database))
			src.images[id] = image
		}
	}
	src.put(rand.New(rand.NewPCG(1, 1)), fakeMeta)
	src.putBitmap()
	var written bytes.Buffer
	fs.Trace(func(e simfs.Event) { written.Write(e.Data) })
	repo := sealedRepo(t, sealedOptions(fs, newKeys(t)))
	owner := "somebody with a name"
	if _, err := Backup(t.Context(), src, repo, BackupOptions{Compression: CompressionNone, Owner: owner}); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), repo, BackupID{}, VerifyOptions{}); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"a block": secret, "the manifest": owner, "an index": "SPWYINDX", "the database's id": "sixteen letters!",
		"a timeline": fmt.Sprintf("%x", src.info.Timeline), "a proof": "verified",
	} {
		if bytes.Contains(written.Bytes(), []byte(text)) {
			t.Errorf("%s was written as it is", what)
		}
	}
	if n := bytes.Count(written.Bytes(), []byte("age-encryption.org/v1")); n < 6 {
		t.Fatalf("%d objects were encrypted", n)
	}
}

// Every byte of an encrypted backup counts: whichever is changed, added or missing.
func TestEncryption_EveryFlippedByteIsFound(t *testing.T) {
	who := newKeys(t)
	o := sealedOptions(simfs.New(), who)
	src, repo := newFake(1, 3, 4<<10), sealedRepo(t, o)
	id := mustBackup(t, src, repo, BackupOptions{GroupBytes: 8 << 10}).ID
	o = reading(o, who)
	verify := func() error {
		again, err := OpenRepository(t.Context(), "/repo", o)
		if err == nil {
			_, err = Verify(t.Context(), again, id, VerifyOptions{NoRecord: true})
		}
		return err
	}
	sealed := repo.objects.(*sealedObjects)
	stored := *repo
	stored.objects = sealed.Objects
	for name, data := range objectsOf(t, &stored) {
		for i := range data {
			if i > 200 && i%61 != 0 {
				continue // of one chunk: covered by the same tag
			}
			rewrite(t, repo, name, flipped(data, i))
			if err := verify(); !refused(err) && !errors.Is(err, ErrWrongKey) && !errors.Is(err, ErrNotEncrypted) {
				t.Fatalf("%s, byte %d: %v", name, i, err)
			}
		}
		for _, n := range []int{0, 1, 20, len(data) / 2, len(data) - 17, len(data) - 1} {
			rewrite(t, repo, name, data[:max(0, n)])
			if err := verify(); !refused(err) {
				t.Fatalf("%s, cut to %d: %v", name, n, err)
			}
			if _, k, _, _, _ := parseObjectName(name); k != "" && mustList(t, repo)[0].State() != StateDamaged {
				t.Fatalf("%s, cut to %d: not listed as damaged", name, n)
			}
		}
		rewrite(t, repo, name, append(data[:len(data):len(data)], 0))
		if err := verify(); !refused(err) {
			t.Fatalf("%s with a byte more: %v", name, err)
		}
		rewrite(t, repo, name, data)
	}
	if err := verify(); err != nil {
		t.Fatal(err)
	}
}

// Encrypted objects in each other's place, of one backup and of two, and chunks of them
// in another order or left out, are found: without a key nobody makes a backup of parts.
func TestEncryption_SplicesAreFound(t *testing.T) {
	who := newKeys(t)
	o := sealedOptions(simfs.New(), who)
	src, repo := newFake(1, 60, 4<<10), sealedRepo(t, o)
	b := BackupOptions{Compression: CompressionNone, ObjectBytes: 80 << 10, GroupBytes: 16 << 10}
	first, second := mustBackup(t, src, repo, b).ID, mustBackup(t, src, repo, b).ID
	stored := *repo
	stored.objects = repo.objects.(*sealedObjects).Objects
	objects := objectsOf(t, &stored)
	again, err := OpenRepository(t.Context(), "/repo", reading(o, who))
	if err != nil {
		t.Fatal(err)
	}
	found := func(what string) {
		for _, id := range []BackupID{first, second} {
			if _, err := Verify(t.Context(), again, id, VerifyOptions{NoRecord: true}); refused(err) {
				return
			}
		}
		t.Errorf("%s: both backups verify", what)
	}
	for to, sound := range objects {
		if _, k, _, _, ok := parseObjectName(to); !ok || k == kindRun || k == kindProof {
			continue
		}
		for from, other := range objects {
			if from != to {
				rewrite(t, repo, to, other)
				found(from + " in the place of " + to)
			}
		}
		const chunk = 64<<10 + 16 // of age: what it seals by itself
		if at := len(sound) - 2*chunk; at > 0 {
			swapped := slices.Concat(sound[:at], sound[at+chunk:], sound[at:at+chunk])
			rewrite(t, repo, to, swapped)
			found(to + " with its last chunks swapped")
			rewrite(t, repo, to, slices.Concat(sound[:at], sound[at+chunk:]))
			found(to + " with a chunk left out")
		}
		rewrite(t, repo, to, sound)
	}
	for _, id := range []BackupID{first, second} {
		if _, err := Verify(t.Context(), again, id, VerifyOptions{NoRecord: true}); err != nil {
			t.Error(err)
		}
	}
}

// A sealed object has the bytes of the object, at every offset.
func TestEncryption_RandomAccess(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	repo := sealedRepo(t, sealedOptions(simfs.New(), newKeys(t)))
	stored := repo.objects.(*sealedObjects).Objects
	before := int64(-1)
	for i, size := range []int{0, 1, 15, 16, 17, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, 300_000} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		name := objectName(BackupID{1, 1}, kindBlocks, uint32(i+1))
		if err := repo.put(t.Context(), name, data); err != nil {
			t.Fatal(err)
		}
		r, err := repo.objects.Open(t.Context(), name)
		if err != nil || r.Size() != int64(size) {
			t.Fatalf("%d bytes: %v", size, err)
		}
		for range 50 {
			off := rng.IntN(size + 1)
			p := make([]byte, rng.IntN(size-off+3))
			n, err := r.ReadAt(p, int64(off))
			if want := min(len(p), size-off); n != want || !bytes.Equal(p[:n], data[off:off+n]) || err != nil && err != io.EOF || n < len(p) && err != io.EOF {
				t.Fatalf("%d bytes at %d of %d: %d, %v", len(p), off, size, n, err)
			}
		}
		if n, err := r.ReadAt(make([]byte, 1), int64(size)+1); n != 0 || err != io.EOF {
			t.Fatalf("behind the end: %d, %v", n, err)
		}
		r.Close()
		raw, err := stored.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if header := raw.Size() - sealedBytes(int64(size)); before >= 0 && header != before {
			t.Fatalf("%d bytes: header of %d bytes, it was %d", size, header, before)
		} else {
			before = header
		}
		raw.Close()
	}
}

// Who has no key, or another's, gets an error that says so, before he gets anything
// else; and who has keys is not led to write without.
func TestEncryption_KeysThatDoNotFit(t *testing.T) {
	fs, a, b := simfs.New(), newKeys(t), newKeys(t)
	o := sealedOptions(fs, a)
	repo := sealedRepo(t, o)
	mustBackup(t, newFake(1, 3, 4<<10), repo, BackupOptions{})
	open := func(dir string, o RepositoryOptions, want error) {
		t.Helper()
		if _, err := OpenRepository(t.Context(), dir, o); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	open("/repo", reading(o), ErrKeyNeeded)
	open("/repo", reading(o, b), ErrWrongKey)
	open("/repo", reading(o, b, a), nil)
	open("/repo", sealedOptions(fs, b), ErrWrongKey) // its own recipient, but not the repository's
	open("/other", RepositoryOptions{Create: true, FS: fs, Recipients: o.Recipients}, ErrKeyNeeded)
	open("/other", RepositoryOptions{Create: true, FS: fs, Identities: o.Identities}, ErrOptions)
	open("/other", RepositoryOptions{Create: true, FS: fs, Recipients: o.Recipients, Identities: []age.Identity{b.identity}}, ErrWrongKey)
	openRepo(t, fs, "/plain")
	open("/plain", o, ErrNotEncrypted)
	open("/plain", reading(o, a), ErrNotEncrypted)
	if _, err := OpenRepository(t.Context(), "/none", RepositoryOptions{Create: true, FS: fs, Recipients: []string{fmt.Sprint(a.identity)}, Identities: o.Identities}); err == nil || strings.Contains(err.Error(), "AGE-SECRET") {
		t.Error(err)
	}
}

// A kind of encryption that this program does not know.
func TestEncryption_UnknownKindIsANewerVersion(t *testing.T) {
	repo := newRepo(t)
	data, err := encodeEnvelope(magicHeader, identity{repository: repo.id}, repositoryHeader{Encryption: "rot13"})
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, repo, headerName, data)
	if _, err := OpenRepository(t.Context(), "/repo", RepositoryOptions{FS: repo.fs}); !errors.Is(err, ErrVersion) {
		t.Fatal(err)
	}
}

// New recipients are those of what is written from then on.
func TestEncryption_NewRecipients(t *testing.T) {
	fs, a, b := simfs.New(), newKeys(t), newKeys(t)
	old := sealedOptions(fs, a)
	g := newGrowing(1)
	g.backup(t, sealedRepo(t, old), BackupOptions{Type: TypeFull})
	g.change()
	o := sealedOptions(fs, b)
	o.Identities = append(o.Identities, a.identity)
	repo := sealedRepo(t, o)
	second := g.backup(t, repo, BackupOptions{Type: TypeIncremental}).ID
	for _, e := range g.wantSound(t, repo) {
		if e.State() != StateComplete {
			t.Fatalf("%v is %s: %v", e.ID, e.State(), e.Damage)
		}
	}
	repo = sealedRepo(t, reading(old, a)) // who has the old key only
	list := mustList(t, repo)
	if list[0].State() != StateComplete || list[1].State() != StateUnreadable || !errors.Is(list[1].Unreadable, ErrWrongKey) {
		t.Fatalf("%+v", list)
	}
	if _, err := Verify(t.Context(), repo, second, VerifyOptions{}); !errors.Is(err, ErrWrongKey) {
		t.Fatal(err)
	}
	// What it cannot read may need what it can.
	g.change()
	if _, err := Backup(t.Context(), g, repo, BackupOptions{}); !errors.Is(err, ErrWrongKey) {
		t.Fatal(err)
	}
	if plan := mustPlan(t, repo, RetentionPolicy{Generations: 1}); plan.removesAny() {
		t.Fatal(reasons(plan))
	}
}

// L12 under a power cut at every event of an encrypted backup.
func TestL12_PowerCutAtEveryEvent_Encrypted(t *testing.T) {
	who := newKeys(t)
	base, src := simfs.New(), newFake(1, 4, 4<<10)
	o := sealedOptions(base, who)
	first := mustBackup(t, src, sealedRepo(t, o), sweepOptions).ID
	base = base.Crash(nil, simfs.DropAll)
	for k := 0; ; k++ {
		fs := base.Crash(nil, simfs.KeepAll)
		o.FS = fs
		repo := sealedRepo(t, o)
		fs.CutAfter(k)
		res, err := Backup(t.Context(), src, repo, sweepOptions)
		for seed := range uint64(3) {
			o.FS = fs.Crash(rand.New(rand.NewPCG(seed, uint64(k))), []simfs.Mode{simfs.DropAll, simfs.KeepAll, simfs.Random}[seed])
			after := sealedRepo(t, o)
			listed := map[BackupID]bool{}
			for _, e := range mustList(t, after) {
				listed[e.ID] = true
				sameImages(t, contents(t, after, e.ID), src.images)
			}
			if !listed[first] || err == nil && !listed[res.Manifest.ID] {
				t.Fatalf("event %d, state %d: %v", k, seed, listed)
			}
		}
		if !fs.IsCut() {
			return
		}
	}
}

// An error of the medium is no damage, and no wrong key.
func TestEncryption_ErrorsOfTheMedium(t *testing.T) {
	fs := simfs.New()
	repo := sealedRepo(t, sealedOptions(fs, newKeys(t)))
	id := mustBackup(t, newFake(1, 40, 4<<10), repo, BackupOptions{Compression: CompressionNone}).ID
	for skip := range 12 {
		armed := fs.Fail(simfs.Fault{Ops: simfs.OpRead, File: "*.blocks-*", Skip: skip})
		_, err := Verify(t.Context(), repo, id, VerifyOptions{})
		armed.Disarm()
		if armed.Fired() > 0 && (!errors.Is(err, syscall.EIO) || errors.Is(err, block.ErrCorrupt) || errors.Is(err, ErrWrongKey)) {
			t.Fatalf("read %d: %v", skip, err)
		}
	}
	if e := mustList(t, repo)[0]; e.State() != StateProven && e.State() != StateComplete {
		t.Fatalf("%+v", e)
	}
}

// Key files that others can have or change are refused.
func TestEncryption_KeyFiles(t *testing.T) {
	dir, k := t.TempDir(), newKeys(t)
	secret := fmt.Sprint(k.identity)
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Chmod(file, mode)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := write("good", "# created today\n\n"+secret+"\n", 0o600)
	if list, err := ReadIdentities(good, good); err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	public := write("public", "# mine\n"+k.recipient+"\n\n"+newHybridKeys(t).recipient+"\n", 0o644)
	if list, err := ReadRecipients(public); err != nil || len(list) != 2 || list[0] != k.recipient {
		t.Fatalf("%v, %v", list, err)
	}
	bad := map[string]func() error{
		"secret as recipient": func() error { _, err := ReadRecipients(write("s", secret, 0o600)); return err },
		"public as identity":  func() error { _, err := ReadIdentities(write("p", k.recipient, 0o600)); return err },
		"nothing":             func() error { _, err := ReadIdentities(write("n", "# no key\n", 0o600)); return err },
		"no recipient":        func() error { _, err := ReadRecipients(write("e", "", 0o600)); return err },
		"a directory":         func() error { _, err := ReadIdentities(dir); return err },
	}
	if runtime.GOOS != "windows" {
		bad["others may read"] = func() error { _, err := ReadIdentities(write("r", secret, 0o640)); return err }
		bad["others may add"] = func() error { _, err := ReadRecipients(write("w", k.recipient, 0o622)); return err }
	}
	for name, read := range bad {
		if err := read(); !errors.Is(err, ErrKeyFile) || strings.Contains(err.Error(), secret[20:]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadIdentities(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := os.Symlink(good, filepath.Join(dir, "link")); err == nil {
		if _, err := ReadIdentities(filepath.Join(dir, "link")); err != nil {
			t.Error(err)
		}
	}
}

// An encrypted repository of this version is read by every later program. Its
// identity is no secret.
func TestGoldenEncryptedRepository(t *testing.T) {
	dir := filepath.Join("testdata", "repository-age-v1")
	identities, err := age.ParseIdentities(strings.NewReader(goldenIdentity))
	if err != nil {
		t.Fatal(err)
	}
	src := newFake(1, 6, 4<<10)
	o := RepositoryOptions{Identities: identities}
	if *rewriteGolden {
		os.RemoveAll(dir)
		new := o
		new.Create, new.Recipients = true, []string{identities[0].(*age.X25519Identity).Recipient().String()}
		repo, err := OpenRepository(t.Context(), dir, new)
		if err != nil {
			t.Fatal(err)
		}
		mustBackup(t, src, repo, BackupOptions{Owner: "golden", GroupBytes: 16 << 10})
		if _, err := Verify(t.Context(), repo, BackupID{}, VerifyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	repo, err := OpenRepository(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	list := mustList(t, repo)
	if len(list) != 1 || list[0].State() != StateProven {
		t.Fatalf("%+v", list)
	}
	sameImages(t, contents(t, repo, list[0].ID), src.images)
	if infos, err := Timelines(t.Context(), repo); err != nil || len(infos) != 1 || infos[0].Timeline != src.info.Timeline {
		t.Fatalf("%+v, %v", infos, err)
	}
}

const goldenIdentity = "AGE-SECRET-KEY-1TGQYN0JA28RGGJW8XQNKV7NZWTHTMFVDUGDWRLT83ZLE7XQ6E0LQFP2Z5L"
