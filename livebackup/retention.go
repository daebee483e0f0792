package livebackup

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// How many generations are kept.
const (
	GenerationsDefault = 5
	GenerationsWeek    = 7 // with a full backup a day, one for each weekday
)

// RetentionPolicy says what is kept. The zero value is good.
type RetentionPolicy struct {
	// Generations is how many full backups are kept, each with the incrementals
	// that add to it; 0: GenerationsDefault. What is damaged, disabled or cannot be
	// read is no generation and pushes none out.
	Generations int `json:"generations"`
	// Window is how far back every moment is to stay reachable, as far as the
	// archived log has no holes; 0: no further than what the generations give.
	Window time.Duration `json:"window_ns"`
	// KeepDisabled keeps disabled backups until somebody deletes them. They go
	// otherwise when no older backup of the present timeline is left.
	KeepDisabled bool `json:"keep_disabled"`
}

func (p RetentionPolicy) withDefaults() (RetentionPolicy, error) {
	if p.Generations == 0 {
		p.Generations = GenerationsDefault
	}
	if p.Generations < 1 || p.Window < 0 {
		return p, optionError("at least one generation is kept, and a window of no less than nothing")
	}
	return p, nil
}

// PrunePlan says what a prune removes and keeps, each with the reason.
type PrunePlan struct {
	Policy  RetentionPolicy `json:"policy"`
	Made    time.Time       `json:"made"` // by the clock: the window ends then
	Backups []PlannedBackup `json:"backups"`
	Logs    []PlannedLog    `json:"logs"`
	Merges  []LogMerge      `json:"merges,omitempty"` // of log that stays
}

// PlannedBackup is what a prune does with a backup.
type PlannedBackup struct {
	ID         BackupID  `json:"id"`
	Kind       string    `json:"kind"` // "" where the manifest could not be read
	LSN        block.LSN `json:"lsn"`
	State      State     `json:"state"`
	Bytes      int64     `json:"bytes"`      // of all its objects
	Generation int       `json:"generation"` // 1 is the newest; 0: it counts as none
	Remove     bool      `json:"remove"`
	Reason     string    `json:"reason"`
}

// PlannedLog is what a prune does with an object of archived log.
type PlannedLog struct {
	Name string `json:"name"`
	LogRange
	Bytes  int64  `json:"bytes"`
	Remove bool   `json:"remove"`
	Reason string `json:"reason"`
}

// Removes counts what goes.
func (p *PrunePlan) Removes() (backups, logs int, bytes int64) {
	for _, b := range p.Backups {
		if b.Remove {
			backups, bytes = backups+1, bytes+b.Bytes
		}
	}
	for _, l := range p.Logs {
		if l.Remove {
			logs, bytes = logs+1, bytes+l.Bytes
		}
	}
	return backups, logs, bytes
}

// PlanPrune says what [Prune] would do now. It changes nothing.
func PlanPrune(ctx context.Context, repo *Repository, policy RetentionPolicy) (PrunePlan, error) {
	policy, err := policy.withDefaults()
	if err != nil {
		return PrunePlan{}, fmt.Errorf("plan a prune: %w", err)
	}
	v, err := repo.view(ctx)
	if err != nil {
		return PrunePlan{}, fmt.Errorf("plan a prune: %w", err)
	}
	p := v.plan(policy, time.Now().UTC(), nil)
	p.Merges = v.planMerges(&p)
	return p, nil
}

// planMerges is what a prune by plan p would merge.
func (v *view) planMerges(p *PrunePlan) (list []LogMerge) {
	goes := map[string]bool{}
	for _, l := range p.Logs {
		goes[l.Name] = l.Remove
	}
	stay := v.inventory
	stay.logs = slices.DeleteFunc(slices.Clone(v.logs), func(o LogObject) bool { return goes[o.Name()] })
	_, runs := stay.merges(mergeDefault, nil, nil)
	for _, run := range runs {
		list = append(list, logMerge(run.objects))
	}
	return list
}

// view is what a plan is made of: what the repository holds and who reads it.
type view struct {
	inventory
	held holds
}

// view looks at leases first: a lease that is taken later finds the intent of a
// prune, if there is one. See lease.go.
func (r *Repository) view(ctx context.Context) (v view, err error) {
	if v.held, err = r.leases(ctx); err != nil {
		return v, err
	}
	now, err := r.inventory(ctx)
	if err != nil {
		return v, err
	}
	if v.inventory = *now; v.records.unread != nil {
		return v, fmt.Errorf("which timeline is the present one cannot be told: %w", v.records.unread)
	}
	return v, nil
}

// planner works a plan out. It is pure: the same view, policy and time give the
// same plan.
//
// A backup is kept for one of these reasons, and else removed:
//
//	generation  it is one of the newest sound full ones of the present timeline, or adds to one
//	newest      no other sound one of the present timeline is exact at as late a commit
//	window      the window begins with it, or it lies in the window
//	disabled    an older sound backup of the present timeline is kept
//	unsure      it is damaged: nobody knows what becomes of it, and only who says so removes it
//	unread      a younger backup cannot be read now, and may need it
//	unknown     log may lead on from it that is of the newest timeline, if its record is damaged
//	making      its run is not through with it
//	in use      somebody who lives has a lease of it
//	unseen      it is not among those that a plan made before would remove
//	base        one that is kept for one of these reasons needs it
//
// Sound is what is neither damaged nor unreadable, nor is anything that it needs.
// What is damaged goes with what it needs. Log goes when no sound backup is left
// below it that it could be rolled forward from, and nobody reads it.
type planner struct {
	view
	policy RetentionPolicy
	now    time.Time

	at         map[BackupID]int // index of entries
	sound      []bool           // by index
	generation []int
	keep       []string // reasons
}

// plan removes none but those of only; nil: any.
func (v view) plan(policy RetentionPolicy, now time.Time, only []BackupID) PrunePlan {
	p := planner{view: v, policy: policy, now: now, at: make(map[BackupID]int, len(v.entries))}
	n := len(v.entries)
	p.sound, p.generation, p.keep = make([]bool, n), make([]int, n), make([]string, n)
	for i := range v.entries { // a base has a lower sequence: it comes before
		e := &v.entries[i]
		p.at[e.ID] = i
		p.sound[i] = e.Damage == nil && e.Unreadable == nil
		if base, needs := p.base(i); needs {
			p.sound[i] = p.sound[i] && base >= 0 && p.sound[base]
		}
	}
	p.keepGenerations()
	p.keepNewest()
	p.keepWindow()
	p.keepUnsure()
	p.keepUnknown()
	p.keepLeased()
	for i := range v.entries {
		if only != nil && !slices.Contains(only, v.entries[i].ID) {
			p.mark(i, "it was not to go when the prune began")
		}
	}
	for kept := -1; kept < p.kept(); { // each may give the other more to keep
		kept = p.kept()
		p.keepBases()
		p.keepDisabled()
	}
	p.dropOrphans()
	return p.result()
}

// base is the index of what entry i adds to, -1 if that is not there. needs is
// false if it needs no other, or if nobody knows.
func (p *planner) base(i int) (base int, needs bool) {
	m := &p.entries[i].Manifest
	if m.Base.IsZero() {
		return -1, false
	}
	if at, found := p.at[m.Base]; found && at < i {
		return at, true
	}
	return -1, true
}

// root is the full backup that entry i leads to, -1 if to none.
func (p *planner) root(i int) int {
	for {
		base, needs := p.base(i)
		if !needs {
			return i
		}
		if base < 0 {
			return -1
		}
		i = base
	}
}

// counts reports whether entry i is a sound backup of the present timeline, and stays one.
func (p *planner) counts(i int) bool {
	return p.sound[i] && p.entries[i].Disabled == "" && !p.entries[i].making
}

func (p *planner) mark(i int, format string, args ...any) {
	if p.keep[i] == "" { // the first reason is the one to tell
		p.keep[i] = fmt.Sprintf(format, args...)
	}
}

// kept counts what has a reason to stay.
func (p *planner) kept() (n int) {
	for _, reason := range p.keep {
		if reason != "" {
			n++
		}
	}
	return n
}

func (p *planner) keepGenerations() {
	n := 0
	for i, e := range slices.Backward(p.entries) {
		if e.Manifest.Kind == KindFull && p.counts(i) {
			n++
			p.generation[i] = n
		}
	}
	for i := range p.entries {
		root := p.root(i)
		if root < 0 || p.generation[root] == 0 || !p.counts(i) {
			continue
		}
		p.generation[i] = p.generation[root]
		if g := p.generation[i]; g <= p.policy.Generations {
			p.mark(i, "generation %d of %d", g, p.policy.Generations)
		}
	}
}

// keepNewest keeps what is exact at the latest commit, whatever generation it is of: an
// incremental on an older one, made while the newest full backup was, may be later than
// that. A prune takes nothing back of what can be restored.
func (p *planner) keepNewest() {
	newest := -1
	for i, e := range p.entries {
		if p.counts(i) && (newest < 0 || e.Manifest.EndLSN >= p.entries[newest].Manifest.EndLSN) {
			newest = i
		}
	}
	if newest >= 0 {
		p.mark(newest, "the newest state")
	}
}

// keepWindow keeps what every moment of the window can be reached from: the newest
// sound backup from before it, and all that came since. It ends with the newest backup,
// or now where that is earlier: whichever way a clock is wrong, more is kept.
func (p *planner) keepWindow() {
	if p.policy.Window == 0 {
		return
	}
	end := time.Time{}
	for i, e := range p.entries {
		if p.counts(i) && e.Manifest.Committed.After(end) {
			end = e.Manifest.Committed
		}
	}
	begin, first := earlier(p.now, end).Add(-p.policy.Window), -1
	for i, e := range p.entries {
		switch {
		case !p.counts(i):
		case e.Manifest.Committed.After(begin):
			p.mark(i, "in the window of %v", p.policy.Window)
		case first < 0 || e.Manifest.EndLSN >= p.entries[first].Manifest.EndLSN:
			first = i
		}
	}
	if first >= 0 {
		p.mark(first, "the window of %v begins with it", p.policy.Window)
	}
}

// keepUnsure keeps what a plan has no say in, and, where a manifest cannot be read, all
// that it may need.
func (p *planner) keepUnsure() {
	unread := -1
	for i, e := range slices.Backward(p.entries) {
		switch {
		case e.Unreadable != nil:
			p.mark(i, "unreadable: it counts for nothing, and what is not known is not removed")
			unread = i
		case unread >= 0:
			p.mark(i, "%v cannot be read, and may need it", p.entries[unread].ID)
		case !p.sound[i]:
			p.mark(i, "damaged: it counts for nothing; delete it by name")
		case e.making:
			p.mark(i, "being made: it counts when its run is through with it")
		}
	}
}

// keepUnknown keeps what the log of a timeline begins behind that may be the newest: of
// those that are known it may have been left out long ago.
func (p *planner) keepUnknown() {
	if p.records.doubt(p.logs) == nil {
		return
	}
	begins := map[uint32]block.LSN{}
	for _, l := range p.records.unknown(p.logs) {
		if from, found := begins[l.timeline]; !found || l.From < from {
			begins[l.timeline] = l.From
		}
	}
	for _, from := range begins {
		for _, i := range p.newestUpTo(from) {
			p.mark(i, "%s is damaged, and log of its timeline may lead on from here", timelineName(p.records.highest))
		}
	}
}

// newestUpTo is the newest sound backup of each timeline up to a commit: which of them led
// there is what the record said.
func (p *planner) newestUpTo(lsn block.LSN) map[block.TimelineID]int {
	newest := map[block.TimelineID]int{}
	for i := range p.entries {
		m := &p.entries[i].Manifest
		if !p.sound[i] || m.EndLSN > lsn {
			continue
		}
		if n, found := newest[m.Timeline]; !found || m.EndLSN >= p.entries[n].Manifest.EndLSN {
			newest[m.Timeline] = i
		}
	}
	return newest
}

func (p *planner) keepLeased() {
	for i, e := range p.entries {
		if by, held := p.held.of(e.ID); held {
			p.keep[i] = "in use: " + by // more urgent than any other reason
		}
	}
}

// keepBases keeps what is needed by what is kept. What is damaged needs nothing: it
// is of no use with its base either.
func (p *planner) keepBases() {
	wholly := make([]bool, len(p.entries)) // kept with all that it needs
	for i, e := range slices.Backward(p.entries) {
		base, _ := p.base(i)
		_, held := p.held.of(e.ID)
		wholly[i] = wholly[i] || p.keep[i] != "" && (p.sound[i] || held)
		if base >= 0 && wholly[i] {
			wholly[base] = true
			p.mark(base, "%v needs it", e.ID)
		}
	}
}

// keepDisabled keeps the disabled as long as an older backup of the present timeline
// is there. They also stay where none would be left but they.
func (p *planner) keepDisabled() {
	older, any := false, false
	for i := range p.entries {
		any = any || p.counts(i) && p.keep[i] != ""
	}
	for i, e := range p.entries {
		older = older || p.counts(i) && p.keep[i] != ""
		if e.Disabled == "" || !p.sound[i] {
			continue
		}
		switch {
		case p.policy.KeepDisabled:
			p.mark(i, "disabled: kept until it is deleted by name")
		case older:
			p.mark(i, "disabled: it stays as long as an older backup does")
		case !any:
			p.mark(i, "disabled, but there is no other")
		}
	}
}

// dropOrphans gives up what is damaged and adds to what goes.
func (p *planner) dropOrphans() {
	for i, e := range p.entries {
		base, _ := p.base(i)
		_, held := p.held.of(e.ID)
		if base >= 0 && p.keep[base] == "" && !held {
			p.keep[i] = ""
		}
	}
}

// why is the reason for which entry i goes.
func (p *planner) why(i int) string {
	base, _ := p.base(i)
	switch {
	case p.entries[i].Disabled != "":
		return "disabled, and no older backup is left"
	case base >= 0 && p.keep[base] == "":
		return fmt.Sprintf("it adds to %v, which goes", p.entries[base].ID)
	}
	return fmt.Sprintf("generation %d, where %d are kept", p.generation[i], p.policy.Generations)
}

func (p *planner) result() PrunePlan {
	plan := PrunePlan{Policy: p.policy, Made: p.now, Backups: []PlannedBackup{}, Logs: []PlannedLog{}}
	for i := range p.entries {
		e := &p.entries[i]
		b := PlannedBackup{
			ID: e.ID, Kind: e.Manifest.Kind, LSN: e.Manifest.EndLSN, State: e.State(), Bytes: p.bytes[e.ID],
			Generation: p.generation[i], Reason: p.keep[i],
		}
		if b.Reason == "" {
			b.Remove, b.Reason = true, p.why(i)
		}
		plan.Backups = append(plan.Backups, b)
	}
	for _, l := range p.logs {
		plan.Logs = append(plan.Logs, p.log(l))
	}
	slices.SortStableFunc(plan.Logs, func(a, b PlannedLog) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return plan
}

// log decides on an object of log: it stays while a sound backup does from which it
// can be rolled forward.
func (p *planner) log(l LogObject) PlannedLog {
	out := PlannedLog{Name: l.Name(), LogRange: l.LogRange, Bytes: l.Size}
	if by := p.held.reads(l.LogRange); by != "" {
		out.Reason = "in use: " + by
		return out
	}
	left := false
	for i := range p.entries {
		e := &p.entries[i]
		if p.keep[i] == "" {
			continue
		}
		if e.Unreadable != nil {
			out.Reason = fmt.Sprintf("%v cannot be read, and may need it", e.ID)
			return out
		}
		if !p.sound[i] {
			continue
		}
		left = left || !e.making
		if e.Manifest.EndLSN < l.To && p.leads(&e.Manifest, l) {
			out.Reason = fmt.Sprintf("%v is rolled forward by it", e.ID)
			return out
		}
	}
	if !left {
		out.Reason = "there is no sound backup yet"
		return out
	}
	out.Remove, out.Reason = true, "no backup that stays is older"
	return out
}

// leads reports whether backup m lies in the history of the timeline that l is log
// of. That is known by the start of its id: where it fits several, one is enough,
// and where it fits none, nothing is known.
func (p *planner) leads(m *Manifest, l LogObject) bool {
	known := false
	for _, t := range p.records.all() {
		if timelineStart(t) != l.timeline {
			continue
		}
		known = true
		if p.records.lineage(t, nil).holds(m.Timeline, m.EndLSN) {
			return true
		}
	}
	return !known
}
