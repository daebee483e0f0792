// Command peers compares Spillway with bbolt, side by side, in one run:
//
//	go -C bench/peers run . compare [--rows 1,3] [--quick] [--out FILE]
//
// It prints a table and writes every raw result, with the machine it was measured
// on, to a new file in bench/results. It is a module of its own, so that bbolt is
// in the go.sum of nobody who embeds Spillway. What is measured, and how, is
// described in package bench.
//
// Row 6 needs root and memory control groups (version 1); without them it is
// skipped, and says so.
package main
