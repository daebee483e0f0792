// Package hooks calls what an operator wants to be called when a backup begins, when
// something happens meanwhile, and when it ends: a command, or a URL.
//
// A command is run by the system's shell, with a few variables in its environment and
// the [Notice] as JSON on its standard input; a URL gets the same by POST. Each call has
// a time that it may take; then it is ended, with all that a command has started. What
// goes wrong is told, and stops nothing. Calls come one after the other, in the order
// of what they tell of.
package hooks
