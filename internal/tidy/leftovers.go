package tidy

import (
	"regexp"
	"strings"
)

// Spelled so that this file is no finding.
var (
	noteToOneself = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	machinePath   = regexp.MustCompile("(^|[^A-Za-z0-9_.])/(wo" + "rk|ro" + "ot|ho" + "me/[a-z]+|Us" + "ers/[a-z]+)/")
)

func checkLeftovers(t *tree) {
	for path, text := range t.texts {
		if strings.HasPrefix(path, "bench/results/") {
			continue // raw output, machine and all
		}
		n := 0
		for line := range strings.Lines(text) {
			n++
			if noteToOneself.MatchString(line) {
				t.report(path, n, "leftover", "a note to oneself: do it, or open an issue")
			}
			if machinePath.MatchString(line) {
				t.report(path, n, "leftover", "a path of somebody's machine")
			}
		}
	}
}
