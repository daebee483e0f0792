package dashboard

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// browser finds a browser without a window, or skips.
func browser(t *testing.T) string {
	if testing.Short() {
		t.Skip("starts a browser, which takes seconds")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("there is no chromium on this machine: the page is not tried in a browser")
	return ""
}

// browse runs the browser on url until the page had some seconds of its own time.
func browse(t *testing.T, path, url string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	args = append([]string{"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
		"--user-data-dir=" + t.TempDir(), "--virtual-time-budget=15000"}, args...)
	out, err := exec.CommandContext(ctx, path, append(args, url)...).Output()
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(out)
}

// The page in a real browser: the token is taken, scripts and styles run under the
// policy, gauges and curves are drawn, and names of others are text.
func TestBrowser_PageIsDrawn(t *testing.T) {
	chromium := browser(t)
	d, server := start(t, busy(), Options{Every: 100 * time.Millisecond})
	for len(func() []int64 { d.mu.Lock(); defer d.mu.Unlock(); return d.history.curves(false).Time }()) < 20 {
		<-time.After(50 * time.Millisecond)
	}
	dom := browse(t, chromium, d.URL(server.Listener.Addr()), "--dump-dom")
	for _, want := range []string{
		`>/srv/app/db</h1>`, `class="badge good" role="status">read-write`, `role="meter" aria-label="temporary"`, `class="level critical"`,
		`aria-valuenow="48"`, `role="progressbar" aria-label="backup 17"`, `/s</p>`, `class="s0"`, `Marks at 50, 75 and 90`, `&lt;img src=x`,
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("%s is not in the page", want)
		}
	}
	if strings.Contains(dom, "owned") && !strings.Contains(dom, "<title>db - Spillway</title>") || strings.Contains(dom, "<img src=\"x\"") {
		t.Error("a label was taken for markup")
	}
	if t.Failed() {
		t.Log(dom)
	}
	dir := os.Getenv("SPILLWAY_SCREENSHOTS") // to be looked at
	if dir == "" {
		return
	}
	for name, args := range map[string][]string{
		"light": {"--window-size=1280,1500"}, "dark": {"--window-size=1280,1500", "--blink-settings=preferredColorScheme=0"}, "narrow": {"--window-size=500,1900"},
	} {
		browse(t, chromium, d.URL(server.Listener.Addr()), append(args, "--screenshot="+filepath.Join(dir, name+".png"))...)
	}
}

// What the page makes of numbers and of a repository, in an interpreter without a page.
func TestPage_Words(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node on this machine")
	}
	app, err := page.ReadFile("page/app.js")
	if err != nil {
		t.Fatal(err)
	}
	const none = `globalThis.document = {getElementById: () => ({addEventListener() {}})}; globalThis.addEventListener = () => {};
		globalThis.fetch = () => new Promise(() => {}); globalThis.setInterval = () => {};`
	for call, want := range map[string]string{
		"elapsed(59.7e9)": "1 min 0 s", "elapsed(119.7e9)": "2 min 0 s", "elapsed(3599.8e9)": "1 h 0 min", "elapsed(7199e9)": "2 h 0 min",
		"elapsed(61e9)": "1 min 1 s", "elapsed(9.96e9)": "10 s", "elapsed(2e5)": "200 µs", "elapsed(-1)": "0 s", "elapsed(3e14)": "3 days",
		`atRisk({repository: {backups: 0}})`: "everything,no backup yet",
		`atRisk({repository: {backups: 2, archived: true, committed: "0001-01-01T00:00:00Z", archived_until: "2026-01-01T00:00:00Z"}})`: "everything,no backup is sound",
		`atRisk({time: "2026-01-01T00:01:00Z", last_commit: "2026-01-01T00:00:59Z", repository: {backups: 2, newest: "b", kind: "full", state: "proven",
			committed: "2026-01-01T00:00:00Z"}})`: "last 1 min 0 s,newest: full b, proven",
		`atRisk({time: "2025-01-01T00:01:00Z", last_commit: "2026-01-01T00:00:09Z", repository: {backups: 2, newest: "b", kind: "full", state: "proven",
			committed: "2026-01-01T00:00:00Z"}})`: "last 9 s,newest: full b, proven",
	} {
		out, err := exec.CommandContext(t.Context(), node, "-e", none+string(app)+";console.log(String("+call+")); process.exit()").CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", call, got, err, want)
		}
	}
}
