package chance

import (
	"fmt"
	"strings"
	"testing"
)

// other is a test of any name, whose log is kept.
type other struct {
	testing.TB
	name string
	log  string
}

func (o *other) Name() string                     { return o.name }
func (o *other) Logf(format string, args ...any)  { o.log += fmt.Sprintf(format, args...) }
func (o *other) Fatalf(format string, a ...any)   { panic(fmt.Sprintf(format, a...)) }
func seedsOf(t *testing.T, name string) [3]uint64 { return drawn(&other{TB: t, name: name}) }
func drawn(o *other) [3]uint64                    { return [3]uint64{Seed(o), Seed(o), Seed(o)} }

// TestSeed_OneNumberOneAnswer: tests of one name get the same seeds from one number,
// others get others, and each time that a test asks it gets another.
func TestSeed_OneNumberOneAnswer(t *testing.T) {
	t.Setenv(Variable, "42")
	a := seedsOf(t, "TestA")
	if seedsOf(t, "TestA") != a {
		t.Error("the same number and name: other seeds")
	}
	if a[0] == a[1] || a[1] == a[2] {
		t.Errorf("a test got the same seed twice: %d", a)
	}
	if seedsOf(t, "TestB")[0] == a[0] {
		t.Error("two tests have one seed")
	}
	t.Setenv(Variable, "43")
	if seedsOf(t, "TestA")[0] == a[0] {
		t.Error("another number: the same seed")
	}
}

// TestSeed_LogRepeats: without a number each run has its own, and the log says what
// repeats it.
func TestSeed_LogRepeats(t *testing.T) {
	t.Setenv(Variable, "")
	o := &other{TB: t, name: "TestA/of two"}
	a := drawn(o)
	if seedsOf(t, "TestA/of two") == a {
		t.Error("two runs have the same seeds")
	}
	command, found := strings.CutPrefix(o.log, "repeat with "+Variable+"=")
	number, rest, _ := strings.Cut(command, " ")
	if !found || strings.Count(o.log, Variable) != 1 || !strings.HasSuffix(rest, " -run '^TestA$/^of two$' github.com/spillwaydb/spillway/internal/chance") {
		t.Fatalf("the log is %q", o.log)
	}
	t.Setenv(Variable, number)
	if seedsOf(t, "TestA/of two") != a {
		t.Error("the log's number gives other seeds")
	}
}

// TestSeed_NoNumber: nonsense is said, not taken for no number.
func TestSeed_NoNumber(t *testing.T) {
	t.Setenv(Variable, "yesterday")
	defer func() {
		if said := fmt.Sprint(recover()); !strings.Contains(said, Variable) {
			t.Errorf("it says %q", said)
		}
	}()
	Seed(&other{TB: t, name: "TestA"})
}
