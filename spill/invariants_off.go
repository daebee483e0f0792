//go:build !invariants

package spill

const invariants = false
