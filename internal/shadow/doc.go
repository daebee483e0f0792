// Package shadow remembers what a store published, apart from everything by which the
// store finds it, and ends the process where the store goes by something else. It does
// so only in programs that are built with the tag invariants; in others [Blocks] is empty,
// and so is each of its methods.
//
// # What it is for
//
// Tests compare what comes out of a store with what went in. A version that is wrong, with
// a good checksum, may lie in a table for long before somebody reads it, or nobody does.
// Here it is noticed when it gets there.
//
// # What is known of a block
//
// Its history: the versions that were published, in order, each with a checksum of its
// payload, and the commits that freed it. The newest version at or below x is what a
// view at x has to be given (L1). It reaches back as far as the oldest view needs
// ([Blocks.Floor]). And its place: which version was last seen or written in place in
// the data file.
//
// A block of which nothing is known is not judged: a store that was just opened knows only
// what recovery redid. The first look at its place tells what its history begins with. Such
// a beginning is a guess, as the block may be free: a commit that allocates it says so.
//
// # Protocol
//
//	who                               holds                        when
//	a commit publishes or frees       the block's latch            before the version is made head
//	the first look at a place         the block's latch            before the version is shown
//	recovery installs                 the block's latch            before the version is made head
//	the cleaner writes in place       its turn, pins               before the write, and at "in place"
//	a check of a head, an interval    the block's latch            where it is made, thawed, found
//	a check of what a view is given   nothing, but the view        before it is handed on
//
// So who holds the latch sees table and history agree: heads are checked for equality with
// the newest. A view at x needs no latch to be checked: all commits up to x were
// published before the horizon reached x (commit step 2 of package mvcc), the history up
// to x is complete before the view exists, and what it needs is not cut off while it is
// open. If the view was broken meanwhile what it was given counts for nothing: so who
// checks asks for that first, after the version was found.
//
// The locks of this package are the last in every order; nothing is called with them
// held.
//
// # Caveats
//
// What a test does to files behind the store's back is no bug of the store, but looks like
// one: a test that puts an older block with a good checksum into the data file of an open
// store is no test for programs with the tag. Blocks of the changed-block map have no
// versions and are never told of. A block that is free has, now and then, a head: what
// an incremental found in its place. It is let be as long as no view wants another version
// of the block (snapshot.Set.Shown): nobody else asks for it.
package shadow
