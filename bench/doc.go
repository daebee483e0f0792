// Package bench measures storage engines against each other: ours here, rivals
// in the nested module bench/peers, whose dependencies no embedder gets.
//
// # Types
//
// An [Engine] opens a [DB], which is as little of a database as the
// measurements need: point reads, write transactions, two forms of scan,
// readers that stay open, a backup while it is written to. [Spillway] is ours.
//
// A [Load] is writers at work: how many, how fast, on which keys. It leaves a
// [Trace], every commit with its begin and its end, from which a window of time
// can be summarized afterwards: throughput, percentiles, the longest commit.
//
// A [Task] is one measurement of one engine; its [Outcome] is a handful of named
// numbers. A [Plan] is the whole comparison: rows of the table, each measured
// several times, engines in the order A B B A A B, so that a machine that gets
// slower or warmer is fair to both. Its [Report] has the rows (medians, with the
// least and the greatest) and every outcome they were made from.
//
// Rows 9 and up ([RepositoryRows]) are of backups by themselves: incrementals,
// chains, log rolled forward, compression. They have no rival, and are compared with
// cp, cmp, or each other; "go run ./cmd/bench backup" measures them.
//
// # How it is measured
//
// Each task runs in a process of its own, which the plan starts with [Child] and
// which calls [Serve]: memory, bytes written and the garbage of one measurement
// are not those of the next. Task and outcome go through its standard input and
// output as JSON.
//
// What "cold" means is said at [DropFileCache]. Memory limits are control groups
// of the kernel (version 1) around the task's process, see [MemoryGroup]; where
// they cannot be made the row says that it was skipped, and why.
//
// # Caveats
//
// Values are random bytes: they do not compress, and say nothing about how well
// an engine compresses. Everything is on one file system, the backup too: what it
// writes competes with the commits' syncs, as on a host with one disk. Bytes
// written are counted in three ways, prewritten log included, because the one
// that is the process's own overstates: see written.go. Where the system tells
// none of this they are 0.
package bench
