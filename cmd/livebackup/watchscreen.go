package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/spillwaydb/spillway/internal/watch"
)

// What a terminal is told. All of it has been understood by every terminal of the
// last decades; what one does not know, it skips.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // another screen, no cursor, no wrapping
	leaveScreen = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearAll    = "\x1b[2J"
	clearLine   = "\x1b[0m\x1b[K"
)

// styles by watch.Style.
var styles = [...]string{
	watch.Plain: "", watch.Dim: "\x1b[2m", watch.Bold: "\x1b[1m", watch.Good: "\x1b[32m",
	watch.Low: "\x1b[33m", watch.High: "\x1b[1;33m", watch.Critical: "\x1b[1;31m",
}

// screen is a terminal that is drawn on. Close it, whatever happens: it is someone's.
type screen struct {
	in, out       *os.File
	was           *term.State // of in; nil: it is no terminal, and was left alone
	plain         bool        // no colours
	unicode       bool
	width, height int
}

func openScreen(in, out *os.File) (*screen, error) {
	s := &screen{in: in, out: out, plain: os.Getenv("NO_COLOR") != "", unicode: localeIsUTF8()}
	if term.IsTerminal(int(in.Fd())) {
		was, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, fmt.Errorf("set up the terminal: %w", err)
		}
		s.was = was
	}
	if _, err := out.WriteString(enterScreen); err != nil {
		s.close()
		return nil, fmt.Errorf("set up the terminal: %w", err)
	}
	return s, nil
}

// close gives the terminal back as it was.
func (s *screen) close() {
	s.out.WriteString(leaveScreen)
	if s.was != nil {
		term.Restore(int(s.in.Fd()), s.was)
	}
}

// resized reports whether the terminal has another size than at the last time.
func (s *screen) resized() bool {
	w, h, err := term.GetSize(int(s.out.Fd()))
	if err != nil || w < 1 || h < 1 {
		w, h = 80, 24
	}
	was := [2]int{s.width, s.height}
	s.width, s.height = w, h
	return was != [2]int{w, h}
}

// draw writes a whole picture at once, so that it does not flicker.
func (s *screen) draw(v *watch.View, afresh bool) error {
	var b bytes.Buffer
	if afresh {
		b.WriteString(clearAll)
	}
	b.WriteString(home)
	for i, row := range watch.Render(v, watch.Screen{Width: s.width, Height: s.height, Unicode: s.unicode}) {
		if i > 0 {
			b.WriteString("\r\n") // the terminal is raw
		}
		b.WriteString(clearLine) // not behind it: there the last column would go
		for _, span := range row {
			style := styles[span.Style]
			if s.plain && span.Style > watch.Bold {
				style = ""
			}
			b.WriteString(style + span.Text)
			if style != "" {
				b.WriteString("\x1b[0m")
			}
		}
	}
	_, err := s.out.Write(b.Bytes())
	return err
}

// keys sends what is typed. It ends with the process: a read cannot be called back.
func (s *screen) keys() <-chan byte {
	typed := make(chan byte)
	if s.was == nil {
		return typed
	}
	go func() {
		var b [1]byte
		for {
			if n, err := s.in.Read(b[:]); err != nil || n == 0 {
				return
			}
			typed <- b[0]
		}
	}()
	return typed
}

// resizeEvery is how often the terminal is asked for its size.
const resizeEvery = 200 * time.Millisecond

// watchScreen draws until somebody has seen enough.
func watchScreen(ctx context.Context, s *watch.Sampler, f watchFlags, in, out *os.File) error {
	sc, err := openScreen(in, out)
	if err != nil {
		return err
	}
	defer sc.close()
	typed := sc.keys()
	look, resize := time.NewTicker(time.Duration(f.interval)), time.NewTicker(resizeEvery)
	defer look.Stop()
	defer resize.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	views := sampleInto(ctx, s, look.C)
	var v watch.View
	for n, seen := 0, false; ; {
		select {
		case <-ctx.Done():
			return nil
		case k := <-typed:
			if k == 'q' || k == 'Q' || k == 3 || k == 4 { // Ctrl-C and Ctrl-D: the terminal is raw
				return nil
			}
			continue
		case <-resize.C:
			if !seen || !sc.resized() {
				continue
			}
			err = sc.draw(&v, true)
		case v = <-views:
			err = sc.draw(&v, sc.resized() || !seen)
			seen = true
			if n++; n == f.count {
				return err
			}
		}
		if err != nil {
			return fmt.Errorf("draw: %w", err)
		}
	}
}

// sampleInto looks now and at each tick, in a goroutine: so keys are answered also
// while the database is not.
func sampleInto(ctx context.Context, s *watch.Sampler, tick <-chan time.Time) <-chan watch.View {
	views := make(chan watch.View)
	go func() {
		for {
			v := s.Sample(ctx)
			select {
			case views <- v:
			case <-ctx.Done():
				return
			}
			select {
			case <-tick:
			case <-ctx.Done():
				return
			}
		}
	}()
	return views
}
