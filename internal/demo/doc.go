// Package demo shows what Spillway is for: it backs up a database of real files
// while writers change it, and proves that the restored copy is exactly the
// state at one commit.
//
// # The story
//
// Run loads a tree of files (the Go toolchain's own sources, if nothing else is
// named) and a bucket of counters into a new database whose memory and temporary
// storage are far too small for what follows. Writers rewrite, create and delete
// files; each of their transactions also moves an amount between two counters, so
// the counters' sum shows whether a state is that of whole transactions.
//
// A first reader (the report) opens a snapshot. A second later the writers are
// held for an instant, in which a second reader (the auditor) opens a snapshot and
// the backup opens its own: at the same LSN, which is checked. Then the writers go
// on, and the backup writes to a sink so slow that originals fill the memory, then
// temporary storage, then the overflow.
//
// Afterwards the backup is verified and restored, and the restored database is
// compared, bucket by bucket, every key and every value, with what the auditor
// read through its snapshot. Both readers read everything twice, before and after:
// a snapshot repeats itself (L1).
//
// # The parts
//
// Options say how large and how long; Report is the outcome, also as JSON. The
// story is told as text to Options.Out while it happens: a step at a time, a live
// line on a terminal, and at the end a plot of throughput and levels over time.
//
// Run never sleeps to get a result right. What has to happen (spilling, overflow)
// is waited for at the sink: the last tenth of the blocks is not taken before
// originals have overflowed, however slow the machine is.
//
// # Concurrency
//
// One goroutine tells the story. Writers, the sampler and the readers are
// goroutines of Run and have ended when it returns; the first error of any of them
// ends the run. Everything is made in one temporary directory, which is removed
// whatever happens, unless Options.Keep is set.
package demo
