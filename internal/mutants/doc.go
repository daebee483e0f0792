// Package mutants plants bugs: it knows small edits of the product, each of which
// breaks a law, and runs the tests over them. A test suite is worth what it finds, and
// this measures it: a planted bug that no test finds is a test that is missing.
//
// The edits are applied through the go command's -overlay, so the product carries none
// of them, not even in a build that is made for tests. [All] is the list, of which
// [Strangers] were written by someone who had read no test; [Plant] applies one, [Run]
// also runs the tests that should find it.
package mutants
