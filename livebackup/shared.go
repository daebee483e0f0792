package livebackup

import (
	"context"
	"fmt"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Two repositories of one database (R18). Two copies of it may have pushed to one each, on
// one timeline, without anybody noticing: neither repository has anything of the other copy.
// What is restored from the one forks from a state that the other one has only by its name:
//
//	copy 1 to repository 1    A: 100, 150
//	copy 2 to repository 2    A: 100, 140'
//	restored from 1 at 150    B, which forks from A at 150
//	B to repository 2         140' is not of its history, though it lies below the fork
//
// An incremental on 140', or log of A up to 150 before that of B, would be a mixture. So a
// database knows up to where a repository shares its history (mvcc.SharedHead): all up to
// the fork of the one that it was restored from, and of others what they had when the
// backup was made, which the backup says. Its first push decides, for good:
//
//	the repository has nothing          as the fork says
//	behind what is shared
//	it has something, and something     in this repository the timeline forks there: what
//	is shared                           is behind it counts as left, is no base, and is not
//	                                    rolled forward to it
//	it has something, and nothing is    ErrUnshared
//	known to be shared
//	the database knows nothing of any   as the fork says: it was restored by an older
//	repository                          program
//
// What was decided is in the timeline's record, and in the manifests: a later push goes by
// these. What a standby pushes on its primary's timeline is not looked at: it has forked from
// nothing.

// sharedMax is how many repositories a manifest may tell of.
const sharedMax = 16

// sharedOf is what is known of repositories by the database that m is restored to, the one
// that it comes from first.
func (r *Repository) sharedOf(m *Manifest) []mvcc.SharedHead {
	list := []mvcc.SharedHead{{Repository: r.id, LSN: m.EndLSN}}
	for _, k := range m.Shared {
		if k.Repository != r.id {
			list = append(list, k)
		}
	}
	return list
}

// historyOf is what led to timeline t of a database that is about to push, as it counts in
// this repository: see above.
func (r *Repository) historyOf(ctx context.Context, v *inventory, t block.TimelineID, history []block.Fork, shared []mvcc.SharedHead) ([]block.Fork, error) {
	if v.records.pushed(t) {
		if own := v.records.history(t); len(own) > 0 {
			return own, nil
		}
		return history, nil
	}
	newest := v.newestBefore(t, history)
	if len(shared) == 0 || newest == 0 || v.records.unread != nil { // with that attach refuses it
		return history, nil
	}
	upTo, err := r.sharedUpTo(ctx, v, t, history, shared)
	switch {
	case err != nil:
		return nil, err
	case upTo == 0:
		return nil, fmt.Errorf("%w: it has LSN %v of timeline %v, and the database was restored from another one: "+
			"begin another repository", ErrUnshared, newest, history[0].Timeline)
	case upTo >= newest:
		return history, nil
	}
	cut := slices.Clone(history)
	cut[0].LSN = min(cut[0].LSN, upTo)
	return cut, nil
}

// sharedUpTo is up to where the repository is known to share the history; 0: nowhere.
func (r *Repository) sharedUpTo(ctx context.Context, v *inventory, t block.TimelineID, history []block.Fork, shared []mvcc.SharedHead) (block.LSN, error) {
	i := slices.IndexFunc(shared, func(k mvcc.SharedHead) bool { return k.Repository == r.id })
	if i < 0 {
		return 0, nil
	}
	upTo, next := shared[i].LSN, shared[i].Next
	if next.Sum == 0 {
		return upTo, nil
	}
	path := lineageOf(t, history)
	for j := range v.entries {
		if m := &v.entries[j].Manifest; m.EndLSN == next.LSN && m.RecordSum == next.Sum && path.usable(m) {
			return next.LSN, nil
		}
	}
	for _, p := range path.parts(v.logs) {
		if p.object.To != next.LSN {
			continue
		}
		in, err := r.openPart(ctx, p)
		if err != nil && !logDamage(err) {
			return 0, err
		}
		if err == nil {
			defer in.close()
			if in.footer.toSum == next.Sum {
				return next.LSN, nil
			}
		}
	}
	return upTo, nil
}

// newestBefore is the newest state that the repository has of the timelines that led to t,
// up to the forks.
func (v *inventory) newestBefore(t block.TimelineID, history []block.Fork) (newest block.LSN) {
	path := lineageOf(t, history)
	for i := range v.entries {
		if m := &v.entries[i].Manifest; !m.ID.IsZero() && path.usable(m) {
			newest = max(newest, m.EndLSN)
		}
	}
	for _, p := range path.parts(v.logs) {
		if p.timeline != t {
			newest = max(newest, p.To)
		}
	}
	return newest
}

// historyNow is historyOf of who has not looked at the repository.
func (r *Repository) historyNow(ctx context.Context, t block.TimelineID, history []block.Fork, shared []mvcc.SharedHead) ([]block.Fork, error) {
	v, err := r.inventory(ctx)
	if err != nil {
		return nil, err
	}
	return r.historyOf(ctx, v, t, history, shared)
}
