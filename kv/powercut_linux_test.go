package kv_test

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/kv"
)

var cutsFlag = flag.Int("cuts", 4, "how often TestPowerCut_D1_D2_D9 cuts the power, on each kind of file system")

// cutRig is a file system on a block device whose state can be copied at one moment,
// while it is mounted and written. The device is a file on XFS, which the kernel clones
// in one step: what the inner file system has handed to the device is in the clone, what
// its cache has is not. That is what is there after the power failed, but for what
// drives do with their own caches.
type cutRig struct {
	t           *testing.T
	kind        string // of the inner file system
	outer, inst string // mount points: of what holds the images, of the one that is written
}

// run runs a command of the system.
func (r *cutRig) run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, bytes.TrimSpace(out))
	}
	return nil
}

// newCutRig mounts both file systems. It skips, and says why, where that cannot be done.
func newCutRig(t *testing.T, kind string) *cutRig {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: a power cut on a real file system needs root, to mount")
	}
	for _, program := range []string{"mkfs.xfs", "mkfs." + kind, "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("NOT RUN: a power cut on a real file system needs %s", program)
		}
	}
	dir := t.TempDir()
	r := &cutRig{t: t, kind: kind, outer: filepath.Join(dir, "outer"), inst: filepath.Join(dir, "inner")}
	image := filepath.Join(dir, "outer.img")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 2<<30)) // sparse
	must(t, r.run("mkfs.xfs", "-q", "-m", "reflink=1", image))
	if err := r.mount(image, r.outer, ""); err != nil {
		t.Skipf("NOT RUN: a power cut on a real file system needs loop devices and XFS: %v", err)
	}
	r.neverFlush(r.outer)
	must(t, os.WriteFile(r.image(), nil, 0o600))
	must(t, os.Truncate(r.image(), 320<<20))
	must(t, r.run("mkfs."+kind, "-q", r.image()))
	must(t, r.mount(r.image(), r.inst, ""))
	return r
}

func (r *cutRig) image() string { return filepath.Join(r.outer, "inner.img") }

// mount mounts an image until the test ends, or unmount is called.
func (r *cutRig) mount(image, at, options string) error {
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	if err := r.run("mount", "-o", "loop"+options, image, at); err != nil {
		return err
	}
	r.t.Cleanup(func() { _ = r.unmount(at) }) // most are unmounted already
	return nil
}

// neverFlush has the file system mounted at a place take what its device was handed for
// durable. The outer one only has to keep what it has while the test runs: without this
// each sync of the inner one waits for a real disk. Where it cannot be said it is slow.
func (r *cutRig) neverFlush(at string) {
	var info unix.Stat_t
	must(r.t, unix.Stat(at, &info))
	cache := fmt.Sprintf("/sys/dev/block/%d:%d/queue/write_cache", unix.Major(info.Dev), unix.Minor(info.Dev))
	was, err := os.ReadFile(cache)
	if err == nil {
		err = os.WriteFile(cache, []byte("write through"), 0o600)
	}
	if err != nil {
		r.t.Logf("the file system below is synced: %v", err)
		return
	}
	r.t.Cleanup(func() { must(r.t, os.WriteFile(cache, was, 0o600)) }) // the device keeps it, and others may get it
}

func (r *cutRig) unmount(at string) error { return r.run("umount", at) }

// cut copies the device as it is at one moment.
func (r *cutRig) cut() (image string, err error) {
	from, err := os.Open(r.image())
	if err != nil {
		return "", err
	}
	defer from.Close()
	image = filepath.Join(r.outer, "cut.img")
	to, err := os.Create(image)
	if err != nil {
		return "", err
	}
	return image, errors.Join(unix.IoctlFileClone(int(to.Fd()), int(from.Fd())), to.Close())
}

// cutRun is a process on the rig that writes on while the power is cut.
type cutRun struct {
	*cutRig
	mu    sync.Mutex
	said  sync.Cond
	lines int
	ended bool
	now   killRun // what it has said so far

	process *os.Process
}

// cutLines is how many lines, at most, a process says between two cuts.
const cutLines = 200

// start starts the process. stop ends it. What it runs beside would only take time from
// it: pause stops it while what a cut has left is looked at, and goOn lets it go on.
func (c *cutRun) start(child string) (stop func()) {
	c.now = killRun{t: c.t, dir: c.inst}
	c.lines, c.ended = 0, false
	must(c.t, os.MkdirAll(killTemp(c.inst), 0o700))
	p := newChild(c.t, child, c.inst)
	out, err := p.StdoutPipe()
	must(c.t, err)
	must(c.t, p.Start())
	c.process = p.Process
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			c.mu.Lock()
			c.now.note(lines.Text())
			c.lines++
			c.said.Broadcast()
			c.mu.Unlock()
		}
		c.mu.Lock()
		c.ended = true
		c.said.Broadcast()
		c.mu.Unlock()
	}()
	stop = sync.OnceFunc(func() {
		_ = p.Process.Kill() // also if it has ended, which Wait tells
		<-read
		var exit *exec.ExitError
		if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			c.t.Errorf("the process that writes was not killed, but ended: %v", err)
		}
	})
	c.t.Cleanup(stop) // of a test that fails it would be left where it was stopped, and its mount, too
	return stop
}

func (c *cutRun) pause() { must(c.t, c.process.Signal(syscall.SIGSTOP)) }
func (c *cutRun) goOn()  { must(c.t, c.process.Signal(syscall.SIGCONT)) }

// await waits until the process has said so many lines more, and returns all that it
// has said.
func (c *cutRun) await(lines int) *killRun {
	c.mu.Lock()
	defer c.mu.Unlock()
	for due := c.lines + lines; c.lines < due && !c.ended; {
		c.said.Wait()
	}
	k := c.now
	k.known, k.goes, k.listed = slices.Clone(k.known), true, true
	return &k
}

// powerCuts cuts the power so many times, and gives each state that is left, mounted,
// to look, with what had been said before.
func powerCuts(t *testing.T, kind, child string, cuts int, look func(*killRun)) {
	rig := newCutRig(t, kind)
	rng := rand.New(rand.NewPCG(chance.Seed(t), 11))
	c := &cutRun{cutRig: rig}
	c.said.L = &c.mu
	at := filepath.Join(rig.outer, "cut")
	options := ""
	if kind == "xfs" {
		options = ",nouuid"
	}
	for done := 0; done < cuts && !t.Failed(); {
		stop := c.start(child)
		for range min(25, cuts-done) {
			k := c.await(1 + rng.IntN(cutLines))
			for range rng.IntN(1_000_000) {
				// A moment that no line of the process marks.
			}
			image, err := rig.cut()
			c.pause()
			if err == nil {
				err = rig.mount(image, at, options)
			}
			if err != nil {
				stop()
				t.Fatal(err)
			}
			k.dir, k.rng = at, rng
			must(t, os.MkdirAll(killTemp(at), 0o700))
			look(k)
			must(t, rig.unmount(at))
			must(t, os.Remove(image))
			c.goOn()
			if done++; t.Failed() {
				break
			}
		}
		stop()
		for _, of := range []string{killDB(rig.inst), killRepo(rig.inst), killTemp(rig.inst)} {
			must(t, os.RemoveAll(of)) // the next process begins afresh
		}
	}
}

// TestPowerCut_D1_D2_D9: a process with four writers, readers and a backup runs on a real
// file system while the power is cut under it, again and again. What each cut leaves is
// mounted and opened as in TestKill_D1_D2_D9: every commit and every backup that was
// acknowledged before the cut is there.
func TestPowerCut_D1_D2_D9(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("its processes are to run at full speed")
	}
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			cuts, commits, unfinished := 0, uint64(0), 0
			powerCuts(t, kind, "writers", *cutsFlag, func(k *killRun) {
				commits += sum(k.acked[:])
				k.reopen()
				cuts, unfinished = cuts+1, unfinished+k.cut
			})
			t.Logf("%d power cuts on %s, %d acknowledged commits were due, %d unfinished backups", cuts, kind, commits, unfinished)
		})
	}
}

func sum(of []uint64) (n uint64) {
	for _, x := range of {
		n += x
	}
	return n
}

// TestPowerCut_FindsWhatIsNotSynced: the rig itself. A process that acknowledges commits
// without syncing them loses some at a cut, or else the rig proves nothing.
func TestPowerCut_FindsWhatIsNotSynced(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("its processes are to run at full speed")
	}
	lost, cuts := 0, 3
	powerCuts(t, "ext4", "writers that do not sync", cuts, func(k *killRun) {
		db, err := kv.Open(killDB(k.dir), killOptions(k.dir))
		if err != nil {
			lost++ // the directory itself was not synced
			return
		}
		counts, err := countsOf(db)
		must(t, err)
		must(t, db.Close())
		if sum(counts[:]) < sum(k.acked[:]) {
			lost++
		}
	})
	if lost == 0 {
		t.Fatalf("%d cuts of a process that does not sync have lost nothing", cuts)
	}
}
