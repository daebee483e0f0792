package vfstest

import (
	"os"
	"path"
	"testing"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// bench is one file system under test, and a directory of it that is empty and
// the test's own.
type bench struct {
	*testing.T
	fs  vfs.FS
	dir string
}

// Run tests a file system. open returns one, and a fresh directory in it, for
// each test of the suite.
func Run(t *testing.T, open func(t *testing.T) (fs vfs.FS, dir string)) {
	for _, test := range []struct {
		name string
		run  func(b *bench)
	}{
		{"OpenCreatesOnlyWhenAsked", testOpenCreate},
		{"OpenRefusesWhatIsNoRegularFile", testOpenDirectory},
		{"ModesAreExact", testModes},
		{"TruncatingOpenEmptiesTheFile", testOpenTruncate},
		{"ReadAtFollowsReaderAt", testReadAt},
		{"WritesBeyondTheEndLeaveZeros", testSparse},
		{"ReadOnlyFilesRefuseChanges", testReadOnly},
		{"ClosedFilesRefuseEverything", testClosed},
		{"TruncateCutsAndExtendsWithZeros", testTruncate},
		{"AllocateExtendsAndKeepsData", testAllocate},
		{"PunchHoleReadsAsZerosAndKeepsTheSize", testPunch},
		{"ImpossibleRangesAreRefused", testRanges},
		{"RenameReplaces", testRename},
		{"LinkIsExclusive", testLink},
		{"RemovedFilesStayReadableWhileOpen", testRemove},
		{"DirectoriesAreListedInOrder", testReadDir},
		{"ErrorsSayWhatIsMissing", testMissing},
		{"TemporaryFilesHaveNoName", testTemp},
		{"LocksExcludeEveryOtherOpenFile", testLock},
		{"SyncsSucceed", testSync},
		{"WritesToDistinctRangesRunAtOnce", testConcurrent},
		{"RandomOperationsMatchAByteSlice", testModel},
	} {
		t.Run(test.name, func(t *testing.T) {
			fs, dir := open(t)
			test.run(&bench{T: t, fs: fs, dir: dir})
		})
	}
}

func (b *bench) path(name string) string { return path.Join(b.dir, name) }

// create makes a file that holds data; it is closed when the test ends.
func (b *bench) create(name, data string) vfs.File {
	b.Helper()
	f := b.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	b.write(f, data, 0)
	return f
}

func (b *bench) open(name string, flag int) vfs.File {
	b.Helper()
	f, err := b.fs.OpenFile(b.path(name), flag, 0o600)
	b.ok(err)
	b.Cleanup(func() { f.Close() })
	return f
}

func (b *bench) write(f vfs.File, data string, off int64) {
	b.Helper()
	n, err := f.WriteAt([]byte(data), off)
	b.ok(err)
	if n != len(data) {
		b.Fatalf("WriteAt: %d bytes of %d without an error", n, len(data))
	}
}

// holds checks the whole content of a file, and its size.
func (b *bench) holds(f vfs.File, want string) {
	b.Helper()
	size, err := f.Size()
	b.ok(err)
	got := make([]byte, size)
	if size > 0 {
		_, err = f.ReadAt(got, 0)
		b.ok(err)
	}
	if string(got) != want {
		b.Fatalf("file holds %q, want %q", got, want)
	}
}

func (b *bench) ok(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
