package livebackup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// The registry of timelines (L14, R18): objects timeline-00000001, -2 and so on,
// one for each timeline that pushed here (backups or log), in the order in which
// they came. The one that came last is the present. Nothing is ever taken back:
// what a timeline leaves behind when another one takes its place is disabled, not
// removed.
//
// What a push of timeline T gets, and what became of the forks that led to T:
//
//	T is                                          the push
//	the present timeline                          goes on
//	not known, and none is                        attaches T
//	not known, and forked from the present one    attaches T
//	not known, and forked from another known one  attaches T; the present one is left
//	known, and not the present one                ErrTimelineAbandoned
//	not known, but a known one forked from it     ErrTimelineAbandoned
//	not known, and none that led to it is         ErrForeignTimeline
//
// Known is what has a record, and what a manifest names: a repository that was
// made before there were records has none, and its present timeline is that of
// its newest backup.
//
// What that comes to:
//
//	copied directory    Both copies are on T, and go on. Who pushes second does
//	                    not have in its history what the first one pushed:
//	                    mvcc.ErrHistory, see checkHead. It may fork, and attaches
//	                    as a child of T.
//	VM rolled back      The same: what it pushed before is not in its history, or
//	                    lies above it (ErrRepositoryAhead).
//	two restores of     T1 and T2 both forked from A at 100. T1 attaches. When T2
//	one backup          does, it takes T1's place; T1 hears at its next push that it
//	                    was left, and may fork to take its place back. Nobody
//	                    overwrites anybody, and neither is ever the other's base.
//	restore of an       A has backups at 50, 100 and 150, T forks from A at 50. When
//	older backup        T attaches, those at 100 and 150 are disabled.
//	restore of a        T3 forks from A at 150 and attaches: the backups of A are
//	disabled backup,    enabled again, up to 150, those of T are disabled.
//	as a database
//
// All of this holds only if a fork is a commit that both sides have. A restore
// knows that by itself. A copy that forks does not know where the other copy went
// on: it forks at the newest head that it remembers of any repository, which it
// had before there was a second copy, or at 0.
//
// What a restore knows it knows of the repository that it came from. Where two copies
// pushed on one timeline to a repository each, what was restored from the one must not push
// to the other: that has the same timeline up to the fork by its name alone, and nothing
// in either tells the two apart. To remember which repositories share a history has been
// tried: it refused a promoted standby that had a repository of its own, and what was
// restored from a backup older than the other repository. Whoever copies a database forks
// the copy before it pushes.

// ErrTimelineUnsure: a restore would follow one timeline, and another one may be newer: its
// record is damaged. See RestoreOptions.AllowOlder.
var ErrTimelineUnsure = errors.New("which timeline is the newest cannot be told")

// Errors of a push.
var (
	// ErrTimelineAbandoned: a later timeline took the place of the database's own
	// in this repository: a backup was restored and then written, or a copy
	// forked. Fork this one to take the place back.
	ErrTimelineAbandoned = errors.New("timeline was abandoned")
	// ErrForeignTimeline: nothing in the repository led to this timeline.
	ErrForeignTimeline = errors.New("timeline is not known to the repository")
)

// timelineRecord is the payload of an object of the registry.
type timelineRecord struct {
	Number    uint32     `json:"number"`
	Timeline  hexID      `json:"timeline"`
	History   []forkWire `json:"history,omitempty"` // the forks that led to it, newest first
	LSN       block.LSN  `json:"lsn"`               // where it was when it attached
	RecordSum uint32     `json:"record_sum"`        // of the log record that ends LSN
	Attached  time.Time  `json:"attached"`          // by the clock
	CreatedBy string     `json:"created_by"`

	// The newest state that was pushed and then removed, if it was the newest of
	// all, or of all that have a checksum: the database still has to have it in its
	// history (R18).
	HeadLSN block.LSN `json:"head_lsn,omitempty"`
	HeadSum uint32    `json:"head_sum,omitempty"`
}

// registry is what a repository knows of timelines.
type registry struct {
	records []timelineRecord // those that can be read, by number
	highest uint32           // number, of all that there are
	unread  error            // why one could not be read, unless it is damaged
	known   []*Manifest      // what is listed, in the order of the list
}

// registry reads the records. Damaged ones say nothing and are passed over. That
// one could not be read is for the caller to judge: see registry.unread.
func (r *Repository) registry(ctx context.Context, c *catalog, list []Entry) (registry, error) {
	var g registry
	for _, number := range c.timelines {
		g.highest = number
		record, err := r.readTimeline(ctx, number)
		switch {
		case ctx.Err() != nil:
			return g, context.Cause(ctx)
		case err == nil:
			g.records = append(g.records, record)
		case !errors.Is(err, block.ErrCorrupt):
			g.unread = err
		}
	}
	for i := range list {
		if e := &list[i]; !e.Manifest.ID.IsZero() {
			g.known = append(g.known, &e.Manifest)
		}
	}
	return g, nil
}

func (r *Repository) readTimeline(ctx context.Context, number uint32) (record timelineRecord, err error) {
	name := timelineName(number)
	_, err = r.readOwn(ctx, name, smallBytesMax, magicTimeline, &record)
	if err == nil && (record.Number != number || len(record.History) > historyMax) {
		err = damaged(name, -1, "it is not what its name says", nil)
	}
	return record, err
}

// present is the present timeline and what led to it. ok is false if that is not
// known, because there is none or because nothing says what led to it.
func (g *registry) present() (l lineage, ok bool) {
	n, k := len(g.records), len(g.known)
	if n > 0 && (k == 0 || g.sure() || g.older(g.known[k-1])) {
		return g.lineage(g.records[n-1].timeline(), forksOf(g.records[n-1].History)), true
	}
	if k > 0 {
		m := g.known[k-1]
		return g.lineage(m.Timeline, m.History), len(m.History) > 0 || n > 0
	}
	return nil, false
}

// sure reports whether the newest record can be read.
func (g *registry) sure() bool {
	n := len(g.records)
	return n > 0 && g.records[n-1].Number == g.highest
}

// older reports whether the timeline of m attached before that of the newest record that
// can be read: it has a record of its own, or led to that one.
func (g *registry) older(m *Manifest) bool {
	for i := range g.records {
		if g.records[i].timeline() == m.Timeline {
			return true
		}
	}
	newest := &g.records[len(g.records)-1]
	_, led := g.lineage(newest.timeline(), forksOf(newest.History)).reach(m.Timeline)
	return led
}

// doubt is an error that says why another timeline than the present one may be that, or
// nil: the newest record is damaged, and there is log of a timeline of which nothing else
// is known.
func (g *registry) doubt(logs []LogObject) error {
	unknown := g.unknown(logs)
	if g.sure() || g.highest == 0 || len(unknown) == 0 {
		return nil
	}
	now := "none that is known"
	if l, _ := g.present(); len(l) > 0 {
		now = l[0].Timeline.String()
	}
	return damaged(timelineName(g.highest), -1, fmt.Sprintf(
		"%s is of a timeline of which nothing else is known: that may be the newest, not %s", unknown[0].Name(), now), ErrTimelineUnsure)
}

// unknown is the log of timelines that nothing but that log tells of.
func (g *registry) unknown(logs []LogObject) []LogObject {
	known := map[uint32]bool{}
	for _, t := range g.all() {
		known[timelineStart(t)] = true
	}
	return slices.DeleteFunc(slices.Clone(logs), func(o LogObject) bool { return known[o.timeline] })
}

func (t *timelineRecord) timeline() block.TimelineID { return block.TimelineID(t.Timeline) }

// lineage is that of t, with what the registry knows of forks that history, which
// is of bounded length, has forgotten.
func (g *registry) lineage(t block.TimelineID, history []block.Fork) lineage {
	l := lineageOf(t, history)
	for len(l) <= len(g.records)+len(g.known)+historyMax {
		more := g.history(l[len(l)-1].Timeline)
		if len(more) == 0 {
			break
		}
		l = append(l, more...)
	}
	return l
}

// history is the forks that led to t, as far as they are known: by its own record or
// manifests, or, where these are damaged or gone, by those of timelines that t led to.
func (g *registry) history(t block.TimelineID) []block.Fork {
	for i := range g.records {
		if r := &g.records[i]; r.timeline() == t && len(r.History) > 0 {
			return forksOf(r.History)
		}
	}
	for _, m := range g.known {
		if m.Timeline == t && len(m.History) > 0 {
			return m.History
		}
	}
	var longest []block.Fork
	g.histories(func(history []block.Fork) {
		i := slices.IndexFunc(history, func(f block.Fork) bool { return f.Timeline == t })
		if i >= 0 && len(history)-i-1 > len(longest) {
			longest = history[i+1:]
		}
	})
	return longest
}

// histories calls fn for the forks of each record and manifest.
func (g *registry) histories(fn func([]block.Fork)) {
	for i := range g.records {
		fn(forksOf(g.records[i].History))
	}
	for _, m := range g.known {
		fn(m.History)
	}
}

// all is every timeline that is known to have pushed, or to have led to one that has.
func (g *registry) all() []block.TimelineID {
	var list []block.TimelineID
	add := func(t block.TimelineID, history []block.Fork) {
		list = append(list, t)
		for _, f := range history {
			list = append(list, f.Timeline)
		}
	}
	for i := range g.records {
		add(g.records[i].timeline(), forksOf(g.records[i].History))
	}
	for _, m := range g.known {
		add(m.Timeline, m.History)
	}
	slices.SortFunc(list, func(a, b block.TimelineID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(list)
}

// pushed reports whether timeline t has pushed here.
func (g *registry) pushed(t block.TimelineID) bool {
	for i := range g.records {
		if g.records[i].timeline() == t {
			return true
		}
	}
	for _, m := range g.known {
		if m.Timeline == t {
			return true
		}
	}
	return false
}

// led reports whether timeline t led to one that has pushed here.
func (g *registry) led(t block.TimelineID) bool {
	_, found := slices.BinarySearchFunc(g.all(), t, func(a, b block.TimelineID) int { return bytes.Compare(a[:], b[:]) })
	return found && !g.pushed(t)
}

// admit decides on a push of timeline t, by the table above. attach says that it is
// to have a record.
func (g *registry) admit(t block.TimelineID, history []block.Fork) (attach bool, err error) {
	if g.unread != nil {
		return false, fmt.Errorf("which timeline is the present one cannot be told: %w", g.unread)
	}
	now, _ := g.present()
	switch {
	case len(now) == 0:
		return true, nil
	case now[0].Timeline == t:
		n := len(g.records)
		return n == 0 || g.records[n-1].timeline() != t, nil
	case g.pushed(t) || g.led(t):
		return false, abandoned(t, now)
	}
	for _, f := range history {
		if g.pushed(f.Timeline) || g.led(f.Timeline) {
			return true, nil
		}
	}
	return false, fmt.Errorf("%w: %v, nor what led to it; the present one is %v: begin another repository",
		ErrForeignTimeline, t, now[0].Timeline)
}

func abandoned(t block.TimelineID, now lineage) error {
	at := "before it left anything here"
	if reach, ok := now.reach(t); ok {
		at = fmt.Sprintf("at LSN %v", reach)
	}
	return fmt.Errorf("%w: %v was left %s, the present one is %v; `livebackup fork` puts the database on a new one that takes its place",
		ErrTimelineAbandoned, t, at, now[0].Timeline)
}

// attach makes the timeline of a database that is about to push the present one, if
// it may be that and is not: or refuses. Of info it wants Database, Timeline,
// History, LSN and RecordSum. The repository is bound to the database.
func (r *Repository) attach(ctx context.Context, info mvcc.BackupInfo) error {
	for {
		g, err := r.timelines(ctx, info.Timeline)
		if err != nil {
			return err
		}
		attach, err := g.admit(info.Timeline, info.History)
		if err != nil || !attach {
			return err
		}
		err = r.putTimeline(ctx, info.Database, &timelineRecord{
			Number: g.highest + 1, Timeline: hexID(info.Timeline), History: wireForks(info.History),
			LSN: info.LSN, RecordSum: info.RecordSum,
		})
		if !errors.Is(err, ErrObjectExists) {
			return err
		}
		// Somebody was faster: what is right now may be something else.
	}
}

func (r *Repository) putTimeline(ctx context.Context, db block.DatabaseID, record *timelineRecord) error {
	if record.Attached.IsZero() {
		record.Attached = time.Now().UTC()
	}
	record.CreatedBy = createdBy
	data, err := encodeEnvelope(magicTimeline, identity{r.id, db}, record)
	if err != nil {
		return err
	}
	return r.put(ctx, timelineName(record.Number), data)
}

// timelines reads what decides on a push of timeline t: manifests only where the
// records do not say that t is the present one.
func (r *Repository) timelines(ctx context.Context, t block.TimelineID) (registry, error) {
	c, err := r.catalog(ctx)
	if err != nil {
		return registry{}, err
	}
	g, err := r.registry(ctx, c, nil)
	if err != nil {
		return g, err
	}
	if g.sure() && g.records[len(g.records)-1].timeline() == t {
		return g, nil
	}
	list, err := r.entries(ctx, c)
	if err != nil {
		return g, err
	}
	for i := range list {
		if list[i].Unreadable != nil && len(g.records) == 0 {
			return g, fmt.Errorf("which timeline is the present one cannot be told: %v: %w", list[i].ID, list[i].Unreadable)
		}
	}
	return r.registry(ctx, c, list)
}

// TimelineInfo is a timeline that has pushed to a repository.
type TimelineInfo struct {
	Timeline block.TimelineID
	History  []block.Fork // the forks that led to it, newest first
	LSN      block.LSN    // where it was when it attached
	Attached time.Time    // by the clock
	Present  bool         // it is the one that backups and log are pushed on
}

// Timelines returns the records of the timelines that pushed to repo, in the order
// in which they attached. A repository that nobody has pushed to since there are
// such records has none.
func Timelines(ctx context.Context, repo *Repository) ([]TimelineInfo, error) {
	c, err := repo.catalog(ctx)
	if err != nil {
		return nil, err
	}
	g, err := repo.registry(ctx, c, nil)
	if err == nil {
		err = g.unread
	}
	if err != nil {
		return nil, err
	}
	var list []TimelineInfo
	for i := range g.records {
		t := &g.records[i]
		if n := len(list); n > 0 && list[n-1].Timeline == t.timeline() {
			continue // it has another record because its newest backup was deleted
		}
		list = append(list, TimelineInfo{
			Timeline: t.timeline(), History: forksOf(t.History), LSN: t.LSN, Attached: t.Attached,
			Present: t.timeline() == g.records[len(g.records)-1].timeline(),
		})
	}
	return list, nil
}
