package livebackup

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/chance"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

var errDamage, errUnread = errors.New("damaged"), errors.New("unreadable")

// day is a commit time.
func day(n int) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(n) * 24 * time.Hour).UTC()
}

// stock makes views by hand. LSNs and days go up with each backup.
type stock struct {
	view
	now      block.TimelineID
	forks    []block.Fork
	lsn      block.LSN
	day      int
	sequence uint64
}

func newStock() *stock {
	h := &stock{now: block.TimelineID{1}}
	h.bytes, h.held = map[BackupID]int64{}, holds{by: map[BackupID]string{}}
	h.attach()
	return h
}

func (h *stock) attach() {
	h.records.highest++
	h.records.records = append(h.records.records, timelineRecord{
		Number: h.records.highest, Timeline: hexID(h.now), History: wireForks(h.forks), LSN: h.lsn,
	})
}

// backup adds a full backup, or an incremental on base, a day and ten commits later.
func (h *stock) backup(base BackupID) BackupID {
	h.sequence++
	h.day++
	h.lsn += 10
	id := BackupID{Sequence: h.sequence, Random: 1}
	m := Manifest{
		ID: id, Kind: KindFull, Base: base, Timeline: h.now, History: slices.Clone(h.forks),
		LSN: h.lsn, EndLSN: h.lsn, Committed: day(h.day),
	}
	if !base.IsZero() {
		m.Kind = KindIncremental
	}
	h.entries = append(h.entries, Entry{ID: id, Manifest: m})
	h.bytes[id] = 1000
	return id
}

func (h *stock) full() BackupID { return h.backup(BackupID{}) }

func (h *stock) entry(id BackupID) *Entry {
	i := slices.IndexFunc(h.entries, func(e Entry) bool { return e.ID == id })
	return &h.entries[i]
}

// fork goes on from the state of backup id, on a timeline of its own.
func (h *stock) fork(id BackupID) {
	m := &h.entry(id).Manifest
	h.forks = append([]block.Fork{{Timeline: m.Timeline, LSN: m.EndLSN}}, m.History...)
	h.now = block.TimelineID{byte(len(h.records.records) + 1)}
	h.lsn = m.EndLSN
	h.attach()
}

// log archives (from, to] of the present timeline.
func (h *stock) log(from, to block.LSN) {
	h.logs = append(h.logs, LogObject{LogRange: LogRange{from, to}, Size: 10, timeline: timelineStart(h.now)})
}

func (h *stock) plan(p RetentionPolicy) PrunePlan {
	p, err := p.withDefaults()
	if err != nil {
		panic(err) // a mistake in the test
	}
	h.records.known = nil
	for i := range h.entries {
		h.records.known = append(h.records.known, &h.entries[i].Manifest)
	}
	h.records.disable(h.entries)
	return h.view.plan(p, day(h.day+1), nil)
}

// removed are the sequences of what goes, and how many logs do.
func removed(p PrunePlan) (list []uint64, logs int) {
	for _, b := range p.Backups {
		if b.Remove {
			list = append(list, b.ID.Sequence)
		}
	}
	_, logs, _ = p.Removes()
	return list, logs
}

func wantRemoved(t *testing.T, p PrunePlan, want ...uint64) {
	t.Helper()
	if list, _ := removed(p); !slices.Equal(list, want) {
		t.Errorf("removes %v, want %v:\n%s", list, want, reasons(p))
	}
}

func reasons(p PrunePlan) string {
	var s strings.Builder
	for _, b := range p.Backups {
		fmt.Fprintf(&s, "%v %s LSN %v, %s, generation %d: remove %v: %s\n", b.ID, b.Kind, b.LSN, b.State, b.Generation, b.Remove, b.Reason)
	}
	for _, l := range p.Logs {
		fmt.Fprintf(&s, "%s: remove %v: %s\n", l.Name, l.Remove, l.Reason)
	}
	return s.String()
}

// S4-12 to S4-17: five generations by default; the oldest goes with all that adds
// to it and with its log; incrementals are no generations.
func TestL13_Generations(t *testing.T) {
	h := newStock()
	for range 7 {
		full := h.full() // 1, 4, 7, 10, 13, 16, 19
		h.backup(h.backup(full))
		h.log(h.lsn-30, h.lsn)
	}
	plan := h.plan(RetentionPolicy{})
	wantRemoved(t, plan, 1, 2, 3, 4, 5, 6)
	if _, logs := removed(plan); logs != 2 {
		t.Errorf("%d logs:\n%s", logs, reasons(plan))
	}
	if plan.Policy.Generations != 5 || plan.Backups[20].Generation != 1 || plan.Backups[0].Generation != 7 {
		t.Error(reasons(plan))
	}
	wantRemoved(t, h.plan(RetentionPolicy{Generations: GenerationsWeek}))
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
}

// An incremental that was made while the next full backup was is later than that. It went
// with its generation, and with it the newest state that could be restored.
func TestL13_TheNewestStateStays(t *testing.T) {
	h := newStock()
	first := h.full()
	h.full()
	late := h.backup(h.backup(first))
	plan := h.plan(RetentionPolicy{Generations: 1})
	wantRemoved(t, plan)
	if b := plan.Backups[3]; b.ID != late || b.Reason != "the newest state" {
		t.Error(reasons(plan))
	}
	h.full()
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}), 1, 2, 3, 4)
}

// T40, S4-20: what does not count pushes nobody out.
func TestL13_WhatDoesNotCountPushesNobodyOut(t *testing.T) {
	h := newStock()
	good := h.full()
	for i := range 9 {
		e := h.entry(h.full())
		switch i % 2 {
		case 0:
			e.Damage = errDamage
		case 1:
			h.backup(h.backup(e.ID)) // and what adds to what is damaged
			h.entry(e.ID).Damage = errDamage
		}
	}
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}))
	h.full()
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}), good.Sequence)
	h.entry(BackupID{2, 1}).Unreadable = errUnread // it may need the good one
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}))
}

// What is damaged goes with what it adds to, not by itself.
func TestL13_DamagedGoesWithItsGeneration(t *testing.T) {
	h := newStock()
	incremental := h.backup(h.full())
	h.backup(incremental)
	h.full()
	h.entry(incremental).Damage = errDamage
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 2}))
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}), 1, 2, 3)
}

// S4-19 to S4-23.
func TestL13_L14_DisabledGoWithTheLastOlderOne(t *testing.T) {
	h := newStock()
	second := BackupID{}
	for i := range 5 {
		if id := h.full(); i == 1 {
			second = id
		}
	}
	h.fork(second)
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 5}))
	for range 4 {
		h.full() // 6 to 9
	}
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 5}), 1)
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 4}), 1, 2, 3, 4, 5)
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 4, KeepDisabled: true}), 1, 2)
	// One that cannot be told from a newer one's base goes with it, not before.
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 3}), 1, 2, 3, 4, 5, 6)
}

// Where only disabled ones are left, they stay.
func TestL13_L14_TheLastOnesStay(t *testing.T) {
	h := newStock()
	first := h.full()
	h.full()
	h.fork(first)
	h.entries = h.entries[1:] // the one that was restored is gone
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}))
	h.entry(h.full()).Damage = errDamage
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}))
	h.full()
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}), 2)
}

// The window keeps the backup that it begins with, and its chain.
func TestL13_WindowBeginsWithABackup(t *testing.T) {
	h := newStock()
	for range 4 {
		full := h.full()
		h.backup(h.backup(full))
	}
	// Days 1 to 12; the newest is of day 12.
	hours := func(n int) RetentionPolicy {
		return RetentionPolicy{Generations: 1, Window: time.Duration(n) * time.Hour}
	}
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}), 1, 2, 3, 4, 5, 6, 7, 8, 9)
	wantRemoved(t, h.plan(hours(24*3)), 1, 2, 3, 4, 5, 6)                                  // begins on day 9, with 9, 8 and 7
	wantRemoved(t, h.plan(hours(24*3+1)), 1, 2, 3, 4, 5, 6)                                // just before day 9: with 8
	wantRemoved(t, h.plan(hours(24*4+1)), 1, 2, 3, 4, 5, 6)                                // with 7
	wantRemoved(t, h.plan(hours(24*5+1)), 1, 2, 3)                                         // with 6, and so 5 and 4
	wantRemoved(t, h.plan(hours(24*30)))                                                   // further back than there is
	p := h.view.plan(RetentionPolicy{Generations: 1, Window: time.Hour}, day(10_000), nil) // a clock far ahead
	wantRemoved(t, p, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	p = h.view.plan(RetentionPolicy{Generations: 1, Window: 24 * time.Hour}, day(6), nil) // one that stepped back
	wantRemoved(t, p, 1, 2, 3)
}

// What is in use stays, with what it needs and the log behind it.
func TestL13_LeasedStays(t *testing.T) {
	h := newStock()
	for range 3 {
		full := h.full()
		h.backup(h.backup(full))
		h.log(h.lsn-30, h.lsn)
	}
	h.held.by[BackupID{2, 1}] = "a restore"
	plan := h.plan(RetentionPolicy{Generations: 1})
	wantRemoved(t, plan, 3, 4, 5, 6)
	if _, logs := removed(plan); logs != 0 {
		t.Error(reasons(plan))
	}
	h.held = holds{all: "somebody"}
	wantRemoved(t, h.plan(RetentionPolicy{Generations: 1}))
}

// T43: log of an abandoned branch stays while it leads anywhere.
func TestL13_LogOfAnAbandonedBranch(t *testing.T) {
	h := newStock()
	first := h.full() // at 10
	h.log(10, 40)
	h.lsn = 40
	h.fork(first)
	h.log(10, 30)
	h.full() // at 20
	plan := h.plan(RetentionPolicy{})
	if _, logs := removed(plan); logs != 0 {
		t.Error(reasons(plan))
	}
	h.lsn = 30
	h.full() // at 40
	plan = h.plan(RetentionPolicy{Generations: 1})
	wantRemoved(t, plan, 1, 2)
	if _, logs := removed(plan); logs != 2 {
		t.Error(reasons(plan))
	}
	plan = h.plan(RetentionPolicy{Generations: 2})
	wantRemoved(t, plan, 1)
	for _, l := range plan.Logs { // the old branch's leads on from nowhere
		if l.Remove != (l.To == 40) {
			t.Error(reasons(plan))
		}
	}
}

// R18: a record of the registry is damaged, and nothing else of its timeline is left but
// its log. What led to it is in the history of those that it led to.
func TestL13_LogOfAParentWhoseRecordIsDamaged(t *testing.T) {
	a := newArchived(t, 7)
	a.change(2)
	a.full()
	first := a.made[0].LSN
	a.onNewTimeline("/d/db2", a.grown(4))
	a.onNewTimeline("/d/db3", a.grown(4))
	end := a.grown(4)
	a.full()
	rewrite(t, a.repo, timelineName(2), []byte("not a record"))
	plan := mustPlan(t, a.repo, RetentionPolicy{})
	if backups, logs, _ := plan.Removes(); backups+logs != 0 {
		t.Errorf("goes:\n%s", reasons(plan))
	}
	if _, err := Prune(t.Context(), a.repo, plan); err != nil {
		t.Fatal(err)
	}
	for lsn := first; lsn <= end; lsn++ {
		a.wantAt(RestoreTarget{LSN: lsn}, lsn, RestoreOptions{})
	}
	remove(t, a.repo, objectName(a.made[0].ID, kindManifest, 0)) // now nobody is rolled forward by it
	plan = mustPlan(t, a.repo, RetentionPolicy{})
	if _, logs, _ := plan.Removes(); logs != 3 {
		t.Errorf("%d logs go", logs)
	}
}

// grown registers the timeline, archives n commits of it, and returns the last.
func (a *archived) grown(n int) block.LSN {
	a.t.Helper()
	lsn := a.store.Status().NewestLSN
	err := a.repo.attach(a.t.Context(), mvcc.BackupInfo{Database: a.store.Database(), Timeline: a.store.Timeline(), History: a.store.History(), LSN: lsn})
	if err != nil {
		a.t.Fatal(err)
	}
	a.change(n)
	a.archive()
	return a.from
}

// onNewTimeline restores the state as of lsn to dir, and goes on with that.
func (a *archived) onNewTimeline(dir string, lsn block.LSN) {
	a.t.Helper()
	a.tail.Close()
	if err := a.store.Close(); err != nil {
		a.t.Fatal(err)
	}
	if _, err := Restore(a.t.Context(), a.repo, RestoreTarget{LSN: lsn}, dir, RestoreOptions{FS: a.fs, MaxRAM: 16 << 20}); err != nil {
		a.t.Fatal(err)
	}
	a.dir, a.model = dir, maps.Clone(a.kept[lsn])
	a.open()
	a.attach(lsn)
}

// T41: log that is there before the first backup stays until there is one.
func TestL13_LogBeforeTheFirstBackup(t *testing.T) {
	h := newStock()
	h.log(0, 5)
	h.log(5, 15)
	if _, logs := removed(h.plan(RetentionPolicy{})); logs != 0 {
		t.Error("log was removed where there is no backup")
	}
	id := h.full()
	if _, logs := removed(h.plan(RetentionPolicy{})); logs != 1 {
		t.Error("log that no backup needs stayed")
	}
	h.entry(id).Damage = errDamage
	if _, logs := removed(h.plan(RetentionPolicy{})); logs != 0 {
		t.Error("log was removed where there is no sound backup")
	}
}

// randomStock makes a history of anything that may happen.
func randomStock(rng *rand.Rand) *stock {
	h := newStock()
	for range rng.IntN(25) {
		n := len(h.entries)
		switch k := rng.IntN(12); {
		case k < 4 || n == 0:
			h.full()
		case k < 9:
			base := h.entries[max(0, n-1-rng.IntN(3))]
			if lineageOf(h.now, h.forks).usable(&base.Manifest) {
				h.backup(base.ID)
			}
		case k < 10:
			h.fork(h.entries[rng.IntN(n)].ID)
		default:
			from := h.lsn - min(h.lsn, block.LSN(rng.IntN(25)))
			h.log(from, from+block.LSN(rng.IntN(25)+1))
		}
	}
	for i := range h.entries {
		switch rng.IntN(25) {
		case 0:
			h.entries[i].Damage = errDamage
		case 1:
			h.held.by[h.entries[i].ID] = "a test"
		case 2:
			if rng.IntN(4) == 0 {
				h.entries[i].Unreadable = errUnread
				if rng.IntN(2) == 0 {
					h.entries[i].Manifest = Manifest{}
				}
			}
		}
	}
	return h
}

// oracle decides what goes by the definitions alone, however long that takes.
type oracle struct {
	*stock
	policy RetentionPolicy
}

func (o *oracle) find(id BackupID) *Entry {
	for i := range o.entries {
		if o.entries[i].ID == id {
			return &o.entries[i]
		}
	}
	return nil
}

// chain is e and what it needs; whole is false if some of that is missing or bad.
func (o *oracle) chain(e *Entry) (list []*Entry, whole bool) {
	whole = true
	for e != nil {
		list = append(list, e)
		whole = whole && e.Damage == nil && e.Unreadable == nil
		if e.Manifest.Base.IsZero() {
			return list, whole
		}
		e = o.find(e.Manifest.Base)
	}
	return list, false
}

func (o *oracle) counts(e *Entry) bool {
	_, whole := o.chain(e)
	return whole && e.Disabled == ""
}

// wanted is what must stay for its own sake: generations, the newest state, window, and
// what is in use.
func (o *oracle) wanted() map[BackupID]bool {
	wanted := map[BackupID]bool{}
	var fulls, starts []*Entry
	for i := range o.entries {
		e := &o.entries[i]
		if _, held := o.held.of(e.ID); held {
			wanted[e.ID] = true
		}
		if o.counts(e) {
			starts = append(starts, e)
			if e.Manifest.Kind == KindFull {
				fulls = append(fulls, e)
			}
		}
	}
	fulls = fulls[max(0, len(fulls)-o.policy.Generations):]
	for _, e := range starts {
		chain, _ := o.chain(e)
		if slices.Contains(fulls, chain[len(chain)-1]) {
			wanted[e.ID] = true
		}
	}
	if len(starts) > 0 {
		newest := slices.MaxFunc(starts, func(a, b *Entry) int {
			return cmp.Or(cmp.Compare(a.Manifest.EndLSN, b.Manifest.EndLSN), cmp.Compare(a.ID.Sequence, b.ID.Sequence))
		})
		wanted[newest.ID] = true
	}
	if o.policy.Window > 0 && len(starts) > 0 {
		end := starts[len(starts)-1].Manifest.Committed
		for at := end.Add(-o.policy.Window); !at.After(end); at = at.Add(12 * time.Hour) {
			var best *Entry // to begin with, to reach the moment at
			for _, e := range starts {
				if !e.Manifest.Committed.After(at) {
					best = e
				}
			}
			if best != nil {
				wanted[best.ID] = true
			}
		}
	}
	return wanted
}

// Random histories: a plan removes nothing that is wanted or needed by what is, and
// everything else that the policy has a say in (L13).
func TestModel_L13_PlanKeepsWhatIsNeeded(t *testing.T) {
	seed := chance.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	removals := 0
	for range 4000 {
		h := randomStock(rng)
		o := &oracle{stock: h, policy: RetentionPolicy{
			Generations: rng.IntN(4) + 1, Window: time.Duration(rng.IntN(8)/2) * 36 * time.Hour, KeepDisabled: rng.IntN(4) == 0,
		}}
		plan := h.plan(o.policy)
		gone := map[BackupID]bool{}
		for _, b := range plan.Backups {
			gone[b.ID] = b.Remove
			if b.Remove {
				removals++
			}
			if b.Reason == "" {
				t.Fatalf("no reason:\n%s", reasons(plan))
			}
		}
		if why := o.wrong(gone); why != "" {
			t.Fatalf("%+v: %s\n%s", o.policy, why, reasons(plan))
		}
		if why := o.wrongLogs(gone, plan); why != "" {
			t.Fatalf("%+v: %s\n%s", o.policy, why, reasons(plan))
		}
	}
	if removals < 4000 {
		t.Fatalf("only %d removals: the test proves little", removals)
	}
}

// wrong says what is wrong with a set of removals, or "".
func (o *oracle) wrong(gone map[BackupID]bool) string {
	wanted := o.wanted()
	firstWanted, unread := uint64(1<<63), uint64(0)
	for i := range o.entries {
		e := &o.entries[i]
		if e.Unreadable != nil {
			unread = e.ID.Sequence
		}
		if wanted[e.ID] && gone[e.ID] {
			return fmt.Sprintf("%v is wanted, and goes", e.ID)
		}
	}
	needed := map[BackupID]bool{}
	for i := range o.entries {
		e := &o.entries[i]
		chain, whole := o.chain(e)
		_, held := o.held.of(e.ID)
		for _, base := range chain {
			if !gone[e.ID] && (whole || held) && gone[base.ID] {
				return fmt.Sprintf("%v stays, and needs %v, which goes", e.ID, base.ID)
			}
			needed[base.ID] = needed[base.ID] || base != e && !gone[e.ID] && (whole || held)
		}
		if !gone[e.ID] && o.counts(e) {
			firstWanted = min(firstWanted, e.ID.Sequence)
		}
	}
	for i := range o.entries {
		e := &o.entries[i]
		chain, whole := o.chain(e)
		orphan := len(chain) > 1 && gone[chain[1].ID]
		sure := whole && e.ID.Sequence >= unread && !wanted[e.ID] && !needed[e.ID]
		switch {
		case e.ID.Sequence <= unread && gone[e.ID]:
			return fmt.Sprintf("%v goes, and may be needed by what cannot be read", e.ID)
		case !whole && gone[e.ID] != orphan && !wanted[e.ID]:
			return fmt.Sprintf("%v is damaged, and goes %v, by itself", e.ID, gone[e.ID])
		case sure && e.Disabled == "" && !gone[e.ID]:
			return fmt.Sprintf("%v stays, and nobody wants it", e.ID)
		case sure && e.Disabled != "":
			left := firstWanted < 1<<63
			stays := o.policy.KeepDisabled || firstWanted < e.ID.Sequence || !left
			if gone[e.ID] == stays {
				return fmt.Sprintf("disabled %v goes %v", e.ID, gone[e.ID])
			}
		}
	}
	return ""
}

// wrongLogs proves that what is left can be rolled forward as far as before, on every
// timeline, and that no log stays that nothing leads to.
func (o *oracle) wrongLogs(gone map[BackupID]bool, plan PrunePlan) string {
	var after []LogObject
	for _, l := range o.logs {
		i := slices.IndexFunc(plan.Logs, func(p PlannedLog) bool { return p.Name == l.Name() })
		if !plan.Logs[i].Remove {
			after = append(after, l)
		}
	}
	useful, unread, left := map[string]bool{}, false, false
	for i := range o.entries {
		e := &o.entries[i]
		unread = unread || e.Unreadable != nil
		if _, whole := o.chain(e); !whole || gone[e.ID] {
			continue
		}
		left = true
		for _, r := range o.records.records {
			l := o.records.lineage(r.timeline(), forksOf(r.History))
			if !l.usable(&e.Manifest) {
				continue
			}
			from := e.Manifest.EndLSN
			if a, b := coverage(o.logs, l, from), coverage(after, l, from); !slices.Equal(a, b) {
				return fmt.Sprintf("%v could be rolled forward over %v, now over %v", e.ID, a, b)
			}
			for _, log := range after {
				useful[log.Name()] = useful[log.Name()] || log.timeline == timelineStart(r.timeline()) && log.To > from
			}
		}
	}
	for _, log := range after {
		if left && !unread && !useful[log.Name()] {
			return log.Name() + " stays, and nothing leads to it"
		}
	}
	return ""
}

// TestL13_PoliciesThatMakeNoSense are refused, each by itself: one that keeps nothing
// would remove everything.
func TestL13_PoliciesThatMakeNoSense(t *testing.T) {
	repo := openRepo(t, simfs.New(), "/repo")
	for _, p := range []RetentionPolicy{{Generations: -1}, {Window: -time.Second}, {Generations: -1, Window: -1}} {
		if _, err := PlanPrune(t.Context(), repo, p); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, p := range []RetentionPolicy{{}, {Generations: 1}, {Generations: 3, Window: time.Hour}} {
		if _, err := PlanPrune(t.Context(), repo, p); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// TestPrunePlan_SaysHowMuchGoes: backups and log, each and together.
func TestPrunePlan_SaysHowMuchGoes(t *testing.T) {
	h := newStock()
	h.full()
	h.full()
	h.log(0, 10)
	h.full()
	p := h.plan(RetentionPolicy{Generations: 1})
	if backups, logs, bytes := p.Removes(); backups != 2 || logs != 1 || bytes != 2010 {
		t.Errorf("%d backups and %d logs of %d bytes go", backups, logs, bytes)
	}
}

// TestPrunePlan_SaysWhy: what adds to the oldest backup goes because of that, and log is
// listed in its order, whatever that of the names is.
func TestPrunePlan_SaysWhy(t *testing.T) {
	h := newStock()
	first := h.full()
	h.backup(first)
	h.log(10, 20)
	h.log(0, 10)
	h.log(0, 5)
	h.full()
	p := h.plan(RetentionPolicy{Generations: 1})
	if why := p.Backups[1].Reason; !p.Backups[1].Remove || !strings.Contains(why, "it adds to "+first.String()) {
		t.Errorf("the incremental goes because %s", why)
	}
	if !slices.IsSortedFunc(p.Logs, func(a, b PlannedLog) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) }) {
		t.Errorf("log is listed as %v", p.Logs)
	}
}

// A plan also says which small objects of archived log, of those that stay, a prune would
// merge: the ones that it then says it has merged.
func TestPrunePlan_SaysWhatIsMerged(t *testing.T) {
	repo, _ := manySmall(t, simfs.New(), 5, 3*mergeDefault.objects)
	plan := mustPlan(t, repo, RetentionPolicy{Generations: 1})
	done, err := Prune(t.Context(), repo, plan)
	if err != nil || len(done.Merged) == 0 || !slices.Equal(plan.Merges, done.Merged) {
		t.Errorf("planned %+v, done %+v, %v", plan.Merges, done.Merged, err)
	}
	if again := mustPlan(t, repo, RetentionPolicy{Generations: 1}); len(again.Merges) != 0 {
		t.Errorf("there is nothing left to merge, planned is %+v", again.Merges)
	}
}
