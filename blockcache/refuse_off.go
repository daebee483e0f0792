//go:build !invariants

package blockcache

// refused is where tests refuse what the budget would grant: see SetRefusal.
func refused(string) bool { return false }
