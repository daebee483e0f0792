package kv_test

import (
	"bytes"
	"sort"
	"testing"
)

// cursorModel is what kv.Cursor promises, said in the plainest way: it stands on
// a key, whether that exists or not.
type cursorModel struct {
	m   *model
	on  bool
	key string
	// side is where it stands if it is not on a key: 0 nowhere, -1 before the
	// first, 1 behind the last.
	side  int
	found bool // the last move found an entry
}

func newCursorModel(m *model) *cursorModel { return &cursorModel{m: m} }

func (c *cursorModel) move(keys []string, i, side int) {
	c.found = i >= 0 && i < len(keys)
	c.on = c.found
	if c.found {
		c.key = keys[i]
	} else {
		c.side = side
	}
}

func (c *cursorModel) first() { c.move(c.m.keys(), 0, 1) }
func (c *cursorModel) last()  { ks := c.m.keys(); c.move(ks, len(ks)-1, -1) }

func (c *cursorModel) seek(k string) {
	ks := c.m.keys()
	c.move(ks, sort.SearchStrings(ks, k), 1)
}

func (c *cursorModel) next() {
	switch {
	case c.on:
		c.seek(c.key + "\x00")
	case c.side <= 0:
		c.first()
	default:
		c.found = false
	}
}

func (c *cursorModel) prev() {
	switch {
	case c.on:
		ks := c.m.keys()
		c.move(ks, sort.SearchStrings(ks, c.key)-1, -1)
	case c.side >= 0:
		c.last()
	default:
		c.found = false
	}
}

// compare proves that the cursor returned what the model's stands on.
func (c *cursorModel) compare(t testing.TB, k, v []byte) {
	t.Helper()
	if !c.found {
		if k != nil || v != nil {
			t.Fatalf("cursor found %q, want nothing", k)
		}
		return
	}
	if string(k) != c.key {
		t.Fatalf("cursor is on %q, want %q", k, c.key)
	}
	want, isValue := c.m.values[c.key]
	if (v != nil) != isValue || !bytes.Equal(v, want) {
		t.Fatalf("cursor has another value of %q", k)
	}
}
