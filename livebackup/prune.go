package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// PruneResult is what [Prune] or [Delete] did.
type PruneResult struct {
	Backups []BackupID `json:"backups"` // that were removed, in that order
	Logs    []string   `json:"logs"`    // names of log objects that were removed
	Bytes   int64      `json:"bytes"`   // of all objects that were removed
	// Spared are what the plan would have removed and a look at the time of the
	// prune would not: it is in use now, or needed since.
	Spared []PlannedBackup `json:"spared"`

	// Merged is small objects of archived log that became one each; some stay beside it for
	// as long as somebody reads them. Unmerged says of objects why they were left as they are.
	Merged   []LogMerge `json:"merged"`
	Unmerged []string   `json:"unmerged,omitempty"`
}

// Prune removes what plan says, as far as that is still right: it looks again, and
// never removes more than the plan shows, nor anything that is in use by a restore,
// a verify or a backup that is being made on it (L13). ErrPruneRunning if another
// prune is at work.
//
// It goes in two phases, the manifests first, what adds to others before these,
// each durably, and then the objects: a listed backup is whole whenever the power
// goes. What is left behind then, the next prune or backup removes.
//
// Then it merges small objects of the archived log that stays, see merge.go. That needs
// room; a repository that has none is pruned all the same.
func Prune(ctx context.Context, repo *Repository, plan PrunePlan) (PruneResult, error) {
	res, err := repo.prune(ctx, plan)
	if err == nil {
		err = repo.mergeAfter(ctx, &res)
	}
	if err != nil {
		return res, fmt.Errorf("prune: %w", err)
	}
	return res, nil
}

// mergeAfter merges what a prune has left.
func (r *Repository) mergeAfter(ctx context.Context, res *PruneResult) error {
	m := r.newMerger(mergeDefault, func(err error) { res.Unmerged = append(res.Unmerged, err.Error()) })
	err := m.merge(ctx)
	res.Merged = m.told
	if noSpace(err) {
		res.Unmerged, err = append(res.Unmerged, err.Error()), nil
	}
	return err
}

func (r *Repository) prune(ctx context.Context, plan PrunePlan) (res PruneResult, err error) {
	policy, err := plan.Policy.withDefaults()
	if err != nil {
		return res, err
	}
	if _, err := Sweep(ctx, r); err != nil {
		return res, err
	}
	backups, logs := plan.removals()
	if len(backups)+len(logs) == 0 {
		return res, nil
	}
	intent, err := r.declare(ctx, "prune", backups, logs)
	if err != nil {
		return res, err
	}
	defer intent.Close()
	v, err := r.view(ctx)
	if err != nil {
		return res, err
	}
	// What was published since is not to go, and may need what was.
	now := v.plan(policy, earlier(plan.Made, time.Now().UTC()), backups)
	remove := removal{repo: r, view: v}
	for _, b := range now.Backups {
		switch {
		case !slices.Contains(backups, b.ID):
		case b.Remove:
			remove.backups = append(remove.backups, b.ID)
		default:
			res.Spared = append(res.Spared, b)
		}
	}
	for _, l := range now.Logs {
		if l.Remove && slices.Contains(logs, l.Name) {
			remove.logs = append(remove.logs, l)
		}
	}
	heads, err := remove.keepHeads(ctx)
	if noSpace(err) {
		remove.spare(heads)
		for _, b := range now.Backups {
			if b.Remove && slices.Contains(backups, b.ID) && !slices.Contains(remove.backups, b.ID) {
				b.Remove, b.Reason = false, "there was no room to write down of which state it is: the next prune removes it"
				res.Spared = append(res.Spared, b)
			}
		}
	} else if err != nil {
		return res, err
	}
	err = remove.run(ctx, &res)
	return res, err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// removals are the ids and names that go, in the order of the plan.
func (p *PrunePlan) removals() (backups []BackupID, logs []string) {
	backups = []BackupID{} // none is not any: see view.plan
	for _, b := range p.Backups {
		if b.Remove {
			backups = append(backups, b.ID)
		}
	}
	for _, l := range p.Logs {
		if l.Remove {
			logs = append(logs, l.Name)
		}
	}
	return backups, logs
}

// declare claims the intent. Somebody who looks whether an intent is one of the
// dead has hold of it for a moment.
func (r *Repository) declare(ctx context.Context, by string, backups []BackupID, logs []string) (io.Closer, error) {
	h := holdOf(by, backups...)
	h.Logs = logs
	for n := 0; ; n++ {
		intent, err := r.claimHold(ctx, pruneName, magicPrune, h)
		switch {
		case err == nil:
			return intent, nil
		case noSpace(err) && !h.All:
			h = hold{By: by, All: true}
			continue
		case !errors.Is(err, ErrClaimed):
			return nil, writeError("declare what is to go", err)
		case n == claimTries:
			return nil, ErrPruneRunning
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// makeIntent makes the place for intents, while there is room: see lease.go. Somebody
// who prunes has made it already.
func (r *Repository) makeIntent(ctx context.Context) error {
	intent, err := r.claimHold(ctx, pruneName, magicPrune, hold{})
	if errors.Is(err, ErrClaimed) {
		return nil
	}
	if err != nil {
		return writeError("make "+pruneName, err)
	}
	return intent.Close()
}

// removal is what is removed once an intent is declared and all have been looked at.
type removal struct {
	repo    *Repository
	view    view
	backups []BackupID // none needs a later one: the oldest first
	logs    []PlannedLog
}

func (d *removal) run(ctx context.Context, res *PruneResult) error {
	c, err := d.repo.catalog(ctx)
	if err != nil {
		return err
	}
	for _, id := range slices.Backward(d.backups) {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		names := []string{objectName(id, kindManifest, 0)}
		if n := c.partials[id]; n > 0 { // first, or another run would go on with what is about to go
			names = []string{objectName(id, kindPartial, n), names[0]}
		}
		if err := d.repo.objects.Delete(ctx, names...); err != nil {
			return writeError(fmt.Sprintf("remove %v", id), err)
		}
		res.Backups = append(res.Backups, id)
		res.Bytes += d.view.bytes[id]
	}
	for _, l := range d.logs { // the oldest first: what stays has no holes that were not there
		if err := d.repo.objects.Delete(ctx, l.Name); err != nil {
			return writeError("remove "+l.Name, err)
		}
		res.Logs = append(res.Logs, l.Name)
		res.Bytes += l.Bytes
	}
	if c, err = d.repo.catalog(ctx); err != nil {
		return err
	}
	for _, id := range d.backups {
		names := append(withoutClaim(c.objects[id], id), objectName(id, kindRun, 0))
		if err := d.repo.remove(ctx, names); err != nil {
			return writeError(fmt.Sprintf("remove objects of %v (the next run will)", id), err)
		}
	}
	return nil
}

// Errors of Delete.
var (
	// ErrBackupKept: the policy keeps the backup. Force deletes it all the same.
	ErrBackupKept = errors.New("backup is kept")
	// ErrBackupNeeded: incrementals add to the backup. They can be deleted with it.
	ErrBackupNeeded = errors.New("backup is needed by others")
)

// DeleteOptions of Delete. The zero value is good.
type DeleteOptions struct {
	Policy RetentionPolicy // what is guarded
	// Force deletes what the policy keeps, too.
	Force bool
	// Dependants deletes the incrementals that add to the backup with it.
	Dependants bool
}

// Delete removes one backup that is named. It refuses what the policy keeps, with
// ErrBackupKept and the reason, but for what is kept only because it is disabled or
// damaged: to delete that by name is how it goes. It refuses a backup that others
// add to, with ErrBackupNeeded and their ids, and one that is being read, with
// ErrBackupInUse.
func Delete(ctx context.Context, repo *Repository, id BackupID, o DeleteOptions) (PruneResult, error) {
	res, err := repo.deleteBackup(ctx, id, o)
	if err != nil {
		return res, fmt.Errorf("delete %v: %w", id, err)
	}
	return res, nil
}

func (r *Repository) deleteBackup(ctx context.Context, id BackupID, o DeleteOptions) (res PruneResult, err error) {
	policy, err := o.Policy.withDefaults()
	if err != nil {
		return res, err
	}
	before, err := r.view(ctx)
	if err != nil {
		return res, err
	}
	ids, err := before.adding(id)
	if err != nil {
		return res, err
	}
	intent, err := r.declare(ctx, "delete", ids, nil)
	if err != nil {
		return res, err
	}
	defer intent.Close()
	v, err := r.view(ctx)
	if err != nil {
		return res, err
	}
	if err := v.guard(id, ids, policy, o); err != nil {
		return res, err
	}
	remove := removal{repo: r, view: v, backups: ids}
	if _, err := remove.keepHeads(ctx); err != nil {
		return res, err
	}
	err = remove.run(ctx, &res)
	return res, err
}

// adding is backup id and all that add to it, the oldest first.
func (v view) adding(id BackupID) (ids []BackupID, err error) {
	for i := range v.entries {
		e := &v.entries[i]
		if e.ID == id || slices.Contains(ids, e.Manifest.Base) && !e.Manifest.Base.IsZero() {
			ids = append(ids, e.ID)
		}
	}
	if len(ids) == 0 {
		return nil, ErrBackupNotFound
	}
	return ids, nil
}

// guard refuses to delete backup id, with ids that add to it, or returns nil.
func (v view) guard(id BackupID, ids []BackupID, policy RetentionPolicy, o DeleteOptions) error {
	now, err := v.adding(id)
	if err != nil {
		return err
	}
	if !slices.Equal(now, ids) {
		return fmt.Errorf("%w: a backup that adds to it was just published", ErrBackupInUse)
	}
	if len(ids) > 1 && !o.Dependants {
		return fmt.Errorf("%w: %s", ErrBackupNeeded, joined(ids[1:]))
	}
	for _, b := range v.plan(policy, time.Now().UTC(), nil).Backups {
		if !slices.Contains(ids, b.ID) {
			if b.State == StateUnreadable && b.ID.Sequence > id.Sequence {
				return fmt.Errorf("%w, perhaps: %v cannot be read", ErrBackupNeeded, b.ID)
			}
			continue
		}
		if by, held := v.held.of(b.ID); held {
			return fmt.Errorf("%w: %v, %s", ErrBackupInUse, b.ID, by)
		}
		if slices.ContainsFunc(v.entries, func(e Entry) bool { return e.ID == b.ID && e.making }) {
			return fmt.Errorf("%w: %v is being made", ErrBackupInUse, b.ID)
		}
		byName := b.State == StateDisabled || b.State == StateDamaged
		if !b.Remove && !byName && !o.Force {
			return fmt.Errorf("%w: %v: %s", ErrBackupKept, b.ID, b.Reason)
		}
	}
	return nil
}

func joined(ids []BackupID) string {
	var s []string
	for _, id := range ids {
		s = append(s, id.String())
	}
	return strings.Join(s, ", ")
}

// keepHeads writes down the newest states of the present timeline, with and without a
// checksum, if what goes is about to take them away: a copy that lacks them must be found
// out all the same (R18), and the database itself remembers no older ones. A standby's
// backups, which have no checksum, push the last one out that has. It returns what it could
// not write down.
func (d *removal) keepHeads(ctx context.Context) (left []mvcc.Head, err error) {
	records := d.view.records
	n := len(records.records)
	if n == 0 || records.records[n-1].Number != records.highest {
		return nil, nil // nobody has pushed since there are records
	}
	record := records.records[n-1]
	lost, err := d.losesHeads(ctx, record.timeline())
	if err != nil || len(lost) == 0 {
		return nil, err
	}
	owner, bound, err := d.repo.Database(ctx)
	if err != nil || !bound {
		return nil, err
	}
	for i, h := range lost {
		record.Number, record.HeadLSN, record.HeadSum = record.Number+1, h.LSN, h.Sum
		err := d.repo.putTimeline(ctx, owner, &record)
		if errors.Is(err, ErrObjectExists) {
			return nil, nil // another timeline has just taken its place: nobody pushes on it any more
		}
		if err != nil {
			return lost[i:], err
		}
	}
	return nil, nil
}

// losesHeads are the newest states of timeline t that go.
func (d *removal) losesHeads(ctx context.Context, t block.TimelineID) (lost []mvcc.Head, err error) {
	now, err := d.heads(ctx, t, false)
	if err != nil {
		return nil, err
	}
	then, err := d.heads(ctx, t, true)
	if err != nil {
		return nil, err
	}
	if h := now.named[t]; h.LSN > then.named[t].LSN {
		lost = append(lost, h)
		then.add(t, h.LSN, h.Sum)
	}
	if h := now.newest[t]; h.LSN > then.newest[t].LSN {
		lost = append(lost, h)
	}
	return lost, nil
}

// heads are those of timeline t, now or when all is gone that goes.
func (d *removal) heads(ctx context.Context, t block.TimelineID, then bool) (heads, error) {
	h, v := newHeads(), &d.view
	for i := range v.entries {
		if m := &v.entries[i].Manifest; m.Timeline == t && !(then && slices.Contains(d.backups, m.ID)) {
			h.add(t, m.EndLSN, m.RecordSum)
		}
	}
	for i := range v.records.records {
		record := &v.records.records[i]
		h.add(record.timeline(), record.HeadLSN, record.HeadSum)
	}
	goes := map[string]bool{}
	for _, l := range d.logs {
		goes[l.Name] = then
	}
	logs := slices.DeleteFunc(slices.Clone(v.logs), func(o LogObject) bool { return goes[o.Name()] })
	s, err := d.repo.newestLog(ctx, logs, timelineStart(t), &t, func(LogObject, error) error { return nil })
	if err == nil && s != nil {
		h.add(t, s.To, s.ToSum)
	}
	return h, err
}

// spare leaves in place what has one of the heads, with what that needs: on a disk that
// is full there is no room to write them down, and people prune to make some.
func (d *removal) spare(heads []mvcc.Head) {
	stays := map[BackupID]bool{}
	for i := range slices.Backward(d.view.entries) {
		m := &d.view.entries[i].Manifest
		has := slices.ContainsFunc(heads, func(h mvcc.Head) bool { return h == mvcc.Head{LSN: m.EndLSN, Sum: m.RecordSum} })
		if has || !m.ID.IsZero() && stays[m.ID] {
			stays[m.ID], stays[m.Base] = true, true
		}
	}
	d.backups = slices.DeleteFunc(d.backups, func(id BackupID) bool { return stays[id] })
	d.logs = slices.DeleteFunc(d.logs, func(l PlannedLog) bool {
		return slices.ContainsFunc(heads, func(h mvcc.Head) bool { return h.LSN == l.To })
	})
}
