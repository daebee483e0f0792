package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/internal/watch"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// source is a database that is nothing but a status. What a dashboard does not ask is
// not there.
type source struct {
	livebackup.Source

	mu     sync.Mutex
	status mvcc.Status
	err    error
}

func (s *source) Status(context.Context) (mvcc.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.NewestLSN += 437 // it is being written to
	return s.status, s.err
}

func (s *source) Changes(context.Context) (mvcc.Changes, error) { return mvcc.Changes{}, nil }

func (s *source) Events(context.Context, uint64) ([]mvcc.Event, error) { return nil, nil }

// hostile is a name that would run if it were taken for markup.
const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

func busy() *source {
	return &source{status: mvcc.Status{
		Dir: "/srv/app/db", Mode: "read-write", BlockSize: 4096, FileBytes: 386 << 20, NewestLSN: 1_234_567,
		LastCommit: time.Now(), Readers: 3,
		Levels: []mvcc.Level{
			{Name: "ram", Used: 15 << 20, Limit: 24 << 20, State: "low"},
			{Name: "temporary", Used: 3800 << 10, Limit: 4 << 20, State: "critical"},
			{Name: "overflow", Limit: 6 << 20, State: "normal"},
			{Name: "index", Used: 1 << 20, Limit: 12 << 20, State: "normal"},
			{Name: "host", Used: 19 << 30, Limit: 24 << 30, State: "high"},
			{Name: "log", Used: 100 << 20, Limit: 256 << 20, State: "normal"},
			{Name: "held log", Limit: 1 << 30, State: "normal"},
		},
		Backups: []mvcc.BackupStatus{
			{ID: 17, Owner: "root@db1 pid 4711", Label: "nightly", Opened: time.Now().Add(-95 * time.Second), Blocks: 47360, Bytes: 185 << 20,
				BlocksTotal: 98816, Share: 0.48, BytesPerSecond: 19 << 20, HeldBytes: 12 << 20, Rung: mvcc.RungSpill},
			{ID: 18, Owner: "root@db1 pid 4712", Label: hostile, Base: 7, Opened: time.Now().Add(-2 * time.Second), Share: 0.1, Rung: mvcc.RungCache},
		},
	}}
}

// start serves a dashboard of src.
func start(t *testing.T, src livebackup.Source, o Options) (*Dashboard, *httptest.Server) {
	t.Helper()
	d, err := New(src, o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(d)
	t.Cleanup(func() {
		server.Close()
		d.Close()
	})
	return d, server
}

// get asks once, following nothing.
func get(t *testing.T, url string, set func(r *http.Request)) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set != nil {
		set(r)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

var paths = []string{"/", "/app.js", "/style.css", "/icon.svg", "/state.json", "/history.json", "/metrics"}

// Without the token nobody gets anything; with it, everything there is, and a browser
// keeps it in a cookie that no script sees and no other site sends.
func TestDashboard_WantsItsToken(t *testing.T) {
	var log bytes.Buffer
	d, server := start(t, busy(), Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	for _, p := range paths {
		for name, set := range map[string]func(*http.Request){
			"none": nil, "empty": bearer(""), "wrong": bearer(d.Token() + "x"), "half": bearer(d.Token()[:10]),
			"wrong cookie": func(r *http.Request) { r.AddCookie(&http.Cookie{Name: d.cookieName(), Value: "x"}) },
		} {
			if resp, body := get(t, server.URL+p, set); resp.StatusCode != http.StatusUnauthorized || strings.Contains(body, "srv") {
				t.Errorf("%s with token %s: %d %s", p, name, resp.StatusCode, body)
			}
		}
		if resp, _ := get(t, server.URL+p, bearer(d.Token())); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", p, resp.StatusCode)
		}
	}
	if resp, _ := get(t, server.URL+"/state.json?token="+d.Token(), nil); resp.StatusCode != http.StatusUnauthorized {
		t.Error("a token in the address is taken elsewhere than on the page")
	}
	first, _ := get(t, d.URL(server.Listener.Addr()), nil)
	cookie := first.Header.Get("Set-Cookie")
	if first.StatusCode != http.StatusSeeOther || first.Header.Get("Location") != "./" || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") {
		t.Fatalf("%d to %q with %q", first.StatusCode, first.Header.Get("Location"), cookie)
	}
	jar, _ := cookiejar.New(nil)
	resp, err := (&http.Client{Jar: jar}).Get(d.URL(server.Listener.Addr()))
	if err != nil || resp.StatusCode != http.StatusOK || resp.Request.URL.RawQuery != "" {
		t.Fatalf("%v, %+v", err, resp)
	}
	resp.Body.Close()
	if strings.Contains(log.String(), d.Token()) {
		t.Error("the token is in the log")
	}
}

// What a browser may do with any answer, refusals too.
func TestDashboard_Headers(t *testing.T) {
	d, server := start(t, busy(), Options{})
	for _, p := range append(paths, "/nothing", "/../../etc/passwd") {
		for _, token := range []string{"", d.Token()} {
			resp, _ := get(t, server.URL+p, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
			csp := resp.Header.Get("Content-Security-Policy")
			if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || resp.Header.Get("Cache-Control") != "no-store" ||
				resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("%s: %v", p, resp.Header)
			}
		}
	}
	resp, err := http.Post(server.URL+"/state.json", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		t.Error("something can be posted")
	}
}

// A foreign name that was made to resolve to us gets nothing, token or not.
func TestDashboard_RefusesForeignNames(t *testing.T) {
	d, server := start(t, busy(), Options{Hosts: []string{"db1.example"}})
	for host, want := range map[string]int{
		"evil.example": http.StatusMisdirectedRequest, "evil.example:80": http.StatusMisdirectedRequest, "localhost.evil.example": http.StatusMisdirectedRequest,
		"localhost:1": http.StatusOK, "127.0.0.1": http.StatusOK, "[::1]:9": http.StatusOK, "db1.example:1": http.StatusOK,
	} {
		resp, _ := get(t, server.URL+"/", func(r *http.Request) {
			r.Host = host
			r.Header.Set("Authorization", "Bearer "+d.Token())
		})
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", host, resp.StatusCode, want)
		}
	}
}

func TestDashboard_ListensOnLoopback(t *testing.T) {
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0", "example.org:80", "192.0.2.1:80"} {
		if ln, err := Listen(addr, false); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v, %v", addr, ln, err)
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "localhost:0"} {
		ln, err := Listen(addr, false)
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
	}
	ln, err := Listen("0.0.0.0:0", true)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if _, err := New(busy(), Options{Token: "short"}); err == nil {
		t.Error("a short token is taken")
	}
}

// The state is the view of package watch, and the metrics are there.
func TestDashboard_State(t *testing.T) {
	d, server := start(t, busy(), Options{Open: true, Every: 100 * time.Millisecond})
	var v watch.View
	for v.Dir == "" { // the first look is under way
		_, body := get(t, server.URL+"/state.json", nil)
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatal(err)
		}
	}
	if v.Dir != "/srv/app/db" || len(v.Levels) != 7 || v.Backups[1].Label != hostile {
		t.Fatalf("%+v", v)
	}
	if _, body := get(t, server.URL+"/metrics", nil); !strings.Contains(body, "\nspillway_up 1\n") {
		t.Error(body)
	}
	if _, body := get(t, server.URL+"/history.json", nil); !strings.Contains(body, `"level_names":["ram"`) {
		t.Error(body)
	}
	if u := d.URL(server.Listener.Addr()); strings.Contains(u, "token") {
		t.Errorf("%s of a dashboard that wants none", u)
	}
}

// The rings keep what is newest, and no more; what is put together shows the worst.
func TestHistory(t *testing.T) {
	var h history
	at := time.Unix(1_700_000_000, 0)
	for i := range 3 * recentPoints * 10 {
		v := watch.View{Time: at.Add(time.Duration(i) * 2 * time.Second), Writer: watch.Writer{Span: 1, CommitsPerSecond: float64(7 * i % 15), LatencyP50: 1, LatencyP99: time.Duration(7*i%15) * time.Millisecond}}
		v.Levels = []watch.Level{{Name: "ram", Share: float64(7*i%15) / 100}}
		if i%100 == 0 {
			v.Error = "gone"
		}
		h.add(&v)
	}
	recent, hours := h.curves(false), h.curves(true)
	if len(recent.Time) != recentPoints || len(hours.Time) != hoursPoints+1 || len(recent.Levels["ram"]) != recentPoints {
		t.Fatalf("%d and %d points", len(recent.Time), len(hours.Time))
	}
	for _, c := range []curves{recent, hours} {
		for i := 1; i < len(c.Time); i++ {
			if c.Time[i] <= c.Time[i-1] {
				t.Fatalf("point %d is not later than the one before", i)
			}
		}
	}
	for i := range hoursPoints {
		if hours.P99[i] < 13 || hours.Commits[i] < 6 || hours.Commits[i] > 8 || hours.Levels["ram"][i] < 0.13 {
			t.Fatalf("point %d: %v ms, %v commits/s, ram %v", i, hours.P99[i], hours.Commits[i], hours.Levels["ram"][i])
		}
	}
	gaps := 0
	for _, n := range recent.Commits {
		if math.IsNaN(float64(n)) {
			gaps++
		}
	}
	if gaps != recentPoints/100 {
		t.Errorf("%d gaps where the database did not answer", gaps)
	}
	if b, err := json.Marshal(recent); err != nil || !bytes.Contains(b, []byte("null")) {
		t.Errorf("%v", err)
	}
}
