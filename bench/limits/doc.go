// Command limits measures whether a live backup stays within what was granted, and
// what the watching of that costs.
//
//	go run ./bench/limits memory >> bench/results/limits.txt
//	go run ./bench/limits cost guards stall >> bench/results/limits.txt
//
// # The parts
//
// memory (memory.go): a process in a control group of MaxRAM, the cap of overflow and
// 64 MiB has a database of 16 times MaxRAM, temporary storage of a hundredth of it,
// writers at full speed all over it, and a backup. Four times: into a sink of 20 MB/s, or
// of twice what the writers make if that is more; into one of exactly twice what they
// make, where originals outgrow everything and the backup falls forward; into one of
// 20 MB/s, or less, that they outrun, which the plan has to say beforehand; and the
// second again with swap switched on, if that can be done here. What comes back from swap
// is counted for the group, which is kept out of it as docs/operating.md says.
//
// cost (cost.go, count_linux.go): instructions and system calls of the thread that commits,
// allocations and CPU time of a commit, of this code and of an older commit of the
// repository, while no backup runs and while one does, into a sink that takes so little that
// it lasts. A process of each makes the same commits, in turns. Instructions and calls are
// counted one by one, by tracing, so they do not depend on what else the machine does, and
// need no counters; where that is not permitted they are said to be skipped. With -functions
// 30 it says in which functions the difference is. It takes a minute, and the time to build
// both.
//
// stall (stall.go): the longest commit when a million originals go at once, because
// their snapshot is released, broken or falls forward, against the longest just before.
// A million take about 12 GB of disk.
//
// guards (guards.go): how long after a reading beyond its limit each guard has ended its
// backup. The reading is looked at beside the store, every millisecond. Memory runs out in
// a control group, and pressure comes from a process that reads more than a small group
// holds; it is counted in a group of its own, so that the machine does not wait. What
// cannot be done on a system is said to be skipped.
//
// What has to be limited or that uses up memory runs in a process of its own, which this
// program starts (child.go).
package main
