package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spillwaydb/spillway/bench/load"
)

func runBench(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(context.Background(), args, &out, &err)
	return code, out.String(), err.String()
}

func TestUsage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"frobnicate", "unknown command"},
		{"load", `required flag(s) "db" not set`},
		{"load --db x --frobnicate", "unknown flag"},
		{"load --db x extra", "extra"},
		{"load --db x --value-size 64parsecs", "is no size"},
		{"load --db x --duration soon", "is no duration"},
		{"backup --rows 1", "is none of"},
		{"backup --repeats 0", "must be positive"},
		{"load --db x --rate fast", "is no rate"},
		{"load --db x --rate 5x", "is no rate"},
		{"load --db x --durability maybe", "is none of"},
		{"load --db x --distribution normal", "is unknown"},
	} {
		code, out, err := runBench(strings.Fields(c.args)...)
		if code != 2 || !strings.Contains(err, c.want) || out != "" {
			t.Errorf("%s: code %d, %q, %q", c.args, code, out, err)
		}
	}
	if code, out, _ := runBench("load", "--help"); code != 0 || !strings.Contains(out, "Examples:") {
		t.Errorf("help: code %d", code)
	} else {
		for _, line := range strings.Split(out, "\n") {
			if utf8.RuneCountInString(line) > 80 {
				t.Errorf("too long: %s", line)
			}
		}
	}
}

func TestLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	args := []string{"load", "--db", dir, "--records", "2000", "--duration", "200ms", "--max-ram", "16MiB", "--temp", "4MiB", "--rate", "500/s"}
	code, out, stderr := runBench(args...)
	if code != 0 || stderr != "" {
		t.Fatalf("code %d, %s", code, stderr)
	}
	for _, want := range []string{"serving " + dir, "filled     2,000 records", "commits ", "latency ", "peaks "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	code, out, stderr = runBench(append(args, "--json")...)
	var s load.Summary
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 || s.Commits == 0 || s.Filled != 0 {
		t.Errorf("code %d, %v, %s%s", code, err, out, stderr)
	}
}
