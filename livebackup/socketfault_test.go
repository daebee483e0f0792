//go:build unix

package livebackup

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/spillwaydb/spillway/internal/vfs"
)

// cutSocket is a socket between a server and its clients that ends the first connection
// it is told to when so many bytes have gone one way.
type cutSocket struct {
	ln     *net.UnixListener
	server string
	group  sync.WaitGroup

	mu     sync.Mutex
	armed  bool
	toHere bool // bytes from the server count, otherwise those to it
	after  int64
	half   bool // only that way ends: the other goes on
	went   [2]int64
	struck bool
}

func newCutSocket(t *testing.T, server string) (*cutSocket, *Client) {
	t.Helper()
	dir := t.TempDir()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	c := &cutSocket{ln: ln, server: filepath.Join(server, SocketName)}
	c.group.Go(func() {
		for {
			from, err := ln.AcceptUnix()
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
	})
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

// pass hands on what comes, until it ends or is cut.
func (c *cutSocket) pass(from, to *net.UnixConn, toHere bool) {
	defer to.CloseWrite()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		left, cut, half := c.count(int64(n), toHere)
		if _, e := to.Write(buf[:left]); e != nil || err != nil {
			from.CloseRead() // who goes on writing is to notice
			return
		}
		if cut {
			if !half {
				from.Close()
				to.Close()
			}
			from.CloseRead()
			return
		}
	}
}

// count says how many of n bytes are handed on, and whether the connection, or half of it,
// ends then.
func (c *cutSocket) count(n int64, toHere bool) (left int64, cut, half bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	way := 0
	if toHere {
		way = 1
	}
	before := c.went[way]
	c.went[way] += n
	if !c.armed || c.struck || toHere != c.toHere || c.went[way] < c.after {
		return n, false, false
	}
	c.struck = true
	return max(c.after-before, 0), true, c.half
}

// arm begins to count.
func (c *cutSocket) arm(toHere bool, after int64, half bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed, c.struck, c.went = after > 0, false, [2]int64{}
	c.toHere, c.after, c.half = toHere, after, half
}

// counted is how many bytes went either way. Connections that end may still be on their way.
func (c *cutSocket) counted() [2]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.went
}

// TestSocket_CutAtEveryPlace ends the connection of a backup after so many bytes, this
// way and that, whole or one way only: the backup fails with an error that says so, the
// store keeps no snapshot for it, nothing of it is listed, and the next one is whole.
func TestSocket_CutAtEveryPlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "db")
	store := newStore(t, vfs.OS, dir, 150)
	defer store.Close()
	server, err := Serve(store, ServeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	socket, client := newCutSocket(t, dir)
	repo := realRepo(t)
	o := BackupOptions{Compression: CompressionNone, FullSpeed: true}
	socket.arm(false, 0, false)
	mustBackup(t, client, repo, o)
	total := socket.counted()
	made := 1
	places := 40
	if testing.Short() {
		places = 12
	}
	for way, toHere := range []bool{false, true} {
		for i := range places {
			after := 1 + total[way]*int64(i)/int64(places)
			if i < places/4 {
				after = 1 + int64(i)*7 // the first frames
			}
			socket.arm(toHere, after, i%3 == 0)
			_, err := Backup(t.Context(), client, repo, o)
			switch {
			case err == nil:
				made++
			case !errors.Is(err, ErrDisconnected) && !errors.Is(err, ErrProtocol) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
				t.Errorf("cut after %d bytes (from the server: %v): %v", after, toHere, err)
			}
			for len(store.Status().Backups) > 0 {
				runtime.Gosched() // the server has not noticed yet
			}
		}
	}
	socket.arm(false, 0, false)
	id := mustBackup(t, client, repo, o).ID
	if list := mustList(t, repo); len(list) != made+1 {
		t.Errorf("%d backups are listed, %d were made", len(list), made+1)
	}
	if _, err := Verify(t.Context(), repo, id, VerifyOptions{}); err != nil {
		t.Error(err)
	}
	t.Logf("%d of %d cuts came too late to matter", made-1, 2*places)
}
