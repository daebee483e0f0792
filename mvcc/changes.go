package mvcc

import (
	"math"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// # What is remembered of changes
//
// What a backup will cost depends on how many different blocks change while it runs.
// No rate of commits tells that: a thousand changes of one block make one original. So
// the store counts, at all times, the different blocks that change within windows of
// 10 s, 1, 5 and 15 min, 1, 4 and 24 h, and keeps averages for each hour of the week.
//
// # Exact, and for nothing
//
// A window knows the LSN at which it began. A commit that replaces a version at or
// below that LSN changes the block for the first time in the window; one that
// replaces a newer version does not. The version's LSN is at hand when it is replaced.
// So there is no set of blocks, no sample and no estimate. A block that was
// born in the window is not counted, as it has no original.
//
// Windows of a length follow each other without a gap and begin at its multiples
// (UTC). Each length is a multiple of the one before: where a longer window begins a
// shorter one does, so the shorter one's LSN is never the lower one, and who is not the
// first in a window is not the first in any shorter one. A block that changes all the
// time costs one comparison.
//
// # Who does what, with which lock
//
//   - A commit counts in changeCounter while it publishes; publishing is held anyway.
//   - The clock (tick) looks every 10 s which windows have ended. It takes
//     changeHistory.mu, then publishing for as long as it takes to copy the counter
//     and to let windows begin anew at the newest LSN. Commits read no clock.
//   - Who writes a superblock has the history behind it in the same write
//     (changesformat.go); who asks for it copies it. Both take mu, then publishing.
//     anchor.writing, if held, comes before.
//
// A window counts as seen only if it was watched from its first moment to its last: not
// if the database was opened in it, the clock was set, or the process was stopped. What
// ran when the database was closed goes on when it is opened again in the same window:
// nobody changed anything meanwhile.
//
// # Advice, never truth
//
// Nothing but forecasts goes by it. It is in no log and has no sync of its own: a crash
// loses what came after the last superblock. What cannot be read, or speaks of LSNs that
// the database does not have, is replaced by an empty history. A database that is restored,
// and one that is older than this, begins with an empty one; a standby remembers while
// it is open, and writes nothing.

// changeWindows is how many windows run at a time, hourWindows how many of them are no
// longer than an hour, changeHours how many hours are remembered one by one.
const (
	changeWindows = 7
	hourWindows   = 5
	changeHours   = 24
	weekHours     = 7 * 24
	fourHours     = weekHours / 4
)

// windowLengths from the shortest on.
var windowLengths = [changeWindows]time.Duration{
	10 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 4 * time.Hour, 24 * time.Hour,
}

// unseen stands for a number that nobody has seen.
const unseen = -1

// changeCounter is what commits count. Guarded by Store.publishing.
type changeCounter struct {
	starts     [changeWindows]block.LSN // at which the windows began; never rising from one to the next
	distinct   [changeWindows]uint64    // blocks that changed since, each once
	overwrites uint64                   // versions that were replaced or freed, since the store was opened
}

// replaced counts a version that a commit ends.
func (c *changeCounter) replaced(lsn block.LSN) {
	c.overwrites++
	for i := range c.starts {
		if lsn > c.starts[i] {
			return
		}
		c.distinct[i]++
	}
}

// begin lets a window begin anew.
func (c *changeCounter) begin(window int, newest block.LSN) {
	c.starts[window], c.distinct[window] = newest, 0
}

// ChangeWindow is a window that runs, or the average of some that have ended: how
// many different blocks were changed or freed within it, of those that were there
// when it began, and how many such changes that took. Distinct is negative where no
// window was seen as a whole.
type ChangeWindow struct {
	Within     time.Duration `json:"within_ns"`
	Distinct   float64       `json:"distinct"`
	Overwrites float64       `json:"overwrites"`
}

// ChangeHour is what an hour did to the database, or several of the same hour of
// the week on average.
type ChangeHour struct {
	Weeks   int     `json:"weeks,omitempty"`   // of an hour of the week: how many went into it; 0: it was never seen
	Seconds float64 `json:"seconds,omitempty"` // of a single hour: how much of it was seen
	// Distinct is how many different blocks are changed within 10 s, 1 min, 5 min,
	// 15 min, 1 h if changes come evenly; negative where no window was seen as a whole.
	Distinct   [hourWindows]float64 `json:"distinct"`
	Overwrites float64              `json:"overwrites"` // changes of blocks that were there, in one hour
	RedoBytes  float64              `json:"redo_bytes"` // in one hour
	Commits    float64              `json:"commits"`    // in one hour
}

// Windows are those of the hour's averages that were seen, the shortest first.
func (h *ChangeHour) Windows() (list []ChangeWindow) {
	for i, d := range h.Distinct {
		if d >= 0 {
			list = append(list, ChangeWindow{windowLengths[i], d, h.Overwrites * windowLengths[i].Hours()})
		}
	}
	return list
}

// Changes is what a store remembers of how its blocks change: the base of every
// forecast. Hours of the week are UTC; the first is Sunday, 0 to 1 o'clock.
type Changes struct {
	At        time.Time                   `json:"at"`
	Lately    ChangeRate                  `json:"lately"`
	Recent    []ChangeHour                `json:"recent"`     // single hours, the newest first: it is not over
	Running   [changeWindows]ChangeWindow `json:"running"`    // windows that are not over
	Week      [weekHours]ChangeHour       `json:"week"`       // by hour of the week
	FourHours [fourHours]ChangeWindow     `json:"four_hours"` // of the week
	Days      [7]ChangeWindow             `json:"days"`       // of the week, Sunday first
}

// ChangeRate is what commits did within the last seconds, as far back as the clock's last
// look but one: 10 to 20 s, less in a store that was opened since. Counted, not averaged
// with what was before.
type ChangeRate struct {
	Seconds    float64 `json:"seconds"`
	Overwrites float64 `json:"overwrites"` // in one second
	RedoBytes  float64 `json:"redo_bytes"` // in one second
}

// HourOfWeek is the hour of the week of a moment, 0 to 167.
func HourOfWeek(t time.Time) int { return hourOfWeek(hourOf(t)) }

// hourOf counts hours since 1970.
func hourOf(t time.Time) int64 { return floorDiv(t.Unix(), 3600) }

// hourOfWeek: 1970 began on a Thursday.
func hourOfWeek(hour int64) int { return int((hour%weekHours + 4*24 + weekHours) % weekHours) }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// windowOf counts windows of a length since 1970.
func windowOf(t time.Time, window int) int64 {
	return floorDiv(t.UnixNano(), int64(windowLengths[window]))
}

// runningWindow is when a window began, and the counter of overwrites then.
type runningWindow struct {
	begun      time.Time
	overwrites uint64
}

// Population is how many blocks there would be if all were equally likely to change,
// and so many changes hit so many different ones; most at most.
func (w ChangeWindow) Population(most float64) float64 {
	if w.hits(most) <= w.Distinct {
		return most
	}
	low, high := max(w.Distinct, 1.0/1024), most
	for range 60 { // hits rises with the population
		m := math.Sqrt(low * high)
		if w.hits(m) < w.Distinct {
			low = m
		} else {
			high = m
		}
	}
	return high
}

// hits is how many different ones of so many blocks the window's changes hit, if all
// are equally likely.
func (w ChangeWindow) hits(population float64) float64 {
	return -population * math.Expm1(-w.Overwrites/population)
}

// populationMax stands for no limit.
const populationMax = 1 << 52

// windowMean is an average of windows of one length. Windows count by how much changed in
// them: of a minute full of changes and nine idle ones the plain average would say that
// a tenth of the changes hit a tenth of the blocks, which is wrong where blocks change
// again and again.
type windowMean struct{ n, x, xx, dx float64 }

func (m *windowMean) add(seen ChangeWindow) {
	m.n++
	m.x += seen.Overwrites
	m.xx += seen.Overwrites * seen.Overwrites
	m.dx += seen.Overwrites * seen.Distinct
}

// value is how many different blocks a window would have if changes came evenly;
// unseen if there was no window.
func (m *windowMean) value() float64 {
	switch {
	case m.n == 0:
		return unseen
	case m.x == 0:
		return 0
	}
	busy := ChangeWindow{Overwrites: m.xx / m.x, Distinct: m.dx / m.x}
	even := ChangeWindow{Overwrites: m.x / m.n}
	return even.hits(busy.Population(populationMax))
}

// runningHour is the hour that is not over.
type runningHour struct {
	hour                      int64 // since 1970
	seen                      time.Duration
	distinct                  [hourWindows]windowMean
	overwrites, redo, commits float64
}

// average is the hour as it is remembered.
func (h *runningHour) average() ChangeHour {
	perHour := 0.0
	if h.seen > 0 {
		perHour = float64(time.Hour) / float64(h.seen)
	}
	a := ChangeHour{Seconds: h.seen.Seconds(), Overwrites: h.overwrites * perHour, RedoBytes: h.redo * perHour, Commits: h.commits * perHour}
	for i := range a.Distinct {
		a.Distinct[i] = h.distinct[i].value()
	}
	return a
}

// changeTotals are counters that only rise while the store is open.
type changeTotals struct {
	overwrites uint64
	redo       int64
	newest     block.LSN
}

// changeLook is what the clock saw when it looked at the counters.
type changeLook struct {
	at     time.Time
	totals changeTotals
}

// changeHistory is what is remembered. mu guards all of it but slot, which belongs to
// the clock.
type changeHistory struct {
	slot int64 // window of the shortest length that the clock is in

	mu       sync.Mutex
	counting bool
	at       time.Time     // last looked at the counter
	last     changeTotals  // as of then
	looks    [2]changeLook // the clock's last two, the older one first
	windows  [changeWindows]runningWindow
	hour     runningHour
	recent   []ChangeHour // that are over, the newest first
	week     [weekHours]ChangeHour
	four     [fourHours]ChangeWindow
	days     [7]ChangeWindow
	unsaved  bool // an hour is over that no superblock has
}

// reset makes the history an empty one.
func (h *changeHistory) reset() {
	h.recent, h.unsaved = nil, false
	for i := range h.week {
		h.week[i] = ChangeHour{Distinct: nothingSeen}
	}
	for i := range h.four {
		h.four[i] = ChangeWindow{4 * time.Hour, unseen, 0}
	}
	for i := range h.days {
		h.days[i] = ChangeWindow{24 * time.Hour, unseen, 0}
	}
}

var nothingSeen = [hourWindows]float64{unseen, unseen, unseen, unseen, unseen}

// startChanges begins to count, with what the last superblock remembers. Nobody else
// has the store yet.
func (s *Store) startChanges(now time.Time) {
	h := &s.changes
	h.reset()
	saved := s.readChanges()
	newest := s.newestLSN()
	h.at, h.slot = now, windowOf(now, 0)
	h.last = changeTotals{redo: s.log.Stats().RecordBytes, newest: newest}
	h.looks = [2]changeLook{{now, h.last}, {now, h.last}}
	h.hour = runningHour{hour: hourOf(now)}
	for i := range h.windows {
		h.windows[i].begun = now
		s.counter.begin(i, newest)
	}
	if saved != nil {
		saved.restore(h, &s.counter, now, newest)
	}
	h.counting = true
}

// changesNow is what the history takes for the time.
func (s *Store) changesNow() time.Time {
	if s.opts.changesClock != nil {
		return s.opts.changesClock()
	}
	return time.Now()
}

// tickChanges is called by the clock.
func (s *Store) tickChanges(now time.Time) {
	h := &s.changes
	if slot := windowOf(now, 0); slot != h.slot {
		h.slot = slot
		s.rollChanges(now)
	}
}

// rollChanges ends the windows that are over and remembers what they saw.
func (s *Store) rollChanges(now time.Time) {
	h := &s.changes
	h.mu.Lock()
	defer h.mu.Unlock()
	var ended [changeWindows]bool
	for i := range ended {
		ended[i] = windowOf(now, i) != windowOf(h.windows[i].begun, i)
	}
	redo := s.log.Stats().RecordBytes
	s.publishing.Lock()
	was := s.counter
	newest := s.newestLSN()
	for i := range ended {
		if ended[i] {
			s.counter.begin(i, newest)
		}
	}
	s.publishing.Unlock()
	h.count(now, changeTotals{was.overwrites, redo, newest})
	h.looks = [2]changeLook{h.looks[1], {now, h.last}}
	for i := range ended {
		if ended[i] {
			h.end(i, now, &was)
		}
	}
	if hour := hourOf(now); hour != h.hour.hour {
		h.endHour(hour)
	}
}

// seenMax is the most that one look at the counter accounts for: if it was longer ago
// the process did not run.
const seenMax = 20 * time.Second

// count adds what the counters rose by to the hour.
func (h *changeHistory) count(now time.Time, t changeTotals) {
	h.hour.seen += min(max(now.Sub(h.at), 0), seenMax)
	h.hour.overwrites += float64(t.overwrites - h.last.overwrites)
	h.hour.redo += float64(max(t.redo-h.last.redo, 0))
	h.hour.commits += float64(t.newest - h.last.newest)
	h.at, h.last = now, t
}

// end remembers a window that is over, if it was seen as a whole, and begins the next.
func (h *changeHistory) end(window int, now time.Time, c *changeCounter) {
	w := &h.windows[window]
	length := windowLengths[window]
	nominal := time.Unix(0, windowOf(w.begun, window)*int64(length))
	slack := length / 10
	if w.begun.Sub(nominal) <= slack && now.Sub(nominal.Add(length)).Abs() <= slack {
		seen := ChangeWindow{length, float64(c.distinct[window]), float64(c.overwrites - w.overwrites)}
		switch {
		case window < hourWindows:
			h.hour.distinct[window].add(seen)
		case length == 4*time.Hour:
			h.four[hourOfWeek(hourOf(nominal))/4].learn(seen)
		default:
			h.days[hourOfWeek(hourOf(nominal))/24].learn(seen)
		}
	}
	w.begun, w.overwrites = now, c.overwrites
}

// learn takes a window into an average that follows slowly.
func (w *ChangeWindow) learn(seen ChangeWindow) {
	if w.Distinct < 0 {
		w.Distinct, w.Overwrites = seen.Distinct, seen.Overwrites
		return
	}
	w.Distinct += (seen.Distinct - w.Distinct) / 2
	w.Overwrites += (seen.Overwrites - w.Overwrites) / 2
}

// An hour counts for the week if learnMin of it was seen. weeksMax bounds for how long
// an hour of the week remembers.
const (
	learnMin = 15 * time.Minute
	weeksMax = 4
)

// endHour goes on to another hour.
func (h *changeHistory) endHour(next int64) {
	h.finish(h.hour.hour, h.hour.average())
	h.hour = runningHour{hour: next}
}

// finish remembers an hour that is over.
func (h *changeHistory) finish(hour int64, a ChangeHour) {
	if a.Seconds >= learnMin.Seconds() {
		h.week[hourOfWeek(hour)].learn(a)
	}
	if a.Seconds > 0 {
		h.recent = append([]ChangeHour{a}, h.recent[:min(len(h.recent), changeHours-2)]...)
		h.unsaved = true
	}
}

// learn takes an hour into the average of its hour of the week.
func (w *ChangeHour) learn(a ChangeHour) {
	w.Weeks = min(w.Weeks+1, math.MaxUint8)
	share := 1 / float64(min(w.Weeks, weeksMax))
	for i, d := range a.Distinct {
		switch {
		case d < 0:
		case w.Distinct[i] < 0:
			w.Distinct[i] = d
		default:
			w.Distinct[i] += (d - w.Distinct[i]) * share
		}
	}
	w.Overwrites += (a.Overwrites - w.Overwrites) * share
	w.RedoBytes += (a.RedoBytes - w.RedoBytes) * share
	w.Commits += (a.Commits - w.Commits) * share
}

// Changes is what the store remembers, up to now.
func (s *Store) Changes() Changes {
	now := s.changesNow()
	h := &s.changes
	h.mu.Lock()
	defer h.mu.Unlock()
	c := s.catchUp(now)
	out := Changes{At: now, Lately: h.lately(), Week: h.week, FourHours: h.four, Days: h.days}
	out.Recent = append(append(out.Recent, h.hour.average()), h.recent...)
	for i, w := range h.windows {
		out.Running[i] = ChangeWindow{max(now.Sub(w.begun), 0), float64(c.distinct[i]), float64(c.overwrites - w.overwrites)}
	}
	out.round()
	return out
}

// lately is what happened since the clock's last look but one. The counters have just
// been looked at.
func (h *changeHistory) lately() (r ChangeRate) {
	from := h.looks[0]
	if r.Seconds = h.at.Sub(from.at).Seconds(); r.Seconds <= 0 {
		return ChangeRate{}
	}
	r.Overwrites = float64(h.last.overwrites-from.totals.overwrites) / r.Seconds
	r.RedoBytes = float64(max(h.last.redo-from.totals.redo, 0)) / r.Seconds
	return r
}

// round leaves off digits that mean nothing.
func (c *Changes) round() {
	round := func(v *float64) { *v = math.Round(*v*16) / 16 }
	hour := func(h *ChangeHour) {
		for i := range h.Distinct {
			round(&h.Distinct[i])
		}
		round(&h.Seconds)
		round(&h.Overwrites)
		round(&h.RedoBytes)
		round(&h.Commits)
	}
	round(&c.Lately.Seconds)
	round(&c.Lately.Overwrites)
	round(&c.Lately.RedoBytes)
	for i := range c.Recent {
		hour(&c.Recent[i])
	}
	for i := range c.Week {
		hour(&c.Week[i])
	}
	for _, list := range [][]ChangeWindow{c.FourHours[:], c.Days[:]} {
		for i := range list {
			round(&list[i].Distinct)
			round(&list[i].Overwrites)
		}
	}
}

// catchUp adds to the running hour what happened since the clock last looked, and
// returns the counter. mu is held.
func (s *Store) catchUp(now time.Time) changeCounter {
	redo := s.log.Stats().RecordBytes
	s.publishing.Lock()
	c, newest := s.counter, s.newestLSN()
	s.publishing.Unlock()
	s.changes.count(now, changeTotals{c.overwrites, redo, newest})
	return c
}
