//go:build invariants

package wal

// invariants says that costly checks of our own work are compiled in.
const invariants = true
