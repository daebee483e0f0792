package wal

import (
	"path"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// useState is how far a slot file has come in the order that R5 and B9 ask for.
type useState int

const (
	useUnknown useState = iota // it was there before the test looked
	useSpare                   // named, both copies those of a spare
	useCopyA                   // copy A written
	useCopyASynced
	useCopyB
	useRecords // both copies synced: records may come
)

// orderMonitor watches every write and sync of a log's files (B9).
type orderMonitor struct {
	t       *testing.T
	files   map[string]useState
	pending map[string]bool // records written and not synced
}

// watch begins to watch fs; it fails the test at the first write out of order.
func watch(t *testing.T, fs *simfs.FS) {
	m := &orderMonitor{t: t, files: map[string]useState{}, pending: map[string]bool{}}
	fs.Trace(func(e simfs.Event) {
		if e.Err == nil {
			m.event(e)
		}
	})
}

func (m *orderMonitor) event(e simfs.Event) {
	name := path.Base(e.File)
	unnamed := strings.HasSuffix(name, unborn)
	switch {
	case e.Op == simfs.OpRename:
		if m.pending[name] {
			m.t.Errorf("%s is named before it is synced", name)
		}
		m.files[path.Base(e.To)] = useSpare
	case e.Op == simfs.OpSync:
		m.pending[name] = false
		switch m.files[name] {
		case useCopyA:
			m.files[name] = useCopyASynced
		case useCopyB:
			m.files[name] = useRecords
		}
	case e.Op == simfs.OpWrite && unnamed:
		m.pending[name] = true
	case e.Op == simfs.OpWrite:
		m.write(name, e.Off)
	}
}

func (m *orderMonitor) write(name string, off int64) {
	switch state := m.files[name]; {
	case off < recordsOffset:
		for other, pending := range m.pending {
			if pending && !strings.HasSuffix(other, unborn) {
				m.t.Errorf("header of %s is written before the records in %s are synced", name, other)
			}
		}
		if off == 0 {
			m.files[name] = useCopyA
		} else if state == useCopyASynced {
			m.files[name] = useCopyB
		} else {
			m.t.Errorf("copy B of the header of %s is written before copy A is synced", name)
		}
	case state != useRecords && state != useUnknown:
		m.t.Errorf("record in %s before both copies of its header are synced", name)
	default:
		m.pending[name] = true
	}
}

// R5: of every segment, in every history, copy A of the header is synced before
// copy B is written, copy B before the first record, and all that comes before
// the segment before its header. A power cut finds no difference while copy A is
// sound: what this keeps is that a segment with records has two good copies.
func TestR5_HeadersBeforeRecords(t *testing.T) {
	for _, w := range workloads {
		t.Run(w.name, func(t *testing.T) {
			r := newRig(t, newTestFS(t))
			watch(t, r.fs)
			w.run(r)
			n := r.must().crash(simfs.KeepAll)
			watch(t, n.fs)
			n.recovered()
			n.commit(100)
			n.must()
		})
	}
}
