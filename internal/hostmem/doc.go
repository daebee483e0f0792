// Package hostmem tells how much memory this process may use, how much of that
// the host can give right now, and whether the host suffers; and it hands out
// memory that the Go heap knows nothing of.
//
// # What the host has
//
// [Limit] is the ceiling: the least of physical memory and of every limit set
// on the process's control group and on the groups above it. [Available] is
// what can still be taken without swapping or being killed. [Stall] and
// [SwapInBytes] tell whether that has already gone wrong. Each call reads the
// system afresh (a few small files on Linux, up to a millisecond together), so
// they are for a ticker of a second or so and not for a hot path; all are safe
// for concurrent use and keep no state.
//
// A file that is not there narrows the answer (no control group, no limit). A
// file that is there and cannot be read or understood is an error: an answer
// that leaves out a limit would be a wrong one. What a system has no means to
// tell is errors.ErrUnsupported.
//
// # Linux
//
// Control groups of version 1, version 2 and both side by side are found by
// /proc/self/cgroup and /proc/self/mountinfo. Limits of version 2 are
// memory.max and memory.high: above the latter the kernel slows the process
// down until it has shrunk, which for a cache is as good as a wall. Within a
// container groups above its root are often invisible; version 1 still tells
// their limit (hierarchical_memory_limit), version 2 does not.
//
// # Off-heap memory
//
// [Map] and [Unmap] take and return anonymous memory, for frames and other
// large pools: the collector neither scans it nor lets the heap grow in
// proportion to it. Who maps must unmap; touching memory after Unmap kills the
// process, which no recover can stop. [Discard] gives the pages of an idle
// range back without giving up its addresses.
package hostmem
