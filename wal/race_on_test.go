//go:build race

package wal

// raceDetector makes the enumerating tests, which are sequential, take larger
// steps.
const raceDetector = true
