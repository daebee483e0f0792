// Package priority makes this process give way to others: for the CPU and, on Linux,
// for the disk.
//
// Linux keeps both for each thread, and a new thread has those of the one that made
// it. So [Set] goes through all threads that there are until it finds no new one.
package priority
