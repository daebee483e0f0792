// Package vfstest holds what every vfs.FS must do, as one suite of tests: the
// file system of the operating system and the simulated one both run it, so
// that code tested on the second can be trusted on the first.
//
// It proves what can be seen from inside one running process. What survives a
// power cut is the subject of package simfs's own tests.
package vfstest
