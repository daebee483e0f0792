package mvcc

import (
	"encoding/binary"
)

// An array in a block that grows or shrinks in its middle moves what lies behind
// by a few bytes: all of that differs, and none of it is new. A diff looks for it
// and says from where it came.

// run is a stretch of a payload that differs from the predecessor's.
type run struct {
	at, size int
	distance int // bytes are those that the predecessor has so much before; 0: new ones
}

const (
	// moveStep is what places and distances are multiples of: front doors keep
	// arrays of 8 bytes behind headers of 4, 8 or 12.
	moveStep = 4

	// moveDistanceMax is how far bytes are looked for, forward and back.
	moveDistanceMax = 32

	// moveSearch is for how many bytes the beginning of a move is looked for in a
	// run, and again behind each: new entries come in front of what they move.
	moveSearch = 32

	// moveMin is the least that is worth a move.
	moveMin = 16
)

// split divides the run [i, end) into what is new and what moved.
func (w *redoWriter) split(old, payload []byte, i, end int) {
	fresh := i
	for at := (i + moveStep - 1) &^ (moveStep - 1); at+moveMin <= end && at-fresh <= moveSearch; {
		d, n := moved(old, payload, at, end)
		if n < moveMin {
			at += moveStep
			continue
		}
		if at > fresh {
			w.runs = append(w.runs, run{at: fresh, size: at - fresh})
		}
		w.runs = append(w.runs, run{at: at, size: n, distance: d})
		w.moves = true
		fresh = at + n
		at = (fresh + moveStep - 1) &^ (moveStep - 1)
	}
	if end > fresh {
		w.runs = append(w.runs, run{at: fresh, size: end - fresh})
	}
}

// moved looks where the bytes of a payload from at on, up to end, were in old, and
// returns the distance and how many they are.
func moved(old, payload []byte, at, end int) (distance, n int) {
	word := binary.LittleEndian.Uint64(payload[at:])
	for d := 2 * moveStep; d <= moveDistanceMax; d += 2 * moveStep {
		for _, d := range [2]int{d, -d} {
			from := at - d
			if from < 0 || from+8 > len(old) || binary.LittleEndian.Uint64(old[from:]) != word {
				continue
			}
			if n := equalBytes(old[from:], payload[at:end]); n >= moveMin {
				return d, n
			}
		}
	}
	return 0, 0
}

// equalBytes is how many bytes at the beginning of a and b are the same.
func equalBytes(a, b []byte) int {
	n := min(len(a), len(b))
	return skipEqual(a[:n], b[:n], 0)
}
