package forecast

import (
	"math"
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// Input is what a forecast is made from.
type Input struct {
	Now       time.Time
	Changes   mvcc.Changes
	BlockSize int           // bytes
	Blocks    uint64        // in use
	Since     time.Duration // of an incremental: how long before Now its base was taken; 0: a full backup
	Sink      Sink
	Room      Room
	// Abort says that a backup whose originals find no room is broken instead of
	// falling forward.
	Abort bool
}

// Sink is how fast a backup gets rid of what it reads.
type Sink struct {
	BlocksPerSecond float64 `json:"block_bytes_per_second"`  // bytes of blocks, before compression
	StoredPerSecond float64 `json:"stored_bytes_per_second"` // bytes that the repository takes
	From            string  `json:"from"`                    // where the figures come from, for people
}

// Room is what originals may take, in bytes, in the order in which they take it.
type Room struct {
	Cache     int64 `json:"cache"`     // of MaxRAM
	Temporary int64 `json:"temporary"` // of temporary storage
	Overflow  int64 `json:"overflow"`  // of memory beyond MaxRAM
}

func (r Room) all() float64 {
	return float64(max(r.Cache, 0)) + float64(max(r.Temporary, 0)) + float64(max(r.Overflow, 0))
}

// Verdict says in a word how a backup will end.
type Verdict string

// The verdicts.
const (
	Fits         Verdict = "fits"
	FallsForward Verdict = "falls-forward" // whole, exact at a later commit than it began at
	Breaks       Verdict = "breaks"
	NothingToSay Verdict = "unknown" // there is no history yet
)

// Forecast is what a backup that starts at Start is expected to be. Bytes, and bytes
// per second.
type Forecast struct {
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration_ns"`
	Bytes    int64         `json:"bytes"` // of the blocks that it hands out

	PeakOriginals int64 `json:"peak_originals_bytes"` // held at the same time
	PeakMax       int64 `json:"peak_max_bytes"`       // whatever happens: all blocks in use
	TempNeeded    int64 `json:"temp_needed_bytes"`    // of it in temporary storage
	TempMax       int64 `json:"temp_max_bytes"`

	Fits          bool          `json:"fits"`
	Verdict       Verdict       `json:"verdict"`
	Rung          mvcc.Rung     `json:"rung"`                    // how far down the ladder its originals will go
	FullAfter     time.Duration `json:"full_after_ns,omitempty"` // if it does not fit: when there is no room
	RedoPerSecond float64       `json:"redo_bytes_per_second"`
	// CanFallForward says that the sink takes redo faster than it is written: what
	// does not fit can end by falling forward.
	CanFallForward bool `json:"can_fall_forward"`
	// Seen says that the history has seen the hour; else it is taken to be like
	// the others.
	Seen bool `json:"seen"`
	// Short says that the history is too short to promise anything: the figures are those
	// of changes that go on at least as fast as in the last seconds, and hit all blocks
	// alike.
	Short bool `json:"short,omitempty"`
}

// redoShare is how much of the sink's rate redo may take: beyond, a backup that fell
// forward makes no headway that could be promised.
const redoShare = 0.9

// backup is what is to be simulated: n blocks, of which the sink takes so many a second.
type backup struct {
	n, perSecond float64
	originals    func(part int) float64 // that the changes up to the end of a part would make if nothing were taken
	part         float64                // seconds
	room         float64                // blocks

	// How far it is: blocks that are neither in hand nor changed, originals that
	// wait, and different blocks that have changed.
	untouched, queue, before float64
}

// run is how a backup went.
type run struct {
	peak    float64 // blocks
	fullAt  float64 // seconds; negative: never
	scanned float64 // blocks that the scan had taken when there was no room
	changed float64 // share of all blocks that had changed then
}

// simulate lets a backup run: see the package's comment.
func (b *backup) simulate(parts int) run {
	r := run{fullAt: -1}
	untouched, queue, scanned, before := b.untouched, b.queue, 0.0, b.before
	for i := range parts {
		after := max(b.originals(i), before)
		made := 0.0
		if left := max(b.n-before, after-before); left > 0 {
			made = min((after-before)*untouched/left, untouched)
		}
		before = after
		untouched -= made
		queue += made
		take := b.perSecond * b.part
		fromQueue := min(queue, take)
		queue -= fromQueue
		fromScan := min(untouched, take-fromQueue)
		untouched -= fromScan
		scanned += fromScan
		r.peak = max(r.peak, queue)
		if r.fullAt < 0 && queue > b.room {
			r.fullAt, r.scanned, r.changed = float64(i+1)*b.part, scanned, min(after/b.n, 1)
		}
	}
	return r
}

// secondsMax bounds a backup's time: beyond it a sink is none.
const secondsMax = 100 * 365 * 24 * 3600

// at forecasts a backup that starts at start. Where the history is too short to go by, it
// is cautious.
func (in *Input) at(h *history, start time.Time) Forecast {
	f := in.by(h, start)
	if h.short(start, f.Duration) {
		f = in.by(h.cautious(), start)
		f.Short = true
	}
	return f
}

// by goes by a history as it is.
func (in *Input) by(h *history, start time.Time) Forecast {
	size := float64(max(in.BlockSize, 1))
	curve := h.curveAt(start)
	b := backup{n: sane(float64(in.Blocks), numberMax), perSecond: sane(in.Sink.BlocksPerSecond, numberMax) / size, room: in.Room.all() / size}
	past := 0.0
	inUse := b.n
	if in.Since > 0 && h.seen() {
		age := min(min(in.Since, courseMax)+max(start.Sub(in.Now), 0), courseMax).Seconds()
		past = h.courseFrom(start, age, -1).overwrites[courseParts-1]
		b.n = min(b.n, curve.at(past))
	}
	seconds := float64(secondsMax)
	if b.perSecond > 0 {
		seconds = min(b.n/b.perSecond, secondsMax)
	}
	c := h.courseFrom(start, min(seconds, courseMax.Seconds()), 1)
	b.part = c.part
	b.originals = func(i int) float64 {
		if in.Since > 0 {
			return max(b.n+curve.at(c.overwrites[i])-curve.at(past+c.overwrites[i]), 0)
		}
		return curve.at(c.overwrites[i])
	}
	b.untouched = b.n
	r := b.simulate(courseParts)
	f := Forecast{
		Start: start, Duration: durationOf(seconds), Bytes: bytesOf(b.n * size),
		PeakOriginals: bytesOf(r.peak * size), PeakMax: bytesOf(inUse * size),
		Seen: h.ratesAt(start).seen,
	}
	if took := c.part * courseParts; took > 0 {
		f.RedoPerSecond = c.redo[courseParts-1] / took
	}
	inCache := max(in.Room.Cache, 0)
	f.TempNeeded = max(f.PeakOriginals-inCache, 0)
	f.TempMax = max(f.PeakMax-inCache, 0)
	in.judge(h, &f, &b, &r)
	return f
}

// judge says how it will end.
func (in *Input) judge(h *history, f *Forecast, b *backup, r *run) {
	sink := sane(in.Sink.StoredPerSecond, numberMax)
	f.CanFallForward = sink > 0 && f.RedoPerSecond < redoShare*sink
	switch cache := max(in.Room.Cache, 0); {
	case r.fullAt < 0:
		f.Fits, f.Verdict, f.Rung = true, Fits, mvcc.RungOverflow
		if f.PeakOriginals <= cache {
			f.Rung = mvcc.RungCache
		} else if f.PeakOriginals-cache <= in.Room.Temporary { // their sum may be too large for a number
			f.Rung = mvcc.RungSpill
		}
	case in.Abort || !f.CanFallForward:
		f.Verdict, f.Rung, f.FullAfter = Breaks, mvcc.RungBreak, durationOf(r.fullAt)
	default:
		f.Verdict, f.Rung, f.FullAfter = FallsForward, mvcc.RungFallForward, durationOf(r.fullAt)
		// What is in hand and has not changed since need not be taken again (R12).
		left := b.n - r.scanned*(1-r.changed)
		f.Duration = durationOf(r.fullAt + left/b.perSecond/(1-f.RedoPerSecond/sink))
	}
	if !f.Seen && !h.seen() {
		f.Verdict = NothingToSay
	}
}

func durationOf(seconds float64) time.Duration {
	return time.Duration(sane(seconds, secondsMax) * float64(time.Second))
}

func bytesOf(v float64) int64 { return int64(math.Round(sane(v, numberMax))) }
