package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// Task is one measurement of one engine. The zero value of what a measurement
// does not use is good.
type Task struct {
	Measure string // name of the measurement, see Serve
	Engine  string
	Dir     string // of the database
	Config  Config `json:",omitzero"`

	Records    int
	ValueBytes int
	InOrder    bool          `json:",omitempty"` // load records in the order of their keys
	Load       Load          `json:",omitzero"`
	Readers    int           `json:",omitempty"` // goroutines that read, or readers held open
	Churn      int           `json:",omitempty"` // readers closed and opened a second
	Copying    bool          `json:",omitempty"` // scan in the copying form
	Warmup     time.Duration `json:",omitempty"`
	Duration   time.Duration `json:",omitempty"`
	Backup     BackupOptions `json:",omitzero"`
	Reverse    bool          `json:",omitempty"` // of two things that are compared, the second one first

	MemoryGroup string `json:",omitempty"` // control group that the process joins first
	CPUProfile  string `json:",omitempty"` // file; only what is measured
}

// Metrics are numbers by name. Names end in their unit.
type Metrics map[string]float64

// Outcome is what a task found.
type Outcome struct {
	Metrics Metrics
	Note    string `json:",omitempty"`
	Error   string `json:",omitempty"`
	// Diagnosis is what the process said when it died.
	Diagnosis string `json:",omitempty"`
}

// Child is how to start a process that calls Serve. The zero value starts this
// program again, with no arguments.
type Child struct {
	Path string // "": this program
	Args []string
	Env  []string // added to the environment
}

// Run has a new process do the task. When ctx ends the process is ended, and
// the diagnosis tells (where the system can do that) what it was at.
func (c Child) Run(ctx context.Context, t Task) (Outcome, error) {
	in, err := json.Marshal(t)
	if err != nil {
		return Outcome{}, err
	}
	path := c.Path
	if path == "" {
		if path, err = os.Executable(); err != nil {
			return Outcome{}, fmt.Errorf("find this program: %w", err)
		}
	}
	var out, diagnosis bytes.Buffer
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &head{&diagnosis}
	quitLoudly(cmd)
	if err := cmd.Run(); err != nil {
		if ended := context.Cause(ctx); ended != nil {
			err = ended
		}
		return Outcome{Diagnosis: diagnosis.String()}, fmt.Errorf("%s of %s: %w", t.Measure, t.Engine, err)
	}
	var o Outcome
	if err := json.Unmarshal(out.Bytes(), &o); err != nil {
		return o, fmt.Errorf("%s of %s: outcome: %w", t.Measure, t.Engine, err)
	}
	if o.Error != "" {
		return o, fmt.Errorf("%s of %s: %s", t.Measure, t.Engine, o.Error)
	}
	return o, nil
}

// head keeps the beginning of what a process says, which is where a panic is.
type head struct{ b *bytes.Buffer }

const diagnosisBytesMax = 64 << 10

func (h *head) Write(p []byte) (int, error) {
	room := max(diagnosisBytesMax-h.b.Len(), 0)
	h.b.Write(p[:min(len(p), room)])
	return len(p), nil
}

// Serve does one task: the other side of Child.Run. The error is one of in or
// out; the task's own is in the outcome.
func Serve(ctx context.Context, engines []Engine, in io.Reader, out io.Writer) error {
	var t Task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("read task: %w", err)
	}
	o := Outcome{Metrics: Metrics{}}
	if err := perform(ctx, engines, t, &o); err != nil {
		o.Error = err.Error()
	}
	return json.NewEncoder(out).Encode(o)
}

func perform(ctx context.Context, engines []Engine, t Task, o *Outcome) error {
	if t.MemoryGroup != "" {
		if err := (&MemoryGroup{t.MemoryGroup}).Join(); err != nil {
			return err
		}
	}
	measure, ok := measurements()[t.Measure]
	if !ok {
		return fmt.Errorf("measurement %q is unknown", t.Measure)
	}
	for _, e := range engines {
		if e.Name() == t.Engine {
			m := &measurement{Task: t, engine: e, Outcome: o}
			return errors.Join(measure(m, ctx), m.close())
		}
	}
	return fmt.Errorf("engine %q is unknown", t.Engine)
}
