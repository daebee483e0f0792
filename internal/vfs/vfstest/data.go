package vfstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"

	"github.com/spillwaydb/spillway/internal/vfs"
)

func testReadAt(b *bench) {
	f := b.create("a", "0123456789")
	for _, test := range []struct {
		off  int64
		len  int
		want string
		err  error
	}{
		{0, 10, "0123456789", nil},
		{4, 3, "456", nil},
		{7, 5, "789", io.EOF},
		{10, 1, "", io.EOF},
		{1 << 40, 1, "", io.EOF},
		{3, 0, "", nil},
	} {
		p := make([]byte, test.len)
		n, err := f.ReadAt(p, test.off)
		if string(p[:n]) != test.want || err != test.err {
			b.Errorf("ReadAt(%d bytes, %d) = %q, %v; want %q, %v", test.len, test.off, p[:n], err, test.want, test.err)
		}
	}
}

func testSparse(b *bench) {
	f := b.create("a", "x")
	b.write(f, "y", 10000)
	b.holds(f, "x"+strings.Repeat("\x00", 9999)+"y")
	b.write(f, "", 1<<30)
	b.holds(f, "x"+strings.Repeat("\x00", 9999)+"y")
}

func testReadOnly(b *bench) {
	b.create("a", "data")
	f := b.open("a", os.O_RDONLY)
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		b.Error("wrote to a read-only file")
	}
	if err := f.Truncate(0); err == nil {
		b.Error("truncated a read-only file")
	}
	if err := f.Allocate(0, 100); err == nil {
		b.Error("extended a read-only file")
	}
	b.holds(f, "data")
}

func testClosed(b *bench) {
	f := b.create("a", "data")
	b.ok(f.Close())
	_, err := f.ReadAt(make([]byte, 1), 0)
	b.is(err, fs.ErrClosed)
	_, err = f.WriteAt([]byte("x"), 0)
	b.is(err, fs.ErrClosed)
	_, err = f.Size()
	b.is(err, fs.ErrClosed)
	b.is(f.Truncate(0), fs.ErrClosed)
	b.is(f.Allocate(0, 1), fs.ErrClosed)
	b.is(f.Sync(), fs.ErrClosed)
	b.is(f.Lock(), fs.ErrClosed)
	b.is(f.Close(), fs.ErrClosed)
	f.DropCache(0, 1)
	f.NoReadAhead()
	f.WillRead(0, 1)
	f.WriteOut(0, 1)
}

func testTruncate(b *bench) {
	f := b.create("a", "0123456789")
	b.ok(f.Truncate(4))
	b.holds(f, "0123")
	b.ok(f.Truncate(8))
	b.holds(f, "0123\x00\x00\x00\x00")
	b.ok(f.Truncate(0))
	b.holds(f, "")
}

func testAllocate(b *bench) {
	f := b.create("a", "data")
	b.ok(f.Allocate(0, 2))
	b.holds(f, "data")
	b.ok(f.Allocate(2, 6))
	b.holds(f, "data\x00\x00\x00\x00")
	b.ok(f.Allocate(10, 0))
	b.holds(f, "data\x00\x00\x00\x00")
	b.ok(f.Allocate(10000, 1))
	b.holds(f, "data"+strings.Repeat("\x00", 9997))
}

func testPunch(b *bench) {
	f := b.create("a", strings.Repeat("x", 20000))
	err := f.PunchHole(100, 10000)
	if errors.Is(err, errors.ErrUnsupported) {
		b.holds(f, strings.Repeat("x", 20000))
		b.Skip("no holes on this system")
	}
	b.ok(err)
	b.ok(f.PunchHole(19000, 5000))
	b.ok(f.PunchHole(0, 0))
	b.holds(f, strings.Repeat("x", 100)+strings.Repeat("\x00", 10000)+
		strings.Repeat("x", 8900)+strings.Repeat("\x00", 1000))
}

func testRanges(b *bench) {
	f := b.create("a", "data")
	for _, err := range []error{
		f.Allocate(-1, 1), f.Allocate(0, -1), f.Allocate(math.MaxInt64, 1), f.Allocate(1, math.MaxInt64),
		f.PunchHole(-1, 1), f.PunchHole(0, -1), f.Truncate(-1),
	} {
		if err == nil {
			b.Error("an impossible range was accepted")
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
		b.Errorf("ReadAt at -1: %v", err)
	}
	if _, err := f.WriteAt(make([]byte, 1), -1); err == nil {
		b.Error("WriteAt at -1 succeeded")
	}
	b.holds(f, "data")
}

func testConcurrent(b *bench) {
	f := b.create("a", "")
	const writers, each = 8, 5000
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			p := bytes.Repeat([]byte{byte('a' + i)}, each)
			if _, err := f.WriteAt(p, int64(i*each)); err != nil {
				b.Error(err)
			}
			if _, err := f.ReadAt(p, int64(i*each)); err != nil || p[0] != byte('a'+i) {
				b.Errorf("read back %q: %v", p[0], err)
			}
		})
	}
	wg.Wait()
	var want strings.Builder
	for i := range writers {
		want.WriteString(strings.Repeat(string(rune('a'+i)), each))
	}
	b.holds(f, want.String())
}

// testModel runs random operations against a file and against a byte slice.
func testModel(b *bench) {
	seed := rand.Uint64()
	b.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	f := b.create("a", "")
	model := []byte{}
	for range 300 {
		model = modelStep(b, rng, f, model)
		b.holds(f, string(model))
	}
}

func modelStep(b *bench, rng *rand.Rand, f vfs.File, model []byte) []byte {
	const sizeMax = 600 << 10
	off := rng.IntN(sizeMax)
	n := rng.IntN(1 << rng.IntN(18))
	switch rng.IntN(8) {
	case 0:
		b.ok(f.Truncate(int64(off)))
		return resized(model, off)
	case 1:
		b.ok(f.Allocate(int64(off), int64(n)))
		if n > 0 {
			model = resized(model, max(len(model), off+n))
		}
	case 2:
		if err := f.PunchHole(int64(off), int64(n)); errors.Is(err, errors.ErrUnsupported) {
			break
		}
		if off < len(model) {
			clear(model[off:min(off+n, len(model))])
		}
	case 3:
		b.ok(f.Sync())
	default:
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		b.write(f, string(p), int64(off))
		if n > 0 {
			model = resized(model, max(len(model), off+n))
			copy(model[off:], p)
		}
	}
	return model
}

// resized cuts p, or extends it with zeros.
func resized(p []byte, size int) []byte {
	if size <= len(p) {
		return p[:size:size]
	}
	return append(p, make([]byte, size-len(p))...)
}
