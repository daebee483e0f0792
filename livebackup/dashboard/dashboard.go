package dashboard

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/spillwaydb/spillway/internal/watch"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/livebackup/metrics"
)

//go:embed page
var page embed.FS

// Options of a Dashboard. The zero value is good.
type Options struct {
	// Token is what who looks has to know, at least 16 bytes; "": a random one.
	Token string
	// Open lets everybody look who reaches the handler: for a program that asks by
	// itself who is there.
	Open bool
	// Hosts are names under which the page may be asked for, besides localhost and
	// addresses.
	Hosts      []string
	Repository *livebackup.Repository // of the database; nil: nothing is said of backups
	Every      time.Duration          // between two looks; 0: 2 seconds
	Logger     *slog.Logger           // nil: nothing is logged
}

// tokenBytesMin is the least length of a token that is given.
const tokenBytesMin = 16

func (o Options) withDefaults() (Options, error) {
	if o.Token == "" {
		o.Token = rand.Text()
	}
	if o.Every == 0 {
		o.Every = 2 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case len(o.Token) < tokenBytesMin:
		return o, fmt.Errorf("a token of %d bytes is too short: it must have at least %d", len(o.Token), tokenBytesMin)
	case o.Every < 100*time.Millisecond || o.Every > time.Minute:
		return o, errors.New("a look must be every 100 ms to 1 min")
	}
	return o, nil
}

// Dashboard looks at a database and shows it. Safe for concurrent use. Close it.
type Dashboard struct {
	o       Options
	mux     *http.ServeMux
	quit    context.CancelFunc
	looking sync.WaitGroup

	mu      sync.Mutex // guards what follows
	state   []byte     // JSON of the last view
	history history
}

// New starts to look at src.
func New(src livebackup.Source, o Options) (*Dashboard, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	d := &Dashboard{o: o, mux: http.NewServeMux(), state: []byte("null")}
	registry := prometheus.NewRegistry()
	if err := registry.Register(metrics.New(src, metrics.Options{Repository: o.Repository})); err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	d.mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	d.mux.HandleFunc("GET /state.json", d.serveState)
	d.mux.HandleFunc("GET /history.json", d.serveHistory)
	d.mux.HandleFunc("GET /{$}", servePage("index.html", "text/html; charset=utf-8"))
	d.mux.HandleFunc("GET /app.js", servePage("app.js", "text/javascript; charset=utf-8"))
	d.mux.HandleFunc("GET /style.css", servePage("style.css", "text/css; charset=utf-8"))
	d.mux.HandleFunc("GET /icon.svg", servePage("icon.svg", "image/svg+xml"))
	ctx, quit := context.WithCancel(context.Background())
	d.quit = quit
	sampler := watch.NewSampler(src, o.Repository)
	d.looking.Go(func() { d.look(ctx, sampler) })
	return d, nil
}

// Close ends the looking. What was seen can still be served.
func (d *Dashboard) Close() error {
	d.quit()
	d.looking.Wait()
	return nil
}

// Token is what who looks has to know.
func (d *Dashboard) Token() string { return d.o.Token }

// URL is where to look, token included, if the dashboard is served at addr: for the
// operator's eyes.
func (d *Dashboard) URL(addr net.Addr) string {
	u := url.URL{Scheme: "http", Host: addr.String(), Path: "/"}
	if !d.o.Open {
		u.RawQuery = url.Values{"token": {d.o.Token}}.Encode()
	}
	return u.String()
}

// look takes a view now and then.
func (d *Dashboard) look(ctx context.Context, s *watch.Sampler) {
	tick := time.NewTicker(d.o.Every)
	defer tick.Stop()
	for {
		v := s.Sample(ctx)
		if ctx.Err() != nil {
			return
		}
		state, err := json.Marshal(&v)
		if err != nil {
			d.o.Logger.Error("dashboard: view does not encode", "error", err)
		}
		d.mu.Lock()
		if err == nil {
			d.state = state
		}
		d.history.add(&v)
		d.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ServeHTTP serves who may look.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	switch {
	case d.o.Open:
	case !d.knownHost(r.Host):
		http.Error(w, "this name is not one of the dashboard's", http.StatusMisdirectedRequest)
		return
	case r.URL.Path == "/" && d.isToken(r.URL.Query().Get("token")):
		d.welcome(w)
		return
	case !d.allowed(r):
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "the dashboard wants its token: use the whole address that was printed when it started", http.StatusUnauthorized)
		return
	}
	d.mux.ServeHTTP(w, r)
}

// secure forbids a browser all that the page does not need.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

func (d *Dashboard) serveState(w http.ResponseWriter, _ *http.Request) {
	d.mu.Lock()
	state := d.state
	d.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Write(state)
}

func (d *Dashboard) serveHistory(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	c := d.history.curves(r.URL.Query().Get("range") == "hours")
	d.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(c); err != nil {
		d.o.Logger.Debug("dashboard: history not sent", "error", err)
	}
}

func servePage(name, kind string) http.HandlerFunc {
	data, err := page.ReadFile("page/" + name)
	if err != nil {
		panic(err) // it is not embedded: a mistake in this package
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Write(data)
	}
}

// Listen opens addr, host and port, for a dashboard: on this machine only, unless
// anywhere says that others may come.
func Listen(addr string, anywhere bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	if ip := net.ParseIP(host); !anywhere && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("dashboard: %w: %q can be reached by others", ErrNotLoopback, addr)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	return ln, nil
}

// ErrNotLoopback refuses to listen where others can come, unless that was asked for.
var ErrNotLoopback = errors.New("not a loopback address")

// Serve serves the dashboard at ln until ctx ends, and closes ln.
func (d *Dashboard) Serve(ctx context.Context, ln net.Listener) error {
	server := &http.Server{
		Handler: d, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(d.o.Logger.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("dashboard: %w", err)
	}
	return nil
}
