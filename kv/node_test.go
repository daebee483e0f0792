package kv

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/internal/chance"
)

// TestNodeAgainstSlice does random things to a node and to a sorted slice.
func TestNodeAgainstSlice(t *testing.T) {
	seed := chance.Seed(t)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		n, scratch := make(node, 4072), make(node, 4072)
		n.format(0)
		var want []cell
		prefix := bytes.Repeat([]byte("p"), rnd.IntN(6))
		for range 400 {
			stepNode(t, rnd, n, scratch, &want, prefix)
		}
		if len(want) > 0 && (n.problem() != "" || n.orderProblem(nil, nil) != "") {
			t.Fatal(n.problem(), n.orderProblem(nil, nil))
		}
	}
}

func stepNode(t *testing.T, rnd *rand.Rand, n, scratch node, want *[]cell, prefix []byte) {
	key := fmt.Appendf(slices.Clone(prefix), "%x", rnd.IntN(200))
	key = key[:max(1, len(key)-rnd.IntN(3))]
	if rnd.IntN(50) == 0 {
		key = []byte{byte(rnd.IntN(256))}
	}
	c := cell{key: key, value: make([]byte, rnd.IntN(120)), kind: kind(rnd.IntN(3))}
	at, has := slices.BinarySearchFunc(*want, key, func(c cell, k []byte) int { return bytes.Compare(c.key, k) })
	slot, found, ok := n.search(key)
	if !ok || slot != at || found != has {
		t.Fatalf("search of %q is %d, %v, %v; want %d, %v", key, slot, found, ok, at, has)
	}
	fits := true
	switch {
	case rnd.IntN(4) == 0 && has:
		ok = n.remove(at, at+1)
		*want = slices.Delete(*want, at, at+1)
	case has:
		if fits, ok = n.replace(at, c, scratch); fits {
			(*want)[at] = c
		}
	default:
		if fits, ok = n.insert(at, c, scratch); fits {
			*want = slices.Insert(*want, at, c)
		}
	}
	used := nodeHeaderSize
	for i, w := range *want {
		got, cellOK := n.cell(i)
		ok = ok && cellOK && bytes.Equal(got.key, w.key) && len(got.value) == len(w.value) && got.kind == w.kind
		used += w.size() + slotSize
	}
	if !ok || n.used() != used || n.count() != len(*want) {
		t.Fatalf("%d cells of %d bytes, want %d of %d; %v", n.count(), n.used(), len(*want), used, ok)
	}
	if !fits && used+c.size()+slotSize <= len(n) && !has {
		t.Fatalf("no room for %d bytes beside %d", c.size(), used)
	}
}
