package main

import (
	"encoding/hex"
	"strings"
)

// parseBytes reads bytes that a person types: text, or "hex:" and digits.
func parseBytes(text string) ([]byte, error) {
	digits, found := strings.CutPrefix(text, "hex:")
	if !found {
		return []byte(text), nil
	}
	return hex.DecodeString(digits)
}
