package vfstest

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"slices"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// is checks an error's sentinel, and that it is of one of the kinds promised.
func (b *bench) is(err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Fatalf("error is %v, want %v", err, want)
	}
	var pathErr *fs.PathError
	var linkErr *os.LinkError
	if !errors.As(err, &pathErr) && !errors.As(err, &linkErr) {
		b.Fatalf("error %v is a %T, want a path or link error", err, err)
	}
}

func testOpenCreate(b *bench) {
	_, err := b.fs.OpenFile(b.path("a"), os.O_RDWR, 0)
	b.is(err, fs.ErrNotExist)
	b.create("a", "one")
	_, err = b.fs.OpenFile(b.path("a"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	b.is(err, fs.ErrExist)
	b.holds(b.open("a", os.O_RDWR|os.O_CREATE), "one")
	b.holds(b.open("new", os.O_RDWR|os.O_CREATE), "")
}

func testOpenDirectory(b *bench) {
	b.ok(b.fs.Mkdir(b.path("d"), 0o700))
	if f, err := b.fs.OpenFile(b.path("d"), os.O_RDONLY, 0); err == nil {
		f.Close()
		b.Fatal("opened a directory")
	}
}

func testModes(b *bench) {
	if runtime.GOOS == "windows" {
		b.Skip("no modes on this system")
	}
	for _, perm := range []fs.FileMode{0o600, 0o640, 0o666} {
		name := b.path("f" + perm.String())
		f, err := b.fs.OpenFile(name, os.O_RDWR|os.O_CREATE, perm)
		b.ok(err)
		b.ok(f.Close())
		b.mode(name, perm)
	}
	for _, perm := range []fs.FileMode{0o700, 0o777} {
		name := b.path("d" + perm.String())
		b.ok(b.fs.Mkdir(name, perm))
		b.mode(name, perm|fs.ModeDir)
	}
}

func (b *bench) mode(name string, want fs.FileMode) {
	b.Helper()
	info, err := b.fs.Lstat(name)
	b.ok(err)
	if info.Mode() != want {
		b.Errorf("%s: mode is %v, want %v", name, info.Mode(), want)
	}
}

func testOpenTruncate(b *bench) {
	b.create("a", "something")
	b.holds(b.open("a", os.O_RDWR|os.O_TRUNC), "")
}

func testRename(b *bench) {
	b.create("old", "new content")
	replaced := b.create("name", "old content")
	b.ok(b.fs.Rename(b.path("old"), b.path("name")))
	b.holds(b.open("name", os.O_RDONLY), "new content")
	b.holds(replaced, "old content")
	_, err := b.fs.Lstat(b.path("old"))
	b.is(err, fs.ErrNotExist)
	b.is(b.fs.Rename(b.path("old"), b.path("x")), fs.ErrNotExist)

	b.ok(b.fs.Mkdir(b.path("d"), 0o700))
	b.ok(b.fs.Rename(b.path("name"), b.path("d/name")))
	b.holds(b.open("d/name", os.O_RDONLY), "new content")
	b.ok(b.fs.Rename(b.path("d"), b.path("e")))
	b.holds(b.open("e/name", os.O_RDONLY), "new content")
}

func testLink(b *bench) {
	f := b.create("a", "one")
	b.ok(b.fs.Link(b.path("a"), b.path("b")))
	b.write(f, "two", 0)
	b.holds(b.open("b", os.O_RDONLY), "two")
	b.create("taken", "theirs")
	b.is(b.fs.Link(b.path("a"), b.path("taken")), fs.ErrExist)
	b.holds(b.open("taken", os.O_RDONLY), "theirs")
	b.ok(b.fs.Remove(b.path("a")))
	b.holds(b.open("b", os.O_RDONLY), "two")
	b.is(b.fs.Link(b.path("a"), b.path("c")), fs.ErrNotExist)
}

func testRemove(b *bench) {
	f := b.create("a", "still here")
	b.ok(b.fs.Remove(b.path("a")))
	b.is(b.fs.Remove(b.path("a")), fs.ErrNotExist)
	b.write(f, "!", 10)
	b.holds(f, "still here!")

	b.ok(b.fs.Mkdir(b.path("d"), 0o700))
	b.create("d/x", "")
	if err := b.fs.Remove(b.path("d")); err == nil {
		b.Fatal("removed a directory that is not empty")
	}
	b.ok(b.fs.Remove(b.path("d/x")))
	b.ok(b.fs.Remove(b.path("d")))
}

func testReadDir(b *bench) {
	for _, name := range []string{"b", "c", "a"} {
		b.create(name, name+name)
	}
	b.ok(b.fs.Mkdir(b.path("aa"), 0o700))
	b.is(b.fs.Mkdir(b.path("aa"), 0o700), fs.ErrExist)
	b.names("a", "aa", "b", "c")
	entries, err := b.fs.ReadDir(b.dir)
	b.ok(err)
	info, err := entries[0].Info()
	b.ok(err)
	if info.Size() != 2 || info.IsDir() || !entries[1].IsDir() {
		b.Errorf("entries tell wrong things: %v, %v", info, entries[1])
	}
}

func (b *bench) names(want ...string) {
	b.Helper()
	entries, err := b.fs.ReadDir(b.dir)
	b.ok(err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		b.Errorf("directory lists %q, want %q", got, want)
	}
}

func testMissing(b *bench) {
	missing := b.path("none/x")
	_, err := b.fs.OpenFile(missing, os.O_RDWR|os.O_CREATE, 0o600)
	b.is(err, fs.ErrNotExist)
	b.is(b.fs.Mkdir(missing, 0o700), fs.ErrNotExist)
	b.is(b.fs.SyncDir(b.path("none")), fs.ErrNotExist)
	_, err = b.fs.ReadDir(b.path("none"))
	b.is(err, fs.ErrNotExist)
	_, err = b.fs.OpenTemp(b.path("none"))
	b.is(err, fs.ErrNotExist)
	_, err = b.fs.FreeBytes(b.path("none"))
	b.is(err, fs.ErrNotExist)
}

func testTemp(b *bench) {
	f, err := b.fs.OpenTemp(b.dir)
	b.ok(err)
	g, err := b.fs.OpenTemp(b.dir)
	b.ok(err)
	if runtime.GOOS != "windows" {
		b.names()
	}
	b.write(f, "one", 0)
	b.write(g, "another", 0)
	b.holds(f, "one")
	b.ok(f.Close())
	b.ok(g.Close())
	b.names()
}

func testLock(b *bench) {
	f := b.create("a", "")
	b.ok(f.Lock())
	b.is(f.Lock(), vfs.ErrLocked)
	second := b.open("a", os.O_RDWR)
	b.is(second.Lock(), vfs.ErrLocked)
	b.ok(b.fs.Link(b.path("a"), b.path("b")))
	linked := b.open("b", os.O_RDWR)
	b.is(linked.Lock(), vfs.ErrLocked)
	b.ok(second.Close()) // must not take the lock of the first along
	b.is(linked.Lock(), vfs.ErrLocked)
	b.ok(f.Close())
	b.ok(linked.Lock())
}

func testSync(b *bench) {
	f := b.create("a", "x")
	b.ok(f.Sync())
	b.ok(b.fs.SyncDir(b.dir))
	f.DropCache(0, 1)
	f.DropCache(-1, -1)
	f.NoReadAhead()
	f.WillRead(0, 1)
	f.WillRead(-1, -1)
	f.WriteOut(0, 1)
	f.WriteOut(-1, -1)
	b.holds(f, "x")
	free, err := b.fs.FreeBytes(b.dir)
	b.ok(err)
	if free <= 0 {
		b.Errorf("%d bytes are free", free)
	}
}
