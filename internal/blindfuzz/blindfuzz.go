package blindfuzz

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/internal/chance"
)

var behind = flag.Int("blind", 0, "how many inputs, made of it, follow each seed of a fuzz target")

// Each returns what is to be passed to f.Fuzz in the place of body, which must be what that
// takes: without the flag -blind it is body itself. A body must not keep what it is given:
// the next input takes its place.
func Each[F any](f *testing.F, body F) F { return each(f, body, *behind) }

func each[F any](f testing.TB, body F, n int) F {
	if n == 0 {
		return body
	}
	fn := reflect.ValueOf(body)
	m := &mutator{}
	made := 0
	f.Cleanup(func() { f.Logf("%d executions behind %d seeds", made, len(m.seeds)) })
	return reflect.MakeFunc(fn.Type(), func(args []reflect.Value) []reflect.Value {
		t := args[0].Interface().(*testing.T)
		m.take(args[1:], rand.New(rand.NewPCG(chance.Seed(t), 0)))
		fn.Call(args)
		for i := 0; i < n && !t.Failed(); i++ {
			made++
			m.run(t, fn)
		}
		return nil
	}).Interface().(F)
}

// run runs the body with the next input, and logs that if it fails, however it ends.
func (m *mutator) run(t *testing.T, body reflect.Value) {
	m.next()
	ended := false
	defer func() {
		if !ended || t.Failed() {
			t.Logf("failing input:\n%s", textOf(m.kept))
		}
	}()
	m.args[0] = reflect.ValueOf(t)
	body.Call(m.args)
	ended = true
}

// textOf is an input as Go's fuzzer writes it.
func textOf(input []reflect.Value) string {
	var b strings.Builder
	b.WriteString("go test fuzz v1\n")
	for _, v := range input {
		switch x := v.Interface().(type) {
		case []byte, string:
			fmt.Fprintf(&b, "%v(%q)\n", v.Type(), x)
		case float64, float32:
			if math.IsNaN(v.Float()) || math.IsInf(v.Float(), 0) {
				fmt.Fprintf(&b, "math.Float64frombits(%#x)\n", math.Float64bits(v.Float()))
				continue
			}
			fmt.Fprintf(&b, "%v(%v)\n", v.Type(), x)
		default:
			fmt.Fprintf(&b, "%v(%v)\n", v.Type(), x)
		}
	}
	return strings.ReplaceAll(b.String(), "[]uint8(", "[]byte(")
}
