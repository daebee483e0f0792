// Package load holds a database open under a write load and serves it, so that
// backups of a busy database can be tried from another terminal.
//
// [Run] does it all: it opens the database (or makes it), fills it up to
// [Options.Records] records, serves its admin socket, and has writers change
// records until the time is over or the context ends. Then it closes everything
// in the right order: writers, server, database. Once a second it tells a [Tick].
//
// A record's key is its number; which one is changed next is decided by a
// [Distribution]: all alike, a few much more often than others, or one after the
// other. Values are random, half of their bits, so that they compress somewhat.
//
// A database that was filled before is not filled again: the bucket's sequence is
// the number of records it has.
//
// Package bench next door measures engines against each other; this one only
// keeps one busy, for as long as you like: its memory does not grow with time.
package load
