// Package prove runs the workloads that the guarantees are proven by, and checks
// what they leave: on a simulated disk whose power is cut at every event, with every
// operation failing in turn, and with its bytes damaged. Its tests run a short slice;
// command internal/soak runs any part of it for hours. Both are the same code.
//
// # How a sweep works
//
// A [Workload] drives a store, or a tree over one, with everything at work: little
// memory, a log that is recycled, temporary storage, snapshots, live backups into a
// repository on the same disk. It runs once. After every event of the disk the
// moment is kept (simfs.Moment) with what was promised until then:
//
//	acked    the newest commit that was acknowledged
//	seen     the newest commit that a reader was shown
//	backups  those whose making returned
//
// Then each moment's legal states are worked out, those that were seen before are
// left out by the checksum of all that is in them, and each other one is opened and
// held against the model: every block of the state after the commit that it is at,
// no commit at or below acked or seen missing (D1, D2, D3), every listed backup whole
// (D9). Some are opened with their own moments kept, so that the power is cut again
// within recovery, and once more within that.
//
// The other sweeps are described where they are: operations that fail ([Fault]), requests
// to the memory budget that are refused (Budget), flipped bits ([Matrix]) and other
// damage ([Corrupt]), what live snapshots and backups read ([Snapshots]), and who goes on first
// ([Schedules]).
//
// What is run is decided by the seed. Which goroutine comes first is not, so the
// same seed leads to the same workload and the same rules, and not to the same
// number of states; a failure therefore also writes the disk that it found.
package prove
