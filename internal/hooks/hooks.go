package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/livebackup"
)

// The events that there are hooks for.
const (
	Start     = "start"     // before the snapshot is opened
	Watermark = "watermark" // the database crossed a watermark, or reached a rung of the ladder
	End       = "end"       // done or failed
)

// Hooks are what to call; "": nothing.
type Hooks struct {
	Start, Watermark, End string
	Timeout               time.Duration // of each call; 0: 30 seconds
}

// Validate refuses what could never be called.
func (h *Hooks) Validate() error {
	for _, target := range []string{h.Start, h.Watermark, h.End} {
		if isURL(target) {
			if u, err := url.Parse(target); err != nil || u.Host == "" {
				return errors.New("a hook is no URL that could be called: " + redact(target))
			}
		}
	}
	if h.Timeout < 0 {
		return errors.New("the time of a hook must not be negative")
	}
	return nil
}

// of is what to call for an event.
func (h *Hooks) of(event string) string {
	switch event {
	case Start:
		return h.Start
	case Watermark:
		return h.Watermark
	}
	return h.End
}

// Notice is what a hook is told.
type Notice struct {
	Event      string    `json:"event"` // Start, Watermark or End
	Time       time.Time `json:"time"`
	Database   string    `json:"database"`   // directory
	Repository string    `json:"repository"` // directory
	Label      string    `json:"label"`

	// Of a watermark: the store's word for what happened, and the same for people; of a
	// level what it is now.
	Kind  string `json:"kind,omitempty"`
	Text  string `json:"text,omitempty"`
	Level string `json:"level,omitempty"`
	State string `json:"state,omitempty"`

	Record *livebackup.Record `json:"record,omitempty"` // of the end
}

// environment is what a command finds in its environment, besides what is there.
func (n *Notice) environment() []string {
	list := []string{
		"SPILLWAY_EVENT=" + n.Event, "SPILLWAY_DATABASE=" + n.Database, "SPILLWAY_REPOSITORY=" + n.Repository, "SPILLWAY_LABEL=" + n.Label,
		"SPILLWAY_KIND=" + n.Kind, "SPILLWAY_TEXT=" + n.Text, "SPILLWAY_LEVEL=" + n.Level, "SPILLWAY_STATE=" + n.State,
	}
	outcome, id, failure := "", "", ""
	if r := n.Record; r != nil {
		outcome = r.Outcome
		if !r.ID.IsZero() {
			id = r.ID.String()
		}
		if r.Error != nil {
			failure = r.Error.Message
		}
	}
	list = append(list, "SPILLWAY_OUTCOME="+outcome, "SPILLWAY_BACKUP="+id, "SPILLWAY_ERROR="+failure)
	for i := range list {
		list[i] = strings.ReplaceAll(list[i], "\x00", "") // the environment holds none
	}
	return list
}

// Failure is a call that went wrong.
type Failure struct {
	Event string `json:"event"`
	Error string `json:"error"`
}

// waitingMax is how many watermarks may wait for their hook. A slow hook must not make
// them pile up: those beyond are left out, and counted.
const waitingMax = 16

// Runner calls hooks, in a goroutine of its own. Tell is for any goroutine.
type Runner struct {
	hooks   Hooks
	waiting chan Notice
	called  chan struct{} // closed when nothing is waiting any more
	failed  []Failure     // of Run until called is closed, then of Close
	leftOut atomic.Int64
}

// NewRunner starts to call h. Close it.
func NewRunner(h Hooks) *Runner {
	if h.Timeout == 0 {
		h.Timeout = 30 * time.Second
	}
	r := &Runner{hooks: h, waiting: make(chan Notice, waitingMax), called: make(chan struct{})}
	go r.run()
	return r
}

func (r *Runner) run() {
	defer close(r.called)
	for n := range r.waiting {
		if err := r.call(n); err != nil {
			r.failed = append(r.failed, Failure{n.Event, err.Error()})
		}
	}
}

// Tell has a notice's hook called, and does not wait for it. It is left out if too
// many are waiting.
func (r *Runner) Tell(n Notice) {
	if r.hooks.of(n.Event) == "" {
		return
	}
	select {
	case r.waiting <- n:
	default:
		r.leftOut.Add(1)
	}
}

// Close has the last notice's hook called when all others were, waits for that, and
// returns what went wrong. The runner is done then, and nobody may use it.
func (r *Runner) Close(last Notice) []Failure {
	if r.hooks.of(last.Event) != "" {
		r.waiting <- last
	}
	close(r.waiting)
	<-r.called
	if n := r.leftOut.Load(); n > 0 {
		r.failed = append(r.failed, Failure{Watermark, fmt.Sprintf("%d were left out: the hook takes too long", n)})
	}
	return r.failed
}

// call calls a notice's hook, and takes no longer than it may.
func (r *Runner) call(n Notice) error {
	target := r.hooks.of(n.Event)
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), r.hooks.Timeout, fmt.Errorf("it took longer than %v", r.hooks.Timeout))
	defer cancel()
	if isURL(target) {
		err = post(ctx, target, body)
	} else {
		err = command(ctx, target, body, n.environment())
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

func isURL(target string) bool {
	return strings.HasPrefix(target, "http://") || strings.HasPrefix(target, "https://")
}

// redact leaves of a URL what is no secret: the rest often is one.
func redact(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return "a URL that does not parse"
	}
	return u.Scheme + "://" + u.Host
}

// post sends body to a URL.
func post(ctx context.Context, target string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return errors.New("no request to " + redact(target))
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		var with *url.Error // it names the whole URL
		if errors.As(err, &with) {
			err = with.Err
		}
		return fmt.Errorf("%s: %w", redact(target), err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)); err != nil {
		return fmt.Errorf("%s: %w", redact(target), err)
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s answers %s", redact(target), resp.Status)
	}
	return nil
}

// saidMax is how much of what a command prints is kept, in bytes.
const saidMax = 1 << 10

// said is the end of what a command printed.
type said struct{ text []byte }

func (s *said) Write(p []byte) (int, error) {
	s.text = append(s.text, p...)
	s.text = s.text[max(len(s.text)-saidMax, 0):]
	return len(p), nil
}

// command runs a command with body on its standard input.
func command(ctx context.Context, line string, body []byte, environment []string) error {
	var out said
	c := shell(ctx, line)
	c.Env = append(os.Environ(), environment...)
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(body), &out, &out
	c.WaitDelay = time.Second // whoever keeps its output open is not waited for
	ownGroup(c)
	err := c.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it left somebody behind, and was done itself
	}
	if text := strings.TrimSpace(string(out.text)); err != nil && text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}
