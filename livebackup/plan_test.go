package livebackup

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
)

// TestPlan_Model compares the router with a search through every way there is.
func TestPlan_Model(t *testing.T) {
	seed := chance.Seed(t)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 2000 {
		p := randomRouter(rnd)
		reachable := map[block.LSN]time.Duration{}
		for _, s := range p.starts {
			for lsn := s.lsn; ; lsn++ {
				cost, ok := walk(p, s, lsn)
				if !ok {
					break
				}
				if c, known := reachable[lsn]; !known || cost < c {
					reachable[lsn] = cost
				}
			}
		}
		inWindow := map[block.LSN]bool{}
		for i, w := range p.window() {
			if i > 0 && w.From <= p.window()[i-1].To+1 {
				t.Fatalf("ranges touch: %v", p.window())
			}
			for n := w.From; n <= w.To; n++ {
				inWindow[n] = true
			}
		}
		for lsn := block.LSN(0); lsn <= 60; lsn++ {
			want, can := reachable[lsn]
			if inWindow[lsn] != can {
				t.Fatalf("LSN %v: window %v says %v, it is %v", lsn, p.window(), inWindow[lsn], can)
			}
			w, ok := p.cheapest(lsn)
			if ok != can || ok && w.cost != want {
				t.Fatalf("LSN %v: way %+v, %v; want cost %v, %v", lsn, w, ok, want, can)
			}
		}
		if w, ok := p.furthest(); ok && (w.to != maxKey(reachable)) {
			t.Fatalf("furthest is %v, not %v", w.to, maxKey(reachable))
		}
	}
}

func randomRouter(rnd *rand.Rand) *router {
	var starts []start
	for i := range rnd.IntN(5) {
		starts = append(starts, start{BackupID{Sequence: uint64(i + 1)}, block.LSN(rnd.IntN(40)), int64(rnd.IntN(1 << 30))})
	}
	var logs []logRun
	for at := block.LSN(rnd.IntN(10)); at < 50; {
		to := at + 1 + block.LSN(rnd.IntN(9))
		logs = append(logs, logRun{at, to, int64(rnd.IntN(1 << 28))})
		at = to
		if rnd.IntN(4) == 0 {
			at += 1 + block.LSN(rnd.IntN(4)) // a hole
		}
	}
	rnd.Shuffle(len(logs), func(i, j int) { logs[i], logs[j] = logs[j], logs[i] })
	return newRouter(starts, logs, 0)
}

// walk goes from s to lsn commit by commit.
func walk(p *router, s start, lsn block.LSN) (time.Duration, bool) {
	used := map[block.LSN]int64{}
	for at := s.lsn; at < lsn; at++ {
		found := false
		for _, l := range p.logs {
			if l.from <= at && at < l.to {
				used[l.from], found = l.bytes, true
			}
		}
		if !found {
			return 0, false
		}
	}
	bytes := int64(0)
	for _, n := range used {
		bytes += n
	}
	return seconds(s.bytes, dataBytesPerSecond) + seconds(bytes, logBytesPerSecond), s.lsn <= lsn
}

func maxKey(m map[block.LSN]time.Duration) (n block.LSN) {
	for k := range m {
		n = max(n, k)
	}
	return n
}

func TestPlan_Targets(t *testing.T) {
	for name, c := range map[string]struct {
		target RestoreTarget
		want   Recover // "": refused
	}{
		"nothing named":        {RestoreTarget{}, RecoverAll},
		"a backup":             {RestoreTarget{Backup: BackupID{Sequence: 1}}, RecoverNone},
		"a backup and its log": {RestoreTarget{Backup: BackupID{Sequence: 1}, Recover: RecoverAll}, RecoverAll},
		"an LSN":               {RestoreTarget{LSN: 7}, RecoverUntil},
		"before an LSN":        {RestoreTarget{LSN: 7, Exclusive: true}, RecoverUntil},
		"two moments":          {RestoreTarget{LSN: 7, Mark: "x"}, ""},
		"until nothing":        {RestoreTarget{Recover: RecoverUntil}, ""},
		"before nothing":       {RestoreTarget{Exclusive: true}, ""},
		"all but a moment":     {RestoreTarget{Recover: RecoverAll, LSN: 7}, ""},
		"nonsense":             {RestoreTarget{Recover: "some"}, ""},
	} {
		got, err := c.target.resolve()
		if refused := errors.Is(err, ErrOptions); refused != (c.want == "") || !refused && got.Recover != c.want {
			t.Errorf("%s: %q, %v", name, got.Recover, err)
		}
	}
}
