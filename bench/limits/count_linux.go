package main

import (
	"bufio"
	"context"
	"debug/elf"
	"debug/gosym"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
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
// Instructions of Go's runtime are left out: under a tracer its scheduler waits for other
// threads most of the time, and what else it does, allocating, is counted as such.

// commitCounts is what the thread that commits did for a commit, on average.
type commitCounts struct{ instructions, calls float64 }

// callsEach is for how many times as many commits system calls are counted: there are few of
// them, and to stop for these only takes little.
const callsEach = 400

// countCommits counts both, in two runs.
func countCommits(ctx context.Context, binary, mode string, commits int) (c commitCounts, err error) {
	ours, err := outsideRuntime(binary)
	if err != nil {
		return c, fmt.Errorf("count instructions: %w", err)
	}
	steps, err := traced(ctx, binary, mode, commits, stepInstruction(ours))
	if err != nil {
		return c, fmt.Errorf("count instructions: %w", err)
	}
	// A call stops the thread when it begins and when it ends; the second mark is one, too.
	stops, err := traced(ctx, binary, mode, callsEach*commits, func(tid int) (bool, error) { return true, unix.PtraceSyscall(tid, 0) })
	if err != nil {
		return c, fmt.Errorf("count system calls: %w", err)
	}
	return commitCounts{float64(steps) / float64(commits), float64(stops/2-1) / float64(callsEach*commits)}, nil
}

// stepFunc has a stopped thread go on to its next stop, and reports whether the stop that it
// leaves counts.
type stepFunc func(tid int) (counts bool, err error)

// stepInstruction goes on by an instruction. One that repeats itself, to copy bytes, stops
// for each of these, and counts once.
func stepInstruction(counted func(pc uint64) bool) stepFunc {
	var last uint64
	var regs unix.PtraceRegs
	return func(tid int) (bool, error) {
		if err := unix.PtraceGetRegs(tid, &regs); err != nil {
			return false, err
		}
		at := regs.PC()
		counts := at != last && counted(at)
		last = at
		return counts, unix.PtraceSingleStep(tid)
	}
}

// outsideRuntime tells whether an instruction of a program is one of a function that is not
// of package runtime, nor of the kernel's.
func outsideRuntime(binary string) (func(pc uint64) bool, error) {
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
	known := map[uint64]bool{}
	return func(pc uint64) bool {
		ours, seen := known[pc]
		if !seen {
			fn := table.PCToFunc(pc)
			ours = fn != nil && !strings.HasPrefix(fn.Name, "runtime.")
			known[pc] = ours
		}
		return ours
	}, nil
}

// traced counts the stops of the thread between its two marks.
func traced(ctx context.Context, binary, mode string, commits int, step stepFunc) (stops int, err error) {
	runtime.LockOSThread() // the kernel knows the tracer by its thread
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run=^TestCommitCost_Counted$")
	cmd.Env = append(os.Environ(), "SPILLWAY_COST_MODE="+mode, "SPILLWAY_COST_COMMITS="+strconv.Itoa(commits), "GODEBUG=asyncpreemptoff=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	stops, err = traceThread(in, bufio.NewReader(out), step)
	if err != nil {
		cancel()
	}
	_, copyErr := io.Copy(io.Discard, out)
	return stops, errors.Join(err, copyErr, cmd.Wait())
}

// traceThread traces the thread that the other process names, from its first mark to its
// second.
func traceThread(in io.Writer, out *bufio.Reader, step stepFunc) (stops int, err error) {
	var tid int
	for tid == 0 {
		line, err := out.ReadString('\n')
		if err != nil {
			return 0, fmt.Errorf("it named no thread: %w", err)
		}
		_, _ = fmt.Sscanf(line, "thread %d", &tid) // other lines name none
	}
	if err := unix.PtraceSeize(tid); err != nil {
		return 0, fmt.Errorf("trace: %w", err)
	}
	if _, err := in.Write([]byte{'\n'}); err != nil {
		return 0, err
	}
	if _, err := untilMark(tid); err != nil {
		return 0, err
	}
	for {
		counts, err := step(tid)
		if err != nil {
			return 0, fmt.Errorf("go on: %w", err)
		}
		if counts {
			stops++
		}
		marked, err := stopped(tid)
		if err != nil {
			return 0, err
		}
		if marked {
			return stops, unix.PtraceDetach(tid)
		}
	}
}

// untilMark lets the thread run until it marks. It runs already.
func untilMark(tid int) (bool, error) {
	for {
		marked, err := stopped(tid)
		if marked || err != nil {
			return marked, err
		}
		if err := unix.PtraceCont(tid, 0); err != nil {
			return false, fmt.Errorf("go on: %w", err)
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
