package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// committer is a process that commits when it is told to (kv/commitcost_test.go). Its
// thread that does so can be traced.
type committer struct {
	binary string
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	thread int
	owner  func(pc uint64) *codeOwner // set by who counts instructions first
}

// codeOwner is the function that an instruction is of.
type codeOwner struct {
	name string
	ours bool // it is not of package runtime, nor of the kernel's
}

// costTotals is what a process took up to a moment.
type costTotals struct {
	allocs, bytes, cpu float64
	at                 time.Time
}

func (t costTotals) since(before costTotals) costTotals {
	return costTotals{t.allocs - before.allocs, t.bytes - before.bytes, t.cpu - before.cpu, t.at}
}

// start starts it; ctx ends it.
func (c *committer) start(ctx context.Context) (err error) {
	c.cmd = exec.CommandContext(ctx, c.binary, "-test.run=^TestCommitCost_Counted$")
	c.cmd.Env = append(os.Environ(), "SPILLWAY_COST=1", "GODEBUG=asyncpreemptoff=1")
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.out = bufio.NewReader(out)
	return c.cmd.Start()
}

// ready waits until it can be told something.
func (c *committer) ready() error {
	_, err := fmt.Sscanf(c.answer("thread"), "thread %d", &c.thread)
	if err != nil {
		return fmt.Errorf("it named no thread: %w", err)
	}
	return nil
}

// answer is the next line that begins with a word; empty if it says no more. Other lines are
// of package testing.
func (c *committer) answer(word string) string {
	for {
		line, err := c.out.ReadString('\n')
		if strings.HasPrefix(line, word) {
			return line
		}
		if err != nil {
			return ""
		}
	}
}

// say tells it something.
func (c *committer) say(line string) error {
	_, err := fmt.Fprintln(c.in, line)
	return err
}

// tell tells it something and waits for the answer.
func (c *committer) tell(line, word string) error {
	if err := c.say(line); err != nil {
		return err
	}
	if c.answer(word) == "" {
		return fmt.Errorf("the process that commits ended when it was told %q", line)
	}
	return nil
}

// commits has it commit.
func (c *committer) commits(n int) error { return c.tell(fmt.Sprintf("commits %d", n), "done") }

// totals asks what it took so far.
func (c *committer) totals() (t costTotals, err error) {
	if err = c.say("totals"); err == nil {
		_, err = fmt.Sscanf(c.answer("totals"), "totals %g %g %g", &t.allocs, &t.bytes, &t.cpu)
	}
	t.at = time.Now()
	return t, err
}

// end has it end.
func (c *committer) end() error {
	err := c.say("end")
	said, readErr := io.ReadAll(c.out)
	if waitErr := c.cmd.Wait(); waitErr != nil {
		return fmt.Errorf("the process that commits: %w: %.1000s", waitErr, said)
	}
	return errors.Join(err, readErr)
}
