package kv

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/block"
)

var rewrite = flag.Bool("rewrite", false, "write testdata anew")

// dump is an annotated hex dump of the parts of b that are not zero.
type dump struct {
	strings.Builder
	b  []byte
	at int
}

func (d *dump) field(n int, format string, args ...any) {
	fmt.Fprintf(d, "%5d  %-34s %s\n", d.at, hex.EncodeToString(d.b[d.at:d.at+n]), fmt.Sprintf(format, args...))
	d.at += n
}

func (d *dump) begin(what string, b []byte) {
	d.b, d.at = b, 0
	fmt.Fprintf(d, "# %s\n", what)
}

func (d *dump) node(what string, n node) {
	d.begin(what, n)
	d.field(2, "count %d", n.count())
	d.field(2, "low %d", n.low())
	d.field(2, "garbage %d", n.garbage())
	d.field(1, "level %d", n.level())
	d.field(1, "tag")
	d.field(2, "shared %d", n.shared())
	d.field(2, "zero")
	for i := range n.count() {
		s := n.slot(i)
		d.field(8, "slot %d: offset %d, hint %#04x, key %d, value %d, kind %d",
			i, s.offset(), s.hint(), s.keySize(), s.valueSize(), s.kind())
	}
	for i := n.count() - 1; i >= 0; i-- { // the order in which they lie here
		c, _ := n.cell(i)
		d.at = n.slot(i).offset()
		d.field(len(c.key), "key %d", i)
		for v := c.value; len(v) > 0; v = v[min(16, len(v)):] {
			d.field(min(16, len(v)), "value %d", i)
		}
	}
}

func goldenDump() string {
	const payload = block.SizeMin - block.TrailerSize
	var d dump
	root := rootFields{root: 0x1122, height: 3, next: 0x99, renamed: 0x77}.encode()
	d.begin("root", root[:])
	d.field(4, "magic")
	d.field(2, "version")
	d.field(1, "height")
	d.field(1, "zero")
	d.field(8, "root")
	d.field(8, "next")
	d.field(8, "renamed")

	leaf := make(node, payload)
	leaf.format(0)
	entry := bucketEntry{number: 7, sequence: 0x0102}.encode()
	long := reference{size: 2 * payload, ids: [directMax]block.ID{0x51, 0x52}, count: 2}
	cells := []cell{
		{key: append(appendPrefix(nil, 5), "apple"...), value: []byte("red")},
		{key: append(appendPrefix(nil, 5), "apricot"...), value: entry[:], kind: kindBucket},
		{key: append(appendPrefix(nil, 300), "apricot"...), value: long.encode(nil), kind: kindOverflow},
	}
	for i, c := range cells {
		leaf.insert(i, c, make(node, payload))
	}
	d.node("leaf", leaf)

	branch := make(node, payload)
	branch.format(1)
	branch.setShared(3)
	var value [childSize]byte
	branch.push(childRef{id: 0x31}.cell(nil, &value))
	branch.push(childRef{id: 0x32, special: true}.cell([]byte("\x05ap"), &value))
	d.node("branch", branch)

	index := make(indexBlock, payload)
	index.set(2, []block.ID{0x61, 0x62}, 0x70)
	d.begin("index block", index)
	d.field(4, "position")
	d.field(4, "count")
	d.field(8, "next")
	d.field(8, "id 0")
	d.field(8, "id 1")
	return d.String()
}

// TestGoldenBytes: what is in testdata is what databases out there have.
func TestGoldenBytes(t *testing.T) {
	const name = "testdata/format1.txt"
	got := goldenDump()
	if *rewrite {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the format has changed:\n%s", got)
	}
}

// Bucket numbers: no encoding is the prefix of another, order is kept, and only
// the shortest form is read.
func TestPrefixes(t *testing.T) {
	numbers := []uint64{0, 1, 0xf6, 0xf7, 0xf8, 0xff, 0x100, 0xffff, 0x10000, 1 << 32, 1<<56 - 1, 1 << 56, math.MaxUint64 - 1}
	var last []byte
	for _, n := range numbers {
		p := appendPrefix(nil, n)
		got, rest, ok := cutPrefix(append(slices.Clone(p), "key"...))
		if got != n || string(rest) != "key" || !ok {
			t.Errorf("%d is read as %d, %q, %v", n, got, rest, ok)
		}
		if last != nil && (bytes.Compare(last, p) >= 0 || bytes.HasPrefix(p, last)) {
			t.Errorf("%x and %x are not in order or not free", last, p)
		}
		if s := successor(p); s == nil || bytes.Compare(s, append(p, 0xff, 0xff, 0xff)) <= 0 {
			t.Errorf("successor of %x is %x", p, s)
		}
		last = p
	}
	for _, bad := range []string{"", "\xf8", "\xf8\x07", "\xf9\x00\xff", "\xff\x01\x02"} {
		if _, _, ok := cutPrefix([]byte(bad)); ok {
			t.Errorf("%x is read as a bucket number", bad)
		}
	}
}

// The sizes on which splitting relies, for every size of blocks.
func TestSizesFit(t *testing.T) {
	for bs := block.SizeMin; bs <= block.SizeMax; bs *= 2 {
		payload := bs - block.TrailerSize
		room := payload - nodeHeaderSize
		key := prefixSizeMax + maxKeySize(payload)
		if 4*(key+childSize+slotSize) > room {
			t.Errorf("block size %d: no four children in a branch", bs)
		}
		if 2*(key+inlineMax(payload)+slotSize) > room {
			t.Errorf("block size %d: no two cells in a leaf", bs)
		}
		if inlineMax(payload) >= 1<<14 || inlineMax(payload) < 8+8*directMax {
			t.Errorf("block size %d: inline values of %d bytes", bs, inlineMax(payload))
		}
	}
}
