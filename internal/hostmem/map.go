package hostmem

import "sync"

// Map returns n bytes of memory outside the Go heap: zeroed, unless [Reuse] is in force.
// The system backs a page of it only once it is touched. It starts at a page boundary.
// Give the same slice to [Unmap] when nobody uses it any more. Safe for concurrent use.
func Map(n int) ([]byte, error) {
	if b := reused.take(n); b != nil {
		return b, nil
	}
	return mapMemory(n)
}

// Unmap returns memory that [Map] gave, which must be the whole slice. Whoever
// touches it afterwards kills the process. Safe for concurrent use.
func Unmap(b []byte) error {
	if reused.put(b) {
		return nil
	}
	return unmapMemory(b)
}

// Reuse keeps up to most mappings that are given back for the next who map as much,
// with what is in them. It is for a program that opens thousands of small stores one
// after the other: what the system takes to clear their pages is then more than all
// else. 0 ends it, and returns what was kept.
func Reuse(most int) error { return reused.keep(most) }

var reused mappings

// mappings are kept for who maps next.
type mappings struct {
	mu   sync.Mutex
	most int
	free [][]byte
}

func (m *mappings) take(n int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, b := range m.free {
		if len(b) == n {
			last := len(m.free) - 1
			m.free[i] = m.free[last]
			m.free = m.free[:last]
			return b
		}
	}
	return nil
}

func (m *mappings) put(b []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.free) >= m.most {
		return false
	}
	m.free = append(m.free, b)
	return true
}

func (m *mappings) keep(most int) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.most = most
	for len(m.free) > most && err == nil {
		last := len(m.free) - 1
		err = unmapMemory(m.free[last])
		m.free = m.free[:last]
	}
	return err
}
