//go:build unix

package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// framePreamble is what cutSocket calls the preambles.
const framePreamble frameKind = 0

// socketCut is where a connection ends: in a frame that goes one way.
type socketCut struct {
	toHere bool // from the server
	kind   frameKind
	nth    int // of that kind, counted through all connections
	place  cutPlace
	half   bool // only that way ends: the other goes on
}

func (c socketCut) String() string {
	from := map[bool]string{false: "client", true: "server"}[c.toHere]
	return fmt.Sprintf("frame %#x number %d of the %s, %s, one way only: %v", c.kind, c.nth, from, c.place, c.half)
}

// cutPlace is how much of a frame goes.
type cutPlace string

const (
	nothingGoes    cutPlace = "nothing of it"
	halfHeaderGoes cutPlace = "half of its header"
	halfGoes       cutPlace = "half of it"
	allGoes        cutPlace = "and what is behind it is lost"
)

var cutPlaces = []cutPlace{nothingGoes, halfHeaderGoes, halfGoes, allGoes}

// cutSocket is a socket between a server and its clients that ends the connection whose
// frame it is told.
type cutSocket struct {
	ln     *net.UnixListener
	server string
	group  sync.WaitGroup

	mu     sync.Mutex
	cut    *socketCut           // guarded by mu, as what follows; nil: none is due any more
	seen   [2]map[frameKind]int // frames that went either way
	struck bool
}

// newCutSocket is between the server in that directory and the client that it returns.
func newCutSocket(t *testing.T, server string) (*cutSocket, *Client) {
	t.Helper()
	dir := t.TempDir()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	c := &cutSocket{ln: ln, server: filepath.Join(server, SocketName)}
	c.arm(nil)
	c.group.Go(c.accept)
	t.Cleanup(func() {
		ln.Close()
		c.group.Wait()
	})
	client, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c, client
}

func (c *cutSocket) accept() {
	for {
		from, err := c.ln.AcceptUnix()
		if err != nil {
			return
		}
		to, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.server, Net: "unix"})
		if err != nil {
			from.Close()
			continue
		}
		c.group.Go(func() { c.pass(from, to, false) })
		c.group.Go(func() { c.pass(to, from, true) })
	}
}

// pass hands on what comes, frame by frame, until it ends or is cut.
func (c *cutSocket) pass(from, to *net.UnixConn, toHere bool) {
	defer to.CloseWrite()
	defer from.CloseRead() // who goes on writing is to notice
	kind, frame, err := framePreamble, make([]byte, preambleSize), error(nil)
	for _, err = io.ReadFull(from, frame); err == nil; kind, frame, err = passedFrame(from) {
		cut := c.count(kind, toHere)
		if cut != nil {
			frame = frame[:cut.place.of(len(frame))]
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
		if cut != nil {
			if !cut.half {
				from.Close()
				to.Close()
			}
			return
		}
	}
}

// passedFrame reads a whole frame, with its header.
func passedFrame(from io.Reader) (frameKind, []byte, error) {
	kind, length, err := readFrameHeader(from)
	if err != nil {
		return 0, nil, err
	}
	payload := make([]byte, length)
	_, err = io.ReadFull(from, payload)
	return kind, appendFrame(nil, kind, payload), err
}

// of is how many of n bytes go.
func (p cutPlace) of(n int) int {
	switch p {
	case nothingGoes:
		return 0
	case halfHeaderGoes:
		return frameHeaderSize / 2
	case halfGoes:
		return (n + frameHeaderSize) / 2
	}
	return n
}

// count counts a frame, and returns the cut if it is in this one.
func (c *cutSocket) count(kind frameKind, toHere bool) *socketCut {
	c.mu.Lock()
	defer c.mu.Unlock()
	way := 0
	if toHere {
		way = 1
	}
	nth := c.seen[way][kind]
	c.seen[way][kind]++
	cut := c.cut
	if cut == nil || cut.kind != kind || cut.nth != nth || cut.toHere != toHere {
		return nil
	}
	c.cut, c.struck = nil, true
	return cut
}

// arm begins to count.
func (c *cutSocket) arm(cut *socketCut) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut, c.struck, c.seen = cut, false, [2]map[frameKind]int{{}, {}}
}

// counted is what went either way since, and whether the connection was cut. Connections
// that end may still be on their way.
func (c *cutSocket) counted() (seen [2]map[frameKind]int, struck bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return [2]map[frameKind]int{maps.Clone(c.seen[0]), maps.Clone(c.seen[1])}, c.struck
}

// socketUse is something that clients do, and what it may end with though nothing is cut.
type socketUse struct {
	name string
	may  error
	do   func(ctx context.Context, c *Client) error
}

// socketRig is a database that is served, and what clients do with it.
type socketRig struct {
	*history
	direct *Client // past the socket that cuts
	repo   *Repository
	uses   []socketUse
	acked  int // backups
}

func newSocketRig(t *testing.T) *socketRig {
	fs := simfs.New()
	r := &socketRig{history: smallHistory(t, rand.New(rand.NewPCG(1, 2)), fs, "/db"), repo: openRepo(t, fs, "/repo")}
	r.commit(60, 0, 0)
	r.commit(60, 0, 0) // a check tells how far it is every 1,024 blocks
	mustBackup(t, NewSource(r.store), r.repo, BackupOptions{})
	r.acked++
	r.direct = served(t, NewSource(r.store), ServeOptions{BatchBytes: 64 << 10})
	r.uses = []socketUse{
		{"status", nil, func(ctx context.Context, c *Client) error { _, err := c.Status(ctx); return err }},
		{"changes", nil, func(ctx context.Context, c *Client) error { _, err := c.Changes(ctx); return err }},
		{"events", nil, func(ctx context.Context, c *Client) error { _, err := c.Events(ctx, 0); return err }},
		{"check", nil, func(ctx context.Context, c *Client) error { _, err := c.Check(ctx, nil); return err }},
		{"mark", nil, func(ctx context.Context, c *Client) error { _, err := c.Mark(ctx, "now"); return err }},
		{"repair", nil, func(ctx context.Context, c *Client) error {
			_, err := c.RepairBlock(ctx, mvcc.BlockRepair{Block: 1 << 20, DryRun: true})
			return err
		}},
		{"release", mvcc.ErrNoSnapshot, func(ctx context.Context, c *Client) error { return c.Release(ctx, 1<<40) }},
		{"pace", mvcc.ErrNoBackup, func(ctx context.Context, c *Client) error { return c.Pace(ctx, 1<<40, 1) }},
		{"backup", nil, r.backupOver},
		{"session", nil, r.session},
		{"forward", nil, r.forward}, // takes long, see cutsOf
		{"log", nil, r.log},
		{"quiet", nil, func(ctx context.Context, c *Client) error {
			q, err := c.Quiesce(ctx, time.Minute)
			if err != nil {
				return err
			}
			return q.Release()
		}},
	}
	return r
}

func (r *socketRig) backupOver(ctx context.Context, c *Client) error {
	_, err := Backup(ctx, c, r.repo, BackupOptions{Compression: CompressionNone, FullSpeed: true})
	if err == nil {
		r.acked++
	}
	return err
}

// session takes some blocks, and is asked for another pace meanwhile.
func (r *socketRig) session(ctx context.Context, c *Client) error {
	s, err := c.Open(ctx, SessionOptions{Owner: "test"})
	if err != nil {
		return err
	}
	buf, ids := make([]byte, 64<<10), make([]block.ID, 16)
	err = r.direct.Pace(ctx, 0, 1<<30)
	if errors.Is(err, mvcc.ErrNoBackup) {
		err = nil // the cut was quicker
	}
	s.(*remoteSession).conn.renew()
	for n := 1; n > 0 && err == nil; {
		n, err = s.Next(ctx, buf, ids)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, s.Close())
}

// forward takes a session that falls forward, with its redo.
func (r *socketRig) forward(ctx context.Context, c *Client) error {
	s, err := c.Open(ctx, SessionOptions{OnExhaustion: mvcc.ExhaustionForward})
	if err != nil {
		return err
	}
	r.churn(1500)
	buf, ids := make([]byte, 64<<10), make([]block.ID, 16)
	for fell := (*mvcc.FellForwardError)(nil); err == nil || errors.As(err, &fell); {
		_, err = s.Next(ctx, buf, ids)
	}
	for errors.Is(err, io.EOF) {
		if _, err = s.Redo(ctx, 1<<20, func(mvcc.LogRecord) error { return nil }); errors.Is(err, io.EOF) {
			return s.Close()
		} else if err == nil {
			err = io.EOF
		}
	}
	return errors.Join(err, s.Close())
}

// log follows a commit.
func (r *socketRig) log(ctx context.Context, c *Client) error {
	from := r.store.Status().DurableLSN
	s, err := c.OpenLog(ctx, LogOptions{Name: "test", After: from})
	if err != nil {
		return err
	}
	at := r.commit(1, 1, 1)
	for upto := from; upto < at && err == nil; {
		if err = s.Wait(ctx); err == nil {
			upto, err = s.Read(ctx, 1<<20, func(mvcc.LogRecord) error { return nil })
		}
	}
	if err == nil {
		_, err = s.Sum(ctx, at)
	}
	if err == nil {
		err = s.Done(ctx, at)
	}
	return errors.Join(err, s.Close())
}

// settled waits until the server has let go of all that a client had: no snapshot, no log,
// and writers go on.
func (r *socketRig) settled() {
	for st := r.store.Status(); len(st.Backups)+len(st.Holders) > 0; st = r.store.Status() {
		runtime.Gosched() // the server has not noticed yet
	}
	r.commit(0, 1, 0)
}

// TestSocket_CutInEveryFrame ends the connection in the first and the last frame of each
// kind that a client and the server send each other, before it, within it and behind it,
// whole or one way only: what is asked for fails with an error that says so, or was done;
// the store keeps nothing for it; a backup that was not acknowledged is listed whole or not
// at all, and the next request is served.
func TestSocket_CutInEveryFrame(t *testing.T) {
	r := newSocketRig(t)
	socket, client := newCutSocket(t, r.direct.dir)
	met, cuts, late := map[frameKind]bool{}, 0, 0
	for _, use := range r.uses {
		socket.arm(nil)
		if err := use.do(t.Context(), client); !errors.Is(err, use.may) {
			t.Fatalf("%s: %v", use.name, err)
		}
		r.settled()
		seen, _ := socket.counted()
		for _, cut := range cutsOf(seen, use.name == "forward") {
			met[cut.kind] = true
			if cuts++; testing.Short() && cuts%5 != 0 {
				continue
			}
			socket.arm(&cut)
			err := use.do(t.Context(), client)
			_, struck := socket.counted()
			done := err == nil && use.may == nil || use.may != nil && errors.Is(err, use.may)
			if done {
				late++
			} else if !struck || !errors.Is(err, ErrDisconnected) {
				t.Errorf("%s, %v (struck: %v): %v", use.name, cut, struck, err)
			}
			r.settled()
		}
	}
	list := mustList(t, r.repo)
	for _, e := range list {
		mustProve(t, r.repo, e.ID)
	}
	if len(list) < r.acked {
		t.Errorf("%d backups are listed, %d were acknowledged", len(list), r.acked)
	}
	for _, k := range socketFrames() {
		if !met[k] {
			t.Errorf("no connection was cut in frame %#x", k)
		}
	}
	t.Logf("%d cuts, of which %d came too late to matter", cuts, late)
}

// socketFrames are all kinds of frames but promote.
func socketFrames() (kinds []frameKind) {
	for k := frameStatus; k <= frameRedo; k++ {
		if k != framePromote {
			kinds = append(kinds, k)
		}
	}
	for k := frameWelcome; k <= frameForward; k++ {
		kinds = append(kinds, k)
	}
	return append(kinds, framePreamble, frameError)
}

// TestSocket_CutInAPromotion does the same where a standby is promoted: that is done once,
// by this client, who may not hear of it, or the next.
func TestSocket_CutInAPromotion(t *testing.T) {
	seen, _ := promotion(t, nil)
	for _, cut := range cutsOf(seen, false) {
		if _, err := promotion(t, &cut); err != nil && !errors.Is(err, ErrDisconnected) {
			t.Errorf("%v: %v", cut, err)
		}
	}
}

func promotion(t *testing.T, cut *socketCut) (seen [2]map[frameKind]int, told error) {
	var promotions atomic.Int32
	dir := t.TempDir()
	src := statusHook{newFake(1, 5, 4<<10), func() {}}
	direct := served(t, src, ServeOptions{Dir: dir, Promote: func(context.Context) (Promoted, error) {
		promotions.Add(1)
		return Promoted{Timeline: "t"}, nil
	}})
	socket, client := newCutSocket(t, dir)
	socket.arm(cut)
	_, told = client.Promote(t.Context())
	seen, _ = socket.counted()
	_, again := direct.Promote(t.Context())
	if n := promotions.Load(); n != 1 || told == nil && !errors.Is(again, mvcc.ErrNotStandby) || again != nil && !errors.Is(again, mvcc.ErrNotStandby) {
		t.Errorf("%v: promoted %d times: %v, %v", cut, n, told, again)
	}
	return seen, told
}

// cutsOf are the cuts in the first and the last frame of each kind, or of those that only
// sessions have that fall forward.
func cutsOf(seen [2]map[frameKind]int, forward bool) (all []socketCut) {
	for way, kinds := range seen {
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			if forward && kind != frameRedo && kind != frameLog && kind != frameForward {
				continue
			}
			for _, nth := range slices.Compact([]int{0, kinds[kind] - 1}) {
				for _, place := range cutPlaces {
					all = append(all, socketCut{way == 1, kind, nth, place, false}, socketCut{way == 1, kind, nth, place, true})
				}
			}
		}
	}
	return all
}
