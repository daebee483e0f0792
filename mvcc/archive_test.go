package mvcc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/snapshot"
)

// version names an image: a block and the commit that wrote it.
type version struct {
	id  block.ID
	lsn block.LSN
}

// archive has the images of every block in use at every commit of a history:
// what the incrementals of that history are compared with, and merged over.
type archive struct {
	states map[block.LSN]map[block.ID]block.LSN // by commit: blocks in use, bitmaps, meta block
	images map[version][]byte
}

func newArchive() *archive {
	return &archive{map[block.LSN]map[block.ID]block.LSN{}, map[version][]byte{}}
}

// record takes the state that readers see now.
func (a *archive) record(t testing.TB, s *Store, m *model) {
	t.Helper()
	r := beginRead(t, s)
	defer r.Close()
	if a.states[r.LSN()] != nil {
		return
	}
	ids := append(m.at[r.LSN()].ids(), metaBlock)
	for g := range s.geo.groups(r.meta.highWater) {
		ids = append(ids, s.geo.bitmapOf(g))
	}
	state := map[block.ID]block.LSN{}
	for _, id := range ids {
		b, err := r.Block(id)
		if errors.Is(err, snapshot.ErrBroken) {
			return // a base that is not tried
		}
		ok(t, err)
		v := version{id, b.v.LSN}
		state[id] = v.lsn
		if a.images[v] == nil {
			image := slices.Clone(b.data)
			block.Seal(image, block.Trailer{Type: b.v.Type, ID: id, LSN: v.lsn}, s.data.seed)
			a.images[v] = image
		}
		b.Release()
	}
	a.states[r.LSN()] = state
}

// bases are the commits that were recorded.
func (a *archive) bases() []block.LSN { return slices.Sorted(maps.Keys(a.states)) }

func openIncremental(t testing.TB, s *Store, base block.LSN, audit int) *backupPull {
	t.Helper()
	b, err := s.OpenBackup(context.Background(), BackupOptions{Owner: "test", Base: base, AuditBlocks: audit, OnExhaustion: ExhaustionAbort})
	ok(t, err)
	if got := b.Info().Base; got != base {
		t.Fatalf("incremental from %v says base %v", base, got)
	}
	return &backupPull{b: b, images: map[block.ID][]byte{}}
}

// audited are the blocks that the incremental drew.
func (p *backupPull) audited() map[block.ID]struct{} { return p.b.inc.audit }

// check proves that a finished incremental has exactly the versions in (base, S],
// and its audit (R11), and merges it over the state at its base.
func (a *archive) check(t testing.TB, p *backupPull, m *model, restore bool) {
	t.Helper()
	base, lsn, seed := p.b.info.Base, p.b.info.LSN, p.b.s.data.seed
	at := a.states[lsn]
	for id, im := range p.images {
		tr, reason := block.Verify(im, id, seed)
		if reason != "" {
			t.Fatalf("incremental (%v, %v]: block %v: %s", base, lsn, id, reason)
		}
		if _, audit := p.audited()[id]; audit != (tr.LSN <= base) {
			t.Fatalf("incremental (%v, %v] hands out block %v@%v, audited: %v", base, lsn, id, tr.LSN, audit)
		}
	}
	for id := range p.audited() {
		if p.images[id] == nil {
			t.Fatalf("incremental (%v, %v] audits block %v and does not hand it out", base, lsn, id)
		}
	}
	if at == nil {
		return // not recorded
	}
	for id, v := range at {
		if im := p.images[id]; v > base && im == nil {
			t.Fatalf("incremental (%v, %v] has no block %v@%v", base, lsn, id, v)
		}
	}
	for id, im := range p.images {
		if v, used := at[id]; !used || string(im) != string(a.images[version{id, v}]) {
			t.Fatalf("incremental (%v, %v] hands out a block %v that is not what it was at %v", base, lsn, id, lsn)
		}
	}
	if restore {
		a.merge(p).restore(t, m)
	}
}

// merge lays the incremental over the state at its base, and leaves out what is
// not in use by the bitmaps that come out.
func (a *archive) merge(p *backupPull) *backupPull {
	g := p.b.s.geo
	all := map[block.ID][]byte{}
	for id, lsn := range a.states[p.b.info.Base] {
		all[id] = a.images[version{id, lsn}]
	}
	maps.Copy(all, p.images)
	merged := &backupPull{b: p.b, images: map[block.ID][]byte{metaBlock: all[metaBlock]}}
	for group := range g.groups(p.b.info.HighWater) {
		id := g.bitmapOf(group)
		merged.images[id] = all[id]
		g.eachInUse(group, all[id], func(id block.ID) { merged.images[id] = all[id] })
	}
	return merged
}

// incrementals are the incrementals of a play.
type incrementals struct {
	*play
	a       *archive
	open    []*backupPull
	taken   int
	blocks  int // that were handed out
	audited int
}

func (p *incrementals) step() {
	p.play.step()
	p.a.record(p.t, p.s, p.m)
	bases := p.a.bases()
	if base := bases[p.rd.IntN(len(bases))]; base > 0 && p.rd.IntN(3) == 0 && len(p.open) == 0 { // the play has up to three backups of its own
		p.open = append(p.open, openIncremental(p.t, p.s, base, p.rd.IntN(12)))
	}
	if len(p.open) > 0 {
		p.pull(p.rd.IntN(len(p.open)), 1+p.rd.IntN(30))
	}
}

func (p *incrementals) pull(i, n int) {
	b := p.open[i]
	err := b.pull(p.t, n)
	switch {
	case errors.Is(err, snapshot.ErrBroken):
		p.broken++
	case err != nil:
		p.t.Fatal(err)
	case !b.done:
		return
	default:
		p.taken++
		p.blocks += len(b.images)
		p.audited += len(b.audited())
		p.a.check(p.t, b, p.m, p.rd.IntN(4) == 0)
	}
	ok(p.t, b.b.Close())
	p.open = slices.Delete(p.open, i, i+1)
}

func (p *incrementals) reopen() {
	for len(p.open) > 0 {
		p.pull(0, 64)
	}
	p.play.reopen()
}

// TestModel_R16_Incrementals: whatever is written meanwhile, with whatever memory,
// an incremental from any past commit, laid over the state at that commit, is the
// state at its own.
func TestModel_R16_Incrementals(t *testing.T) {
	seed := chance.Seed(t)
	rounds := max(2, 3**flagLong/slower)
	if testing.Short() {
		rounds = 2
	}
	for i := range rounds {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		o := smallOptions(simfs.New())
		o.BlockSize = 4096 << rng.IntN(2)
		name := mixture(rng, &o)
		t.Run(fmt.Sprintf("%d %s", i, name), func(t *testing.T) {
			p := &incrementals{play: newPlay(t, o, rng.Uint64()), a: newArchive()}
			p.large, p.m.spread = true, i%2 == 0
			for range 2 {
				for range 120 {
					p.step()
				}
				p.reopen()
			}
			p.end()
			t.Logf("%d commits, %d incrementals of %d blocks, %d of them to audit, %d broken", p.m.newest(), p.taken, p.blocks, p.audited, p.broken)
		})
	}
}
