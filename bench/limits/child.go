package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// childVariable names what a process is to do that this program has started.
const childVariable = "SPILLWAY_LIMITS_CHILD"

// children are what such processes can do: each takes its task and returns what came of
// it, both as JSON.
var children = map[string]func(context.Context, []byte) (any, error){
	"fill":   task(fill),
	"memory": task(memoryRun),
	"guards": task(guardsRun),
	"thrash": task(thrashRun),
}

// task is a function as a child calls it.
func task[In, Out any](f func(context.Context, In) (Out, error)) func(context.Context, []byte) (any, error) {
	return func(ctx context.Context, data []byte) (any, error) {
		var in In
		if err := json.Unmarshal(data, &in); err != nil {
			return nil, fmt.Errorf("read task: %w", err)
		}
		return f(ctx, in)
	}
}

// beChild does the task of a process that this program has started; false if it is none.
func beChild(ctx context.Context) bool {
	f, is := children[os.Getenv(childVariable)]
	if !is {
		return false
	}
	var in bytes.Buffer
	_, err := in.ReadFrom(os.Stdin)
	var out any
	if err == nil {
		out, err = f(ctx, in.Bytes())
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// inChild has a new process do a task, and takes what came of it into out.
func inChild(ctx context.Context, name string, in, out any) error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s in a process of its own: %w: %.2000s", name, err, stderr.String())
	}
	return json.Unmarshal(stdout.Bytes(), out)
}
