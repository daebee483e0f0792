//go:build invariants

package shadow

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
)

var instead atomic.Pointer[func(string)]

// Fail ends the process of a program with the tag invariants: the store is about to do
// what it must not. The panic is in a goroutine of its own, with the caller's stack in
// its text, and the caller goes no further: what he would have undone on his way out
// waits for locks that he holds, and nobody would learn why.
func Fail(format string, args ...any) {
	text := "shadow: " + fmt.Sprintf(format, args...)
	if f := instead.Load(); f != nil {
		(*f)(text)
		return
	}
	stack := debug.Stack()
	go panic(fmt.Sprintf("%s\n\n%s", text, stack))
	select {}
}

// Instead has f called where the process would end: for tests of what is noticed. nil
// ends it.
func Instead(f func(text string)) {
	if f == nil {
		instead.Store(nil)
		return
	}
	instead.Store(&f)
}
