// Command limits measures whether a live backup stays within what was granted, and
// what the watching of that costs.
//
//	go run ./bench/limits memory >> bench/results/limits.txt
//	go run ./bench/limits cost stall guards >> bench/results/limits.txt
//
// # The parts
//
// memory (memory.go): a process in a control group of MaxRAM, the cap of overflow and
// 64 MiB has a database of 16 times MaxRAM, temporary storage of a hundredth of it,
// writers at full speed all over it, and a backup into a sink of 20 MB/s. If the writers
// make redo faster than half of that, the sink is twice as fast as they are. Then the
// same with a sink that is slower than they are, and with swap switched on, if that can
// be done here.
//
// cost (cost.go): CPU time, allocations and system calls of a commit, of this code and
// of an older commit of the repository, the runs of both in turns. Instructions are not
// counted where the machine has no counters for them.
//
// stall (stall.go): the longest commit when a million originals go at once, because
// their snapshot is released, broken or falls forward, against the longest just before.
//
// guards (guards.go): how long after a reading beyond its limit each guard has ended its
// backup. The reading is looked at beside the store, every few milliseconds. With
// -thrash, which has the whole machine wait for its disk, the guard on pressure as well.
//
// What has to be limited or that uses up memory runs in a process of its own, which this
// program starts (child.go).
package main
