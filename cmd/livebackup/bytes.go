package main

import (
	"encoding/hex"
	"strings"
	"unicode"
)

// parseBytes reads bytes that a person types: text, or "hex:" and digits.
func parseBytes(text string) ([]byte, error) {
	digits, found := strings.CutPrefix(text, "hex:")
	if !found {
		return []byte(text), nil
	}
	return hex.DecodeString(digits)
}

// printable is a text that somebody else chose, for a table: a label can have lines, and tell
// a terminal what to do.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, text)
}
