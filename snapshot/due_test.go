package snapshot

import (
	"cmp"
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// Who has to go for want of room (R13), by looking at everybody.

// candidate is what R13 looks at: one backup, or neighbours among the LSNs that are read.
type candidate struct {
	backup *naiveBackup
	lsns   []block.LSN
	frees  int64
}

// perEnd orders by the bytes freed for each snapshot that is ended.
func perEnd(a, b candidate) int {
	return cmp.Compare(a.frees*int64(max(1, len(b.lsns))), b.frees*int64(max(1, len(a.lsns))))
}

// due is those that may be broken next, of which that goes which frees most for each end:
// single ones; if none of them frees anything, runs; if none does, backups by what they
// hold.
func (n *naive) due() []candidate {
	var lsns []block.LSN
	for _, r := range n.readers {
		if r.Err() == nil {
			lsns = append(lsns, r.LSN())
		}
	}
	slices.Sort(lsns)
	lsns = slices.Compact(lsns)
	var single, runs, holders []candidate
	for _, b := range n.backups {
		single = append(single, candidate{backup: b, frees: n.frees(nil, b)})
		holders = append(holders, candidate{backup: b, frees: b.held})
	}
	for from := range lsns {
		for to := from + 1; to <= len(lsns); to++ {
			c := candidate{lsns: lsns[from:to], frees: n.frees(lsns[from:to], nil)}
			if runs = append(runs, c); to == from+1 {
				single = append(single, c)
			}
		}
	}
	for _, list := range [][]candidate{single, runs} {
		if len(list) > 0 && slices.MaxFunc(list, perEnd).frees > 0 {
			return list
		}
	}
	return holders
}

// frees is the bytes that nobody wants but these readers or this backup.
func (n *naive) frees(lsns []block.LSN, b *naiveBackup) (sum int64) {
	for _, v := range n.kept {
		backups := n.backupsWant(v)
		others := slices.ContainsFunc(backups, func(o *naiveBackup) bool { return o != b })
		for _, r := range n.readers {
			l := r.LSN()
			others = others || r.Err() == nil && v.LSN <= l && l < v.Until && !slices.Contains(lsns, l)
		}
		if !others {
			sum += size(v)
		}
	}
	return sum
}

// dueWent proves that one of those that were due was broken, that none of them frees more
// for each end, and that nobody else went.
func (n *naive) dueWent(due []candidate) {
	n.t.Helper()
	var went candidate
	for _, r := range n.readers {
		if r.Err() != nil {
			went.lsns = append(went.lsns, r.LSN())
		}
	}
	slices.Sort(went.lsns)
	went.lsns = slices.Compact(went.lsns)
	for _, b := range n.backups {
		if b.Err() != nil {
			went.backup = b
		}
	}
	at := slices.IndexFunc(due, func(c candidate) bool {
		return c.backup == went.backup && slices.Equal(c.lsns, went.lsns)
	})
	most := slices.MaxFunc(due, perEnd)
	if at < 0 || perEnd(due[at], most) != 0 {
		n.t.Fatalf("readers at %v and backup %v went; readers at %v, backup %v free %d bytes", went.lsns, went.backup, most.lsns, most.backup, most.frees)
	}
}
