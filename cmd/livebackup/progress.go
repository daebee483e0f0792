package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
)

// progress is a bar on a terminal, or nothing.
type progress struct {
	container *mpb.Progress // nil: nobody looks
	bar       *mpb.Bar
	began     time.Time
	last      atomic.Pointer[livebackup.Progress]
	verdict   atomic.Pointer[string] // of a backup: how it will end
}

// progress begins to show the progress of what is called name.
func (a *app) progress(name string) *progress {
	p := &progress{began: time.Now()}
	if a.quiet || !isTerminal(a.stderr) {
		return p
	}
	p.container = mpb.New(mpb.WithOutput(a.stderr), mpb.WithAutoRefresh(), mpb.WithRefreshRate(100*time.Millisecond))
	p.bar = p.container.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.BarRemoveOnComplete(), mpb.BarWidth(16),
		mpb.PrependDecorators(decor.Name(name+" "), decor.Percentage(decor.WC{W: 5})),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return p.figures() })))
	return p
}

// report is for the Progress options of package livebackup.
func (p *progress) report(now livebackup.Progress) {
	if p.container == nil {
		return
	}
	p.last.Store(&now)
	p.bar.SetTotal(int64(now.BlocksTotal)+1, false) // end completes it
	p.bar.SetCurrent(int64(now.Blocks))
}

// figures are what stands behind the bar.
func (p *progress) figures() string {
	now := p.last.Load()
	if now == nil || now.Blocks == 0 {
		return ""
	}
	elapsed := time.Since(p.began)
	left := time.Duration(float64(elapsed) * float64(now.BlocksTotal-now.Blocks) / float64(now.Blocks))
	rest := human.Elapsed(left.Round(time.Second))
	if now.RawBytes == 0 { // a check counts blocks
		return fmt.Sprintf("%12s blocks %7s left", human.Count(now.Blocks), rest)
	}
	text := fmt.Sprintf("%8s %10s %7s left", human.Bytes(now.RawBytes), human.PerSecond(now.RawBytes, elapsed), rest)
	if v := p.verdict.Load(); v != nil && *v != "" {
		text += ", " + *v
	}
	return text
}

// end takes the bar away.
func (p *progress) end() {
	if p.container == nil {
		return
	}
	p.bar.Abort(true)
	p.container.Wait()
}
