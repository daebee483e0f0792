package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/hooks"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/internal/priority"
	"github.com/spillwaydb/spillway/internal/watch"
	"github.com/spillwaydb/spillway/livebackup"
)

// hookFlags say whom to call while a backup runs.
type hookFlags struct {
	onStart, onWatermark, onEnd string
	timeout                     human.Duration
}

func (f *hookFlags) add(c *cobra.Command) {
	f.timeout = human.Duration(30 * time.Second)
	c.Flags().StringVar(&f.onStart, "on-start", "", "`command` to run, or URL to post to, when it begins")
	c.Flags().StringVar(&f.onWatermark, "on-watermark", "", "`command` or URL for what the database warns of meanwhile")
	c.Flags().StringVar(&f.onEnd, "on-end", "", "`command` or URL for when it is done or has failed")
	c.Flags().Var(&f.timeout, "hook-timeout", "time that each of these may take")
}

func (f *hookFlags) hooks() hooks.Hooks {
	return hooks.Hooks{Start: f.onStart, Watermark: f.onWatermark, End: f.onEnd, Timeout: time.Duration(f.timeout)}
}

// priorityFlags say how far the command gives way to others.
type priorityFlags struct {
	nice    int
	ioClass string
}

func (f *priorityFlags) add(c *cobra.Command) {
	c.Flags().IntVar(&f.nice, "nice", 0, "give way to others for the CPU: 0 to 19 (this process only)")
	c.Flags().StringVar(&f.ioClass, "io-class", "", "give way to others for the disk, with this `class`: best-effort or idle (this process only)")
	mustComplete(c, "io-class", []string{string(priority.IOBestEffort), string(priority.IOIdle)})
}

// set gives way. What the system does not have is told, and stops nothing.
func (f *priorityFlags) set(a *app) error {
	err := priority.Set(f.nice, priority.IOClass(f.ioClass))
	if errors.Is(err, priority.ErrUnsupported) {
		a.note("warning: --nice or --io-class has no effect on this system")
		return nil
	}
	return err
}

// hooked is a backup whose hooks are called.
type hooked struct {
	runner *hooks.Runner
	about  hooks.Notice
	stop   context.CancelFunc
	heard  sync.WaitGroup
}

// eventsEvery is how often the database is asked what happened.
const eventsEvery = 500 * time.Millisecond

// callHooks has the first hook called, and from then on the one for what happens: what
// that is, is asked before it returns, or it would leave out what the backup itself is
// warned of in its first moments.
func callHooks(ctx context.Context, f *hookFlags, about hooks.Notice, src livebackup.Source) *hooked {
	ctx, stop := context.WithCancel(ctx)
	h := &hooked{runner: hooks.NewRunner(f.hooks()), about: about, stop: stop}
	h.runner.Tell(h.notice(hooks.Start))
	if f.onWatermark != "" {
		after, err := h.hear(ctx, src, 0, false)
		h.heard.Go(func() { h.listen(ctx, src, after, err) })
	}
	return h
}

func (h *hooked) notice(event string) hooks.Notice {
	n := h.about
	n.Event, n.Time = event, time.Now()
	return n
}

// listen tells of what happens until ctx ends, behind an event. If what happened before
// is not known, the first that can be heard counts as that.
func (h *hooked) listen(ctx context.Context, src livebackup.Source, after uint64, known error) {
	tick := time.NewTicker(eventsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			var err error
			if after, err = h.hear(ctx, src, after, known == nil); err == nil {
				known = nil
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			h.hear(last, src, after, known == nil)
			return
		}
	}
}

// hear takes all events after one, tells of them if it is to, and returns the last.
func (h *hooked) hear(ctx context.Context, src livebackup.Source, after uint64, tell bool) (uint64, error) {
	for {
		list, err := src.Events(ctx, after)
		if err != nil || len(list) == 0 {
			return after, err
		}
		for i := range list {
			after = list[i].Seq
			if !tell {
				continue
			}
			said := watch.EventOf(&list[i])
			n := h.notice(hooks.Watermark)
			n.Kind, n.Text, n.Level, n.State = said.Kind, said.Text, list[i].Level.Name, list[i].Level.State
			h.runner.Tell(n)
		}
	}
}

// end has the last hook called, and returns what went wrong with any.
func (h *hooked) end(r livebackup.Record) []hooks.Failure {
	h.stop()
	h.heard.Wait()
	last := h.notice(hooks.End)
	last.Record = &r
	return h.runner.Close(last)
}

// endHooks has the last hook called, and tells what went wrong with any.
func (a *app) endHooks(h *hooked, r livebackup.Record) []hooks.Failure {
	failed := h.end(r)
	for _, f := range failed {
		a.warn("WARNING: the hook for %s failed: %s", f.Event, f.Error)
	}
	return failed
}

// check refuses hooks and priorities that make no sense, before anything is done.
func (f *backupFlags) check() error {
	h := f.hooks.hooks()
	if err := errors.Join(h.Validate(), priority.Validate(f.priority.nice, priority.IOClass(f.priority.ioClass))); err != nil {
		return &usageError{err}
	}
	return nil
}
