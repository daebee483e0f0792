// Package blindfuzz gives the body of a fuzz target very many inputs, for tests.
//
// Go's fuzzer looks at what each input reaches. That is what finds a way behind a check,
// and takes some tens of microseconds each time, of which a decoder of a few hundred bytes
// has one or two. So inputs that reach something are for the fuzzer to find; their
// neighbours, by the million, are looked at here: without instruments, in the test's own
// process, made from the seeds of the target by bytes and bits that change, come, go and
// change places, and by pieces of other seeds.
//
// A target passes its body through [Each]: f.Fuzz(blindfuzz.Each(f, body)). With the flag -blind n each seed that it has,
// those that the fuzzer has left in testdata/fuzz among them, is followed by n others; the
// test's log says how many there were. An input that fails is in the log of the test in the
// form of a file of testdata/fuzz/TARGET, which repeats it.
package blindfuzz
