package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Go's fuzzer looks at each counter of the program, some sixty thousand of them, three
// times for each input, byte by byte: a hundred microseconds, of which the decoder of a few
// hundred bytes has one or two. Nearly all of the counters are zero. Written as below it
// passes over these by 512 at once, and sees what it saw before; the go command takes the
// file in the place of its own. Where its own is another one by now it is left alone.

const coverageFile = "src/internal/fuzz/coverage.go"

// coverageEdits are what is changed in it: text that has to be there once, and what takes
// its place.
var coverageEdits = [][2]string{
	{"import (\n", "import (\n\t\"encoding/binary\"\n"},
	{`	cov := coverage()
	for i, b := range cov {
		coverageSnapshot[i] = pow2Table[b]
	}
}
`, `	cov := coverage()
	snap := coverageSnapshot[:len(cov)]
	for ; len(cov) >= len(untouched); cov, snap = cov[len(untouched):], snap[len(untouched):] {
		if [512]byte(cov) == untouched && [512]byte(snap) == untouched {
			continue
		}
		for i := 0; i < len(untouched); i += 8 {
			var word uint64
			if binary.LittleEndian.Uint64(cov[i:]) != 0 {
				for j, b := range cov[i : i+8] {
					word |= uint64(pow2Table[b]) << (8 * j)
				}
			}
			binary.LittleEndian.PutUint64(snap[i:], word)
		}
	}
	for i, b := range cov {
		snap[i] = pow2Table[b]
	}
}

var untouched [512]byte
`},
	{`	n := 0
	for i := range snapshot {
		n += bits.OnesCount8(snapshot[i] &^ base[i])
	}
`, `	n := 0
	for ; len(snapshot) >= len(untouched); snapshot, base = snapshot[len(untouched):], base[len(untouched):] {
		if [512]byte(snapshot) == untouched {
			continue
		}
		for i := 0; i < len(untouched); i += 8 {
			n += bits.OnesCount64(binary.LittleEndian.Uint64(snapshot[i:]) &^ binary.LittleEndian.Uint64(base[i:]))
		}
	}
	for i := range snapshot {
		n += bits.OnesCount8(snapshot[i] &^ base[i])
	}
`},
}

// sparseCoverage writes an overlay for the go command into dir, and returns its name; ""
// where the fuzzer is another than that which is known here.
func sparseCoverage(ctx context.Context, dir string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), filepath.FromSlash(coverageFile))
	text, err := os.ReadFile(original)
	if err != nil {
		return "", nil // a toolchain that is laid out in another way
	}
	edited, ok := editedCoverage(string(text))
	if !ok {
		return "", nil
	}
	replacement, overlay := filepath.Join(dir, "coverage.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: replacement}})
	if err == nil {
		err = os.WriteFile(replacement, []byte(edited), 0o600)
	}
	if err == nil {
		err = os.WriteFile(overlay, list, 0o600)
	}
	return overlay, err
}

func editedCoverage(text string) (edited string, ok bool) {
	for _, e := range coverageEdits {
		if strings.Count(text, e[0]) != 1 {
			return "", false
		}
		text = strings.Replace(text, e[0], e[1], 1)
	}
	return text, true
}
