//go:build !race

package snapshot

// slower is how much less the random tests do under the race detector.
const slower = 1
