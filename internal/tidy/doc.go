// Package tidy holds the house rules of this repository that a program can
// check; its test runs them, so "go test ./..." does.
//
// # The rules
//
//	imports   a package imports of ours only what its row of the table allows,
//	          and of others only what it has for a job (table.go)
//	length    a function has at most 70 lines, a file at most 700
//	doc       each package has a doc.go whose comment is attached to the clause;
//	          each exported name has a comment
//	name      no package is called after nothing: util, common, types, ...
//	call      no time.Sleep but in a synctest bubble; no panic that does not say
//	          why; in the engine no file is touched but through package vfs; no
//	          test is skipped without saying why, or has a seed that is not of
//	          package chance
//	leftover  no notes to oneself; no path of somebody's machine
//	docs      each test that a page names exists, each law and rule has its row
//	          in docs/laws.md, no row of docs/mission.md is empty, links lead to
//	          files that exist, docs/operating.md names every warning that there
//	          is and no option that there is not, each rung, guard and level has a
//	          test that reaches it, and the example of the README is the tested one
//
// All Go files count, whatever system or tag they are for.
//
// # Exceptions
//
// An exception stands in exceptions.go with its reason. One that is no longer
// needed is itself a finding: the list can only get shorter without thought.
//
// # Use
//
// [Check] takes the root of the repository and returns [Finding]s, in the order
// of files. It reads the tree only: no git, no go command, no network.
package tidy
