//go:build race

package mvcc

// slower is how much less the random tests do under the race detector.
const slower = 4
