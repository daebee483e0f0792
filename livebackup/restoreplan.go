package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// RestorePlan says how a state will be restored, before anything is written: the
// cheapest way there from a sound backup and the archived log behind it.
type RestorePlan struct {
	Target RestoreTarget // as resolved
	Backup Manifest      // to start from
	Chain  []BackupID    // what is read of the repository for it, the newest first
	LSN    block.LSN     // the state that will be there
	Time   time.Time     // of that commit; zero if the repository does not tell
	Moment LogMoment     // the commits on each side of the asked moment, where it is in the archive

	Logs      []string // archived log to be rolled forward, in order
	ReadBytes int64    // of the repository
	Estimate  time.Duration

	// Window is what can be restored, oldest first: any commit of each range.
	Window []ReachableRange
	// Lost is what was committed behind LSN, as far as the repository knows, and
	// cannot be reached: nil unless everything was asked for.
	Lost *LogRange
	// Passed is a newer backup that is damaged or cannot be read: a restore of the
	// newest state passes it over only with consent. Nil if there is none.
	Passed *Entry
	// Unsure is why another timeline than the one that the plan follows may be the newest,
	// ErrTimelineUnsure: a restore wants consent here, too. Nil where that is known, and
	// where exactly a backup is asked for.
	Unsure error

	newest  block.LSN
	members []Entry
	history lineage
	logs    []LogObject
}

// ReachableRange is states that can be restored.
type ReachableRange struct {
	StateRange
	FromTime time.Time `json:"from_time"` // of commit From; zero if the repository does not tell
	ToTime   time.Time `json:"to_time"`
}

// PlanRestore finds the cheapest way to a state. It reads manifests and the
// footers of archived log, no blocks. [UnreachableError] with the window if no
// sound backup leads there.
func PlanRestore(ctx context.Context, repo *Repository, t RestoreTarget) (*RestorePlan, error) {
	p, err := planRestore(ctx, repo, t, nil)
	if err != nil {
		return nil, fmt.Errorf("plan restore: %w", err)
	}
	return p, nil
}

// spoilt is what a restore found of no use while it ran.
type spoilt struct {
	backups []BackupID
	logs    map[string]block.LSN // name of an object: its last commit that can be read
}

func (s *spoilt) backup(id BackupID) bool { return s != nil && slices.Contains(s.backups, id) }

// cut shortens a run whose object is damaged.
func (s *spoilt) cut(name string, r logRun) logRun {
	if s != nil {
		if last, ok := s.logs[name]; ok {
			r.to = min(r.to, last)
		}
	}
	return r
}

// replaced leaves out damaged objects whose commits others have, too: a merge that was
// killed leaves such (merge.go).
func (s *spoilt) replaced(logs []LogObject, history lineage) []LogObject {
	if s == nil {
		return logs
	}
	for name := range s.logs {
		others := slices.DeleteFunc(slices.Clone(logs), func(o LogObject) bool { return o.Name() == name })
		i := slices.IndexFunc(logs, func(o LogObject) bool { return o.Name() == name })
		if i >= 0 && len(holesIn(logs[i].LogRange, coverage(others, history, logs[i].From))) == 0 {
			logs = others
		}
	}
	return logs
}

// planRestore plans afresh if log that it has listed was merged meanwhile.
func planRestore(ctx context.Context, repo *Repository, t RestoreTarget, bad *spoilt) (p *RestorePlan, err error) {
	if t, err = t.resolve(); err != nil {
		return nil, err
	}
	for range findTries {
		gone := false
		if p, gone, err = planOnce(ctx, repo, t, bad); !gone {
			break
		}
	}
	return p, err
}

// planOnce plans from one look at the repository. gone says that an object of the log that
// it saw was not there any more.
func planOnce(ctx context.Context, repo *Repository, t RestoreTarget, bad *spoilt) (p *RestorePlan, gone bool, err error) {
	v, err := repo.inventory(ctx)
	if err != nil {
		return nil, false, err
	}
	s := &search{repo: repo, target: t, entries: v.entries, bad: bad}
	if s.history, err = s.chooseHistory(ctx, v); err != nil {
		return nil, errors.Is(err, fs.ErrNotExist), err
	}
	s.logs = bad.replaced(v.logs, s.history)
	s.index, err = repo.newLogIndex(s.logs, s.history)
	if err != nil {
		return nil, false, err
	}
	defer s.index.close()
	s.prepare()
	if p, err = s.plan(ctx); err == nil {
		err = s.checkNameless(ctx, p.members)
	} else if s.unsure != nil {
		err = fmt.Errorf("%w (%v)", err, s.unsure) // where that was asked for is what went wrong
	}
	return p, s.index.gone, err
}

// checkNameless refuses backups without a checksum, as those of a standby are, that are of
// another history than the archived log, but where exactly one of them is asked for.
func (s *search) checkNameless(ctx context.Context, members []Entry) error {
	if !s.target.Backup.IsZero() && s.target.Recover == RecoverNone {
		return nil
	}
	for i := range members {
		m := &members[i].Manifest
		if m.RecordSum != 0 || !s.history.holds(m.Timeline, m.EndLSN) {
			continue
		}
		err := s.repo.checkWitness(ctx, s.history, witnessed{lsn: m.EndLSN, time: m.Committed})
		if errors.Is(err, mvcc.ErrHistory) { // log that cannot be read, and is not needed, does not tell
			return fmt.Errorf("%v has no checksum, as those of a standby have none (another backup may be named): %w", m.ID, err)
		}
	}
	return nil
}

// search is one call of PlanRestore.
type search struct {
	repo    *Repository
	target  RestoreTarget
	entries []Entry
	logs    []LogObject
	bad     *spoilt
	history lineage
	unsure  error
	index   *logIndex
	routes  *router
	names   map[logRun]string
	moment  LogMoment
}

// chooseHistory is the present timeline's, or, where a backup is named that is not
// in it, that backup's own: so an abandoned future can be restored as a database of
// its own (L14).
func (s *search) chooseHistory(ctx context.Context, v *inventory) (lineage, error) {
	present, err := s.repo.presentHistory(ctx, v)
	if err != nil || s.target.Backup.IsZero() {
		s.unsure = v.records.doubt(v.logs)
		return present, err
	}
	i := slices.IndexFunc(s.entries, func(e Entry) bool { return e.ID == s.target.Backup })
	if i < 0 {
		return nil, fmt.Errorf("%v: %w", s.target.Backup, ErrBackupNotFound)
	}
	e := &s.entries[i]
	if e.Unreadable != nil {
		return nil, fmt.Errorf("%v: %w", e.ID, e.Unreadable)
	}
	m := &e.Manifest
	if m.ID != e.ID {
		return nil, fmt.Errorf("%v: %w", e.ID, e.Damage)
	}
	if present.holds(m.Timeline, m.EndLSN) {
		if s.target.Recover != RecoverNone {
			s.unsure = v.records.doubt(v.logs)
		}
		return present, nil
	}
	return lineageOf(m.Timeline, m.History), nil
}

// prepare gives the router what is sound and in the history.
func (s *search) prepare() {
	var starts []start
	newest := block.LSN(0)
	for i := range s.entries {
		e := &s.entries[i]
		m := &e.Manifest
		if e.Unreadable != nil || m.ID != e.ID || !s.history.holds(m.Timeline, m.EndLSN) {
			continue
		}
		newest = max(newest, m.EndLSN)
		if s.usable(e) && (s.target.Backup.IsZero() || e.ID == s.target.Backup) {
			starts = append(starts, start{e.ID, m.EndLSN, s.chainBytes(e.ID)})
		}
	}
	s.names = make(map[logRun]string)
	var runs []logRun
	for _, p := range s.history.parts(s.logs) {
		newest = max(newest, p.To)
		name := p.object.Name()
		r := s.bad.cut(name, logRun{p.From, p.To, p.object.Size})
		if r.from < r.to {
			runs = append(runs, r)
			s.names[r] = name
		}
	}
	s.routes = newRouter(starts, runs, newest)
}

// usable reports whether a backup's whole chain is sound, as far as is known. One
// that was asked for by its name is tried, whatever was found of it before.
func (s *search) usable(e *Entry) bool {
	members, err := chainOf(s.entries, e.ID)
	if err != nil {
		return false
	}
	named := e.ID == s.target.Backup
	for i := range members {
		if members[i].Damage != nil && !named || s.bad.backup(members[i].ID) {
			return false
		}
	}
	return true
}

func (s *search) chainBytes(id BackupID) (n int64) {
	members, err := chainOf(s.entries, id)
	if err != nil {
		return 0
	}
	for i := range members {
		n += members[i].Manifest.StoredBytes
	}
	return n
}

// plan finds the way.
func (s *search) plan(ctx context.Context) (*RestorePlan, error) {
	var w way
	ok := false
	lsn := block.LSN(0)
	switch s.target.Recover {
	case RecoverAll:
		w, ok = s.routes.furthest()
	case RecoverNone:
		if n := len(s.routes.starts); n > 0 {
			w, ok = s.routes.way(s.routes.starts[n-1], s.routes.starts[n-1].lsn)
		}
	default:
		var err error
		if lsn, err = s.until(ctx); err != nil {
			return nil, err
		}
		w, ok = s.routes.cheapest(lsn)
	}
	if !ok {
		return nil, s.nowhere(ctx, lsn)
	}
	return s.describe(ctx, w)
}

// nowhere says why nothing leads to where the target is.
func (s *search) nowhere(ctx context.Context, lsn block.LSN) error {
	if id := s.target.Backup; !id.IsZero() {
		if _, err := chainOf(s.entries, id); err != nil {
			return err
		}
	}
	if s.target.Recover != RecoverUntil {
		if len(s.entries) == 0 {
			return fmt.Errorf("%w: there are none", ErrBackupNotFound)
		}
		if e := s.passed(0); e != nil {
			return e.refusal()
		}
	}
	return s.unreachable(ctx, s.asked(lsn))
}

// refusal is why a restore does not start from a backup that is no good.
func (e *Entry) refusal() error {
	return fmt.Errorf("%v: %w: %w", e.ID, ErrBackupDamaged, errors.Join(e.Damage, e.Unreadable))
}

func (s *search) asked(lsn block.LSN) string {
	switch {
	case s.target.Recover == RecoverUntil:
		return fmt.Sprintf("commit %v", lsn)
	case !s.target.Backup.IsZero():
		return "backup " + s.target.Backup.String()
	}
	return "any state"
}

func (s *search) unreachable(ctx context.Context, asked string) error {
	window, _ := s.window(ctx) // that it cannot be reached matters more than a time
	return &UnreachableError{Asked: asked, Window: window}
}

// until is the commit that the target's moment stands for.
func (s *search) until(ctx context.Context) (block.LSN, error) {
	t := &s.target
	var err error
	switch {
	case t.LSN != 0:
		s.moment, err = s.index.atLSN(ctx, t.LSN)
		s.moment.At.LSN = t.LSN
	case t.Mark != "":
		s.moment, err = s.index.atMark(ctx, t.Mark)
	default:
		return s.untilTime(ctx)
	}
	if err != nil && !(t.LSN != 0 && errors.Is(err, ErrNotArchived)) { // a backup may be exactly there
		return 0, err
	}
	if t.Exclusive {
		return s.moment.At.LSN - 1, nil
	}
	return s.moment.At.LSN, nil
}

// untilTime is the last commit at or before the time asked for. It has to be
// known which one that is: the next commit is in the archive, too, or the time is
// exactly that of a commit.
func (s *search) untilTime(ctx context.Context) (block.LSN, error) {
	at := s.target.At
	m, err := s.index.atTime(ctx, at)
	if err != nil && !errors.Is(err, ErrNotArchived) {
		return 0, err
	}
	s.moment = m
	last := m.At
	for i := range s.entries { // the commit of a backup, and no archived one before it
		b := &s.entries[i].Manifest
		if s.history.holds(b.Timeline, b.EndLSN) && b.EndLSN > last.LSN && !b.Committed.After(at) {
			last = LogPoint{LSN: b.EndLSN}
		}
	}
	exact := last.LSN == m.At.LSN && m.At.Time.Equal(at) // a backup's time is no commit's own
	if m.Next.LSN != last.LSN+1 && !exact {
		return 0, s.unreachable(ctx, fmt.Sprintf("which commit was the last at %s is not known", at.UTC().Format(time.RFC3339Nano)))
	}
	if s.target.Exclusive && exact {
		return last.LSN - 1, nil
	}
	return last.LSN, nil
}

// describe is the plan that people see.
func (s *search) describe(ctx context.Context, w way) (*RestorePlan, error) {
	members, err := chainOf(s.entries, w.start.id)
	if err != nil {
		return nil, err
	}
	p := &RestorePlan{
		Target: s.target, Backup: members[0].Manifest, LSN: w.to, Moment: s.moment, ReadBytes: w.start.bytes, Estimate: w.cost,
		Unsure: s.unsure, newest: s.routes.newest, members: members, history: s.history, logs: s.logs,
	}
	for i := range members {
		p.Chain = append(p.Chain, members[i].ID)
	}
	for _, l := range w.logs {
		p.Logs = append(p.Logs, s.names[l])
		p.ReadBytes += l.bytes
	}
	if s.target.Recover == RecoverAll {
		p.Lost = s.routes.lost(w.to)
	}
	if s.target.Recover != RecoverUntil {
		p.Passed = s.passed(p.Backup.EndLSN)
	}
	if p.Time, err = s.timeOf(ctx, w.to); err != nil {
		return nil, err
	}
	p.Window, err = s.window(ctx)
	return p, err
}

// window is what can be reached. With an error the times of some are missing.
func (s *search) window(ctx context.Context) (list []ReachableRange, err error) {
	for _, r := range s.routes.window() {
		from, fromErr := s.timeOf(ctx, r.From)
		to, toErr := s.timeOf(ctx, r.To)
		list, err = append(list, ReachableRange{r, from, to}), errors.Join(err, fromErr, toErr)
	}
	return list, err
}

// passed is the newest backup that would have been started from if it were sound,
// nil if none is newer than the one at lsn.
func (s *search) passed(lsn block.LSN) *Entry {
	for i := range slices.Backward(s.entries) {
		e := &s.entries[i]
		m := &e.Manifest
		told := e.Unreadable == nil && m.ID == e.ID // else nobody knows whose history it is
		switch {
		case !s.target.Backup.IsZero() && e.ID != s.target.Backup:
		case told && (!s.history.holds(m.Timeline, m.EndLSN) || m.EndLSN < lsn):
		case told && s.usable(e):
			return nil
		case s.bad.backup(e.ID): // consent was given
		default:
			return e
		}
	}
	return nil
}

// timeOf is the time of a commit; zero if the repository does not tell. It is shown, and
// nothing else: log that cannot be read fails no plan that does not need it.
func (s *search) timeOf(ctx context.Context, lsn block.LSN) (time.Time, error) {
	for i := range s.entries {
		m := &s.entries[i].Manifest
		if m.EndLSN == lsn && !m.Committed.IsZero() && s.history.holds(m.Timeline, lsn) {
			return m.Committed, nil
		}
	}
	m, err := s.index.newestUpTo(ctx, lsn)
	switch {
	case err != nil && (ctx.Err() != nil || s.index.gone):
		return time.Time{}, err
	case err != nil || m.LSN != lsn:
		return time.Time{}, nil
	}
	return m.Time, nil
}
