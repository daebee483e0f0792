package demo

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// story is the text that Run tells. Safe for concurrent use.
type story struct {
	mu    sync.Mutex
	out   io.Writer
	live  io.Writer // nil: no terminal
	drawn bool      // the live line is there
	step  int
}

// indent is where a step's text begins.
const indent = 12

// begin starts a step: its number, its name and what it does.
func (s *story) begin(name, format string, args ...any) {
	s.step++
	s.lines(fmt.Sprintf("\n%d %-*s", s.step, indent-2, name), format, args...)
}

// say goes on with a step.
func (s *story) say(format string, args ...any) {
	s.lines(strings.Repeat(" ", indent), format, args...)
}

func (s *story) lines(head, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.print(head + strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", indent)) + "\n")
}

func (s *story) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	io.WriteString(s.out, text) // who does not listen misses it
}

// draw replaces the live line.
func (s *story) draw(text string) {
	if s.live == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.live, "\r\x1b[K%s%.66s", strings.Repeat(" ", indent), text)
	s.drawn = true
}

// clear removes the live line.
func (s *story) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
}

// wipe is clear. mu is held.
func (s *story) wipe() {
	if s.drawn {
		io.WriteString(s.live, "\r\x1b[K")
		s.drawn = false
	}
}
