// Package yield marks places between two operations on the disk at which it matters who
// goes on first: a version is published and not in the log, an original is in a slot and
// still has its frame. The explorer of schedules (internal/prove) parks goroutines there.
//
// Places are compiled in with the tag invariants only; without it At is empty, and calls
// of it are nothing. None is under a block's latch or under a lock that is taken by
// trying: whoever needs those would never find out that their holder stands still.
package yield
