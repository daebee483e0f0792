package forecast

import (
	"math"
	"time"
)

// Plan is what is forecast for now and for the week to come.
type Plan struct {
	Now Forecast `json:"now"`
	// Best is the forecast for the best time to start within a week; nil if too
	// little was seen to name one.
	Best *Forecast `json:"best,omitempty"`
	// AtThisRate is the forecast for now if changes went on as in the last LatelyOver and
	// hit all blocks alike: it warns of a load that the hours before do not show yet. It is
	// "unknown" if that is too short to say.
	AtThisRate Forecast      `json:"at_this_rate"`
	LatelyOver time.Duration `json:"lately_over_ns"`
	// Hours are the starts to come: now, then every full hour of a week.
	Hours []Hour `json:"hours"`
	// HoursSeen is how many of the week's 168 hours the history has seen.
	HoursSeen int `json:"hours_seen"`
	// SeenLately is how much of the time before now the forecast for now goes by.
	SeenLately time.Duration `json:"seen_lately_ns"`
	Sink       Sink          `json:"sink"`
	Room       Room          `json:"room"`

	in *Input
	h  *history
}

// Hour is a Forecast in short.
type Hour struct {
	Start         time.Time `json:"start"`
	PeakOriginals int64     `json:"peak_originals_bytes"`
	RedoPerSecond float64   `json:"redo_bytes_per_second"`
	Verdict       Verdict   `json:"verdict"`
	Seen          bool      `json:"seen"`
}

// hoursSeenMin is how many hours of the week must have been seen for one of them to
// be called the best.
const hoursSeenMin = 6

// Make makes a plan.
func Make(in Input) *Plan {
	p := &Plan{Sink: in.Sink, Room: in.Room, in: &in, h: newHistory(float64(in.Blocks), &in.Changes)}
	for i := range in.Changes.Week {
		if in.Changes.Week[i].Weeks > 0 {
			p.HoursSeen++
		}
	}
	p.SeenLately = durationOf(p.h.took)
	p.Now = in.at(p.h, in.Now)
	p.AtThisRate, p.LatelyOver = in.by(p.h.onlyLate(), in.Now), durationOf(in.Changes.Lately.Seconds)
	if !p.h.late.seen {
		p.AtThisRate.Verdict = NothingToSay
	}
	p.add(p.Now)
	first := in.Now.Truncate(time.Hour).Add(time.Hour)
	for i := range len(in.Changes.Week) {
		p.add(in.at(p.h, first.Add(time.Duration(i)*time.Hour)))
	}
	if best, ok := p.Within(7 * 24 * time.Hour); ok {
		p.Best = &best
	}
	return p
}

func (p *Plan) add(f Forecast) {
	p.Hours = append(p.Hours, Hour{f.Start, f.PeakOriginals, f.RedoPerSecond, f.Verdict, f.Seen})
}

// Within is the forecast for the best time to start that is no further away than
// within; false if too little was seen to name one. Now is the best unless another
// time is clearly better.
func (p *Plan) Within(within time.Duration) (Forecast, bool) {
	if p.HoursSeen < hoursSeenMin {
		return Forecast{}, false
	}
	best := p.Hours[0]
	for _, h := range p.Hours[1:] {
		if h.Seen && h.Start.Sub(p.in.Now) <= within && p.better(h, best) {
			best = h
		}
	}
	return p.in.at(p.h, best.Start), true
}

// better reports whether a start is clearly better than an earlier one: how it ends
// counts first, then the originals, then how much is being written.
func (p *Plan) better(a, b Hour) bool {
	rank := map[Verdict]int{Fits: 0, NothingToSay: 1, FallsForward: 2, Breaks: 3}
	if rank[a.Verdict] != rank[b.Verdict] {
		return rank[a.Verdict] < rank[b.Verdict]
	}
	slack := 0.01 * float64(p.Now.PeakMax) // what a forecast may be wrong by, see the package's tests
	if x, y := float64(a.PeakOriginals), float64(b.PeakOriginals); math.Abs(x-y) > max(slack, 0.2*max(x, y)) {
		return x < y
	}
	return a.RedoPerSecond < 0.8*b.RedoPerSecond
}
