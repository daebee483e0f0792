package forecast

import (
	"time"

	"github.com/spillwaydb/spillway/mvcc"
)

// Outlook is how a backup that runs is expected to go on.
type Outlook struct {
	ID         uint64        `json:"id"`                        // as in mvcc.Status.Snapshots
	TimeLeft   time.Duration `json:"time_left_ns,omitempty"`    // 0: not known yet
	TimeToFull time.Duration `json:"time_to_full_ns,omitempty"` // until originals have no room; 0: that does not come before it ends
	Verdict    Verdict       `json:"verdict"`
}

// Outlooks looks ahead for each live backup of a database, with its changes of the
// last hour and the room that its originals share: of temporary storage and overflow
// what is left. A backup that
// has handed out too little to tell how fast it is has the verdict "unknown".
func Outlooks(st *mvcc.Status, changes *mvcc.Changes, left Room) []Outlook {
	h := newHistory(float64(st.AllocatedBlocks), changes)
	list := make([]Outlook, 0, len(st.Backups))
	for i := range st.Backups {
		list = append(list, outlook(h, st, &st.Backups[i], left))
	}
	return list
}

func outlook(h *history, st *mvcc.Status, b *mvcc.BackupStatus, left Room) Outlook {
	o := Outlook{ID: b.ID, Verdict: NothingToSay}
	size := float64(max(st.BlockSize, 1))
	total := sane(float64(b.BlocksTotal), numberMax)
	handed := sane(float64(b.Blocks), numberMax)
	if b.BlocksTotal == 0 && b.Share > 0 { // an incremental: what it has, and how far it is
		total = sane(handed/b.Share, numberMax)
	}
	if b.BytesPerSecond <= 0 || total <= handed {
		return o
	}
	held := min(sane(float64(b.HeldBytes), numberMax)/size, total-handed)
	run := backup{
		n: total, perSecond: float64(b.BytesPerSecond) / size,
		room:      max(held, sane(float64(left.Cache), numberMax)/size) + Room{Temporary: left.Temporary, Overflow: left.Overflow}.all()/size,
		untouched: total - handed - held, queue: held,
	}
	seconds := min((total-handed)/run.perSecond, secondsMax)
	if h.short(h.c.At, durationOf(seconds)) {
		h = h.cautious()
	}
	age := min(max(h.c.At.Sub(b.Opened), 0), courseMax).Seconds()
	past := h.now.overwrites * age / 3600
	hit := h.same.at // of its blocks, by so many changes since it began
	if b.Base > 0 {
		hit = h.same.again(total)
	}
	run.before = min(hit(past), total)
	c := h.courseFrom(h.c.At, min(seconds, courseMax.Seconds()), 1)
	run.part = c.part
	run.originals = func(i int) float64 { return hit(past + c.overwrites[i]) }
	r := run.simulate(courseParts)
	o.TimeLeft, o.Verdict = max(durationOf(seconds), 1), Fits
	forward := h.now.redo/3600 < redoShare*float64(b.BytesPerSecond)
	switch {
	case b.FellForward: // it keeps no originals; whether it catches up goes by its redo
		if !forward {
			o.Verdict = NothingToSay
		}
	case r.fullAt >= 0:
		o.TimeToFull, o.Verdict = max(durationOf(r.fullAt), 1), Breaks
		if forward && b.Next != mvcc.RungBreak {
			o.Verdict = FallsForward
		}
	}
	return o
}
