package blindfuzz

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/internal/chance"
)

// parse is a decoder of a length, a kind and as many bytes, with a bug: a length of 255.
func parse(b []byte) (kind byte, payload []byte) {
	if len(b) < 2 || b[0] < 255 && int(b[0]) != len(b)-2 {
		return 0, nil
	}
	return b[1], b[2:]
}

// TestEach_FindsBehindSeeds: from a seed that is harmless a bug that a byte away from it
// shows is found, and the input that is said to show it does, though the body has changed
// the one that it got.
func TestEach_FindsBehindSeeds(t *testing.T) {
	found := []byte(nil)
	made := 0
	t.Run("seeds", func(t *testing.T) {
		m := &mutator{}
		body := func(_ *testing.T, b []byte) {
			made++
			if kind, payload := parse(b); kind == 1 && len(payload) != int(b[0]) {
				found = bytes.Clone(m.kept[0].Bytes())
				clear(b)
			}
		}
		m.take([]reflect.Value{reflect.ValueOf([]byte{3, 1, 'a', 'b', 'c'})}, testRand(t))
		for found == nil && made < 1_000_000 {
			m.run(t, reflect.ValueOf(body))
		}
	})
	if kind, payload := parse(found); kind != 1 || len(payload) == int(found[0]) {
		t.Fatalf("after %d executions the input is said to be %x", made, found)
	}
	if text := textOf([]reflect.Value{reflect.ValueOf(found), reflect.ValueOf("a\n"), reflect.ValueOf(uint16(7)), reflect.ValueOf(true)}); !strings.HasPrefix(text, "go test fuzz v1\n[]byte(") || !strings.HasSuffix(text, "string(\"a\\n\")\nuint16(7)\nbool(true)\n") {
		t.Fatalf("it is written as %s", text)
	}
}

// TestEach_AsManyAsAsked: each seed is followed by so many inputs, of which hardly two are
// the same and all but a few are not the seed, and that takes nothing from the seeds.
func TestEach_AsManyAsAsked(t *testing.T) {
	const behindEach = 2000
	seen, made := map[string]int{}, 0
	body := each(t, func(_ *testing.T, b []byte, text string, yes bool, n int64, u uint16, f float64) {
		made++
		seen[textOf([]reflect.Value{reflect.ValueOf(b), reflect.ValueOf(text), reflect.ValueOf(yes), reflect.ValueOf(n), reflect.ValueOf(u), reflect.ValueOf(f)})]++
		clear(b)
	}, behindEach)
	first, second := []byte("first seed"), []byte("another one")
	body(t, bytes.Clone(first), "a", false, 1, 2, 3)
	body(t, bytes.Clone(second), "", true, -1, 0, 0)
	if made != 2*(1+behindEach) || len(seen) < made*3/4 {
		t.Fatalf("%d executions, %d inputs", made, len(seen))
	}
}

func testRand(t *testing.T) *rand.Rand { return rand.New(rand.NewPCG(chance.Seed(t), 0)) }
