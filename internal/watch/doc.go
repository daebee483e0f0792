// Package watch is what an operator sees of a database that lives: the same in a
// terminal, on a page, and as a line.
//
// A [Sampler] asks a database for its status now and then, and makes of two answers a
// [View]: rates, how far each backup is and when it will be done, levels with their
// marks, what happened last. [Render] draws a view for a terminal of any size, as lines
// of spans that know nothing of terminals; [Line] says it in one line.
//
// Nothing here stops anyone: what it costs the database is one status for each look.
package watch
