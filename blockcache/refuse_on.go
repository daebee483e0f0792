//go:build invariants

package blockcache

import "sync/atomic"

var refusal atomic.Pointer[func(what string) bool]

// SetRefusal has the budget ask f about each request before it grants it: for a frame,
// for a buffer, or for what a transaction will need (a promise). Where f says so, the
// request is refused as if MaxRAM had no room. nil ends it. Only for tests, and only in
// programs that are built with the tag invariants. f may be called by any goroutine,
// and under locks.
func SetRefusal(f func(what string) bool) {
	if f == nil {
		refusal.Store(nil)
		return
	}
	refusal.Store(&f)
}

func refused(what string) bool {
	f := refusal.Load()
	return f != nil && (*f)(what)
}
