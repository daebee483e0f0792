//go:build unix

package hooks

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/livebackup"
)

func end() Notice {
	return Notice{Event: End, Database: "/srv/db", Label: "a'b\nc", Record: &livebackup.Record{
		Outcome: livebackup.OutcomeFailed, ID: livebackup.BackupID{Sequence: 3, Random: 4}, Error: &livebackup.RecordError{Message: "no $(touch x)\x00 space"}}}
}

// A command finds the notice on its standard input and in its environment; names are
// data there, whatever they are.
func TestHooks_Command(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	r := NewRunner(Hooks{End: `cat > ` + out + `; printf '%s|%s|%s|%s|%s' "$SPILLWAY_EVENT" "$SPILLWAY_OUTCOME" "$SPILLWAY_BACKUP" "$SPILLWAY_LABEL" "$SPILLWAY_ERROR" > ` + out + `.env`})
	r.Tell(Notice{Event: Start}) // nobody wants to know
	if failed := r.Close(end()); len(failed) > 0 {
		t.Fatalf("%+v", failed)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var n Notice
	if err := json.Unmarshal(text, &n); err != nil || n.Database != "/srv/db" || n.Record.Outcome != livebackup.OutcomeFailed {
		t.Fatalf("%v: %s", err, text)
	}
	env, err := os.ReadFile(out + ".env")
	if want := "end|failed|0000000003-00000004|a'b\nc|no $(touch x) space"; err != nil || string(env) != want {
		t.Fatalf("%v: %q, want %q", err, env, want)
	}
}

// What goes wrong is told, with what was printed, and in order with the rest.
func TestHooks_FailuresAreTold(t *testing.T) {
	r := NewRunner(Hooks{Start: "echo starting; exit 3", Watermark: "/no/such/command", End: "true"})
	r.Tell(Notice{Event: Start})
	r.Tell(Notice{Event: Watermark})
	failed := r.Close(end())
	if len(failed) != 2 || failed[0].Event != Start || !strings.Contains(failed[0].Error, "exit status 3: starting") || failed[1].Event != Watermark {
		t.Fatalf("%+v", failed)
	}
}

// A hook that hangs is ended, with those that it started.
func TestHooks_TimeIsBounded(t *testing.T) {
	alive := filepath.Join(t.TempDir(), "alive")
	r := NewRunner(Hooks{End: "(sleep 100; touch " + alive + ") & sleep 100", Timeout: 100 * time.Millisecond})
	failed := r.Close(end())
	if len(failed) != 1 || !strings.Contains(failed[0].Error, "longer than 100ms") {
		t.Fatalf("%+v", failed)
	}
}

// Watermarks do not pile up behind a slow hook, and the end is never left out.
func TestHooks_WatermarksDoNotPileUp(t *testing.T) {
	dir := t.TempDir()
	gate, ended := filepath.Join(dir, "gate"), filepath.Join(dir, "ended")
	r := NewRunner(Hooks{Watermark: "while [ ! -e " + gate + " ]; do sleep 0.01; done", End: "touch " + ended})
	const n = 3 * waitingMax
	for range n {
		r.Tell(Notice{Event: Watermark})
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	failed := r.Close(end())
	if len(failed) != 1 || !strings.Contains(failed[0].Error, "were left out") {
		t.Fatalf("%+v", failed)
	}
	if _, err := os.Stat(ended); err != nil {
		t.Fatal(err)
	}
}

// A URL gets the notice; what of it is secret is in no error.
func TestHooks_URL(t *testing.T) {
	var got []string
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+string(body))
		w.WriteHeader(status)
	}))
	target := server.URL + "/hook/s3cret?key=s3cret"
	if failed := NewRunner(Hooks{End: target}).Close(end()); len(failed) > 0 || len(got) != 1 || !strings.HasPrefix(got[0], `POST /hook/s3cret application/json {"event":"end"`) {
		t.Fatalf("%+v, %q", failed, got)
	}
	status = http.StatusInternalServerError
	refused := NewRunner(Hooks{End: target}).Close(end())
	server.Close()
	for _, failed := range [][]Failure{refused, NewRunner(Hooks{End: target}).Close(end())} {
		if len(failed) != 1 || strings.Contains(failed[0].Error, "s3cret") || !strings.Contains(failed[0].Error, "127.0.0.1") {
			t.Errorf("%+v", failed)
		}
	}
	if err := (&Hooks{Start: "https://"}).Validate(); err == nil {
		t.Error("no host is taken")
	}
}
