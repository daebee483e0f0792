package main

import (
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// # Counting without counters
//
// A virtual machine often has no counters of instructions. Here another way is gone: the
// thread that commits is traced, and stops at every instruction, or at every system call.
// That takes some microseconds each, and gives exact numbers on any machine under any load.
// The thread marks where the commits begin and end with a signal to itself, which the tracer
// keeps from being delivered (kv/commitcost_linux_test.go).
//
// Instructions of Go's runtime, and of what it calls, are left out: under a tracer its
// scheduler waits for other threads most of the time, and what else it does, allocating, is
// counted as such. Only how often it is called is counted. Where the processor stops a
// thread at an address (skip_linux_amd64.go) these need not be stepped through, which are most.

// countInstructions counts those of n commits.
func (c *committer) countInstructions(n int) (f functionCounts, err error) {
	if c.owner == nil {
		if c.owner, err = functionsOf(c.binary); err != nil {
			return f, err
		}
	}
	w := walker{owner: c.owner, counts: map[*codeOwner]int{}}
	if err := c.traced(n, w.step); err != nil {
		return f, err
	}
	f.of, f.calls = map[string]int{}, map[string]int{}
	for o, n := range w.counts {
		if o.ours {
			f.ours += n
			f.of[o.name] += n
		} else {
			f.runtime += n
			f.calls[o.name] += n
		}
	}
	return f, nil
}

// countCalls counts the system calls of n commits.
func (c *committer) countCalls(n int) (calls int, err error) {
	stops := 0
	err = c.traced(n, func(tid int) error {
		stops++
		return unix.PtraceSyscall(tid, 0)
	})
	// A call stops the thread when it begins and when it ends; the second mark is one, too.
	return stops/2 - 1, err
}

// walker steps through a thread's instructions.
type walker struct {
	owner  func(pc uint64) *codeOwner
	counts map[*codeOwner]int // of ours instructions, of the runtime calls
	last   uint64             // instruction that it stood before
	ours   bool               // it was one of ours
	until  uint64             // the thread runs until it stands there; 0: it goes by steps
}

// step counts the instruction that the thread stands before, and goes on. One that repeats
// itself, to copy bytes, stops for each of these, and counts once.
func (w *walker) step(tid int) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	at := regs.PC()
	switch {
	case at == w.until:
		w.until = 0
		if err := stopNowhere(tid); err != nil {
			return err
		}
	case w.until != 0: // something else stopped it
		return unix.PtraceCont(tid, 0)
	case at == w.last:
		return unix.PtraceSingleStep(tid)
	}
	o, called := w.owner(at), w.ours
	w.last, w.ours = at, o.ours
	if o.ours || called {
		w.counts[o]++
	}
	if o.ours || !called {
		return unix.PtraceSingleStep(tid)
	}
	back, err := returnsTo(tid, &regs)
	if err == nil && w.owner(back).ours {
		err = stopAt(tid, back)
	}
	if err != nil || !w.owner(back).ours {
		return unix.PtraceSingleStep(tid)
	}
	w.until = back
	return unix.PtraceCont(tid, 0)
}

// functionsOf tells which function an instruction of a program is of.
func functionsOf(binary string) (func(pc uint64) *codeOwner, error) {
	f, err := elf.Open(binary)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines, text := f.Section(".gopclntab"), f.Section(".text")
	if lines == nil || text == nil {
		return nil, fmt.Errorf("%s has no table of functions", binary)
	}
	data, err := lines.Data()
	if err != nil {
		return nil, err
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr))
	if err != nil {
		return nil, err
	}
	at, byName := map[uint64]*codeOwner{}, map[string]*codeOwner{}
	return func(pc uint64) *codeOwner {
		o := at[pc]
		if o == nil {
			name := "kernel"
			if fn := table.PCToFunc(pc); fn != nil {
				name = fn.Name
			}
			if o = byName[name]; o == nil {
				ours := strings.Contains(name, ".") && !strings.HasPrefix(name, "runtime.") // without a dot: the runtime's, in assembly
				o = &codeOwner{name, ours}
				byName[name] = o
			}
			at[pc] = o
		}
		return o
	}, nil
}

// traced has n commits made; step has the thread go on from each stop between its two marks.
func (c *committer) traced(n int, step func(tid int) error) error {
	runtime.LockOSThread() // the kernel knows the tracer by its thread
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(c.thread); err != nil {
		return fmt.Errorf("trace: %w (%w)", err, errors.ErrUnsupported)
	}
	if err := c.say(fmt.Sprintf("commits %d", n)); err != nil {
		return err
	}
	if err := untilMark(c.thread, func(tid int) error { return unix.PtraceCont(tid, 0) }); err != nil {
		return err
	}
	if err := step(c.thread); err != nil {
		return fmt.Errorf("go on: %w", err)
	}
	if err := untilMark(c.thread, step); err != nil {
		return err
	}
	if err := unix.PtraceDetach(c.thread); err != nil {
		return err
	}
	if c.answer("done") == "" {
		return errors.New("the process that commits ended")
	}
	return nil
}

// untilMark lets a thread go on from each stop until it marks. It runs already.
func untilMark(tid int, step func(tid int) error) error {
	for {
		marked, err := stopped(tid)
		if marked || err != nil {
			return err
		}
		if err := step(tid); err != nil {
			return fmt.Errorf("go on: %w", err)
		}
	}
}

// stopped waits until the thread stops, and reports whether by its mark.
func stopped(tid int) (marked bool, err error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(tid, &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("wait for the thread: %w", err)
		}
		break
	}
	switch {
	case !status.Stopped():
		return false, fmt.Errorf("the thread ended: %v", status)
	case status.StopSignal() == unix.SIGUSR1:
		return true, nil
	case status.StopSignal() == unix.SIGTRAP, status.StopSignal() == unix.SIGURG: // a stop; a hint to the scheduler
		return false, nil
	}
	return false, fmt.Errorf("the thread got signal %v", status.StopSignal())
}
