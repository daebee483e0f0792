// Command soak proves the guarantees for as long as one likes:
//
//	go run ./internal/soak crash --duration 1h --seed 7
//	go run ./internal/soak mutants
//	go run ./internal/soak help
//
// Each part prints how to repeat it, a line of progress now and then, and what it has
// done at the end. What fails prints one line that repeats it, and leaves the disk that
// shows it as files where --keep says. Exit code 1 means that a promise was not kept, 2
// that the command line is wrong.
package main
