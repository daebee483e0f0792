// Command originals measures how many originals a live backup keeps, on a real
// store, by counts: between two calls of the backup's Next exactly so many blocks are
// overwritten that the backup sees a overwrites per block from its first block to its
// last. There is one goroutine and no clock in it; the same seed gives the same table.
//
//	go run ./bench/originals > bench/results/originals.txt
//
// The columns are shares of the database, in percent:
//
//	all    what keeping everything to the end would have kept: blocks that changed
//	made   originals that were made
//	peak   most originals at one moment, also those that are only in place
//	held   most that took RAM or temporary storage at one moment
//	floor  the lowest peak that any order could have had: at some moment so many more
//	       blocks had changed than were handed out
//	most   what the peak may be at most
//
// Loads are uniform, and Zipf with exponent 1.0 over blocks in random order; in "bursts"
// nothing is overwritten while a tenth of the database is handed out, and then all that
// was due. Orders are "hot", which is the store's own, and "file": originals in hand
// first, then the order of the file.
//
// With a overwrites of each block in one unit of time, and originals handed out first,
// a uniform load makes a*exp(-a*t) originals at t, and one is handed out for each 1/N:
// so the queue is longest at ln(a)/a, and then has 1 - (1 + ln(a))/a of the database.
package main
