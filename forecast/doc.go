// Package forecast says beforehand what a live backup will cost: how long it takes,
// how many originals it will hold at most, where they will go, and whether they fit.
//
// # The few types
//
// An [Input] is what is known: how the database's blocks change, by the hour of the
// week ([mvcc.Changes]); how large it is; how fast the sink is; how much room
// originals have. [Make] turns it into a [Plan]: a [Forecast] for now, one for the best
// hour, and a short one for every hour of the week to come. [Outlooks] follows the backups
// that run. All of it is arithmetic: no clock, no I/O, no state but an input's.
//
// # The curve
//
// What matters is D(x): how many different blocks x changes hit. The history has it at
// some x, exactly. Between and beyond them the curve is read by way of the population
// m: the number of blocks that, if all were equally likely to change, would give the
// same D, which is m (1 - exp(-x/m)). For a uniform load m is the same everywhere and the
// curve is exact; for a skewed one m grows with x, about like a power of it. Behind the
// last point it goes on at least as steeply as before it. No load hits more blocks
// than there are in use. Counting by changes, not by time, lets busy
// and quiet hours share a curve.
//
// # The backup
//
// A backup hands out n blocks at a rate of s. Originals in hand go first, then the scan
// goes on (L3). While the queue of originals is not empty the scan stands still. So, with
// u the blocks not in hand that have not changed either, of first changes at the rate
// D' the share u/(n - D) makes originals. For a uniform load that gives
// 1 - (1 + ln a)/a of the database at the peak, with a changes per block in the
// backup's time, and nothing below a = 1.
//
// An incremental hands out what changed since its base, D(A) blocks. A block that
// changes after its start is one of these as often as the past says: D(A) + D(t) -
// D(A+t) of D(t) are.
//
// # Caveats
//
// A forecast is as good as the history: the hour before for "now", the same hour in the
// weeks before for another time. An hour that was never seen is taken to be like the
// others. Where less was seen than a minute, or than a twentieth of the backup's time, a
// forecast promises nothing ([Forecast].Short): blocks that were born in a window are not
// counted in it, so a database that has just been filled seems to change nowhere. Then it
// goes by how much is being written right now, as if that hit all blocks alike. What the
// forecast cannot know is bounded by [Forecast].PeakMax: no backup holds more originals
// than there are blocks in use.
package forecast
