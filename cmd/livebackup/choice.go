package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choice is a flag value: one of a few words.
type choice[W ~string] struct {
	word  W        // the one that was chosen; before that, the default
	kind  string   // what a help text calls it
	words []string // that it takes, in the order of help texts
	also  string   // that it takes as well, and tells nobody; "": nothing
}

func (c *choice[W]) String() string { return string(c.word) }
func (c *choice[W]) Type() string   { return c.kind }
func (c *choice[W]) Set(text string) error {
	if !slices.Contains(c.words, text) && (text == "" || text != c.also) {
		return fmt.Errorf("%q is none of %s", text, strings.Join(c.words, ", "))
	}
	c.word = W(text)
	return nil
}

// add makes it a flag, whose words shells complete.
func (c *choice[W]) add(to *cobra.Command, name, usage string) {
	to.Flags().Var(c, name, usage)
	mustComplete(to, name, c.words)
}
