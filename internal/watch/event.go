package watch

import (
	"fmt"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/mvcc"
)

// EventOf puts an event of the store into words.
func EventOf(e *mvcc.Event) Event {
	v := Event{Time: e.Time, Kind: string(e.Kind), Severity: mvcc.StateNormal, Text: string(e.Kind)}
	who := name(&e.Of)
	switch e.Kind {
	case mvcc.EventWatermark:
		l := Level{Unit: e.Level.Unit}
		v.Severity = e.Level.State
		v.Text = fmt.Sprintf("%s is %s, was %s: %s of %s", e.Level.Name, e.Level.State, e.Was, l.amount(e.Level.Used), l.amount(e.Level.Limit))
		if e.ByTime {
			v.Severity = e.Level.TimeState
			v.Text = fmt.Sprintf("%s by its time to full is %s, was %s: full in %s", e.Level.Name, e.Level.TimeState, e.Was, human.Elapsed(e.Level.TimeToFull))
			if e.Level.TimeToFull == 0 {
				v.Text = fmt.Sprintf("%s by its time to full is %s, was %s", e.Level.Name, e.Level.TimeState, e.Was)
			}
		}
	case mvcc.EventRung:
		v.Severity, v.Text = mvcc.StateLow, fmt.Sprintf("ladder: %s", e.Rung)
		if e.Rung == mvcc.RungFallForward || e.Rung == mvcc.RungBreak {
			v.Severity = mvcc.StateHigh
		}
		if e.Bytes > 0 {
			v.Text += fmt.Sprintf(", %s of originals", human.Bytes(e.Bytes))
		}
		if e.Next != "" {
			v.Text += fmt.Sprintf("; next would be: %s", e.Next)
		}
	case mvcc.EventFellForward:
		v.Severity, v.Text = mvcc.StateHigh, who+" fell forward"
	case mvcc.EventBroken:
		v.Severity, v.Text = mvcc.StateCritical, who+" was broken"
	case mvcc.EventGuard:
		v.Severity, v.Text = mvcc.StateHigh, "a guard ended "+who
		if e.Guard != nil {
			v.Text += ": " + e.Guard.Error()
		}
	case mvcc.EventReleased:
		v.Text = who + " was released"
	case mvcc.EventClock:
		v.Severity, v.Text = mvcc.StateLow, fmt.Sprintf("the clock is %s behind the time of commits", human.Elapsed(e.Gap))
		if e.Gap == 0 {
			v.Severity, v.Text = mvcc.StateNormal, "the clock is itself again"
		}
	case mvcc.EventFailed:
		v.Severity, v.Text = mvcc.StateCritical, "the store has failed: "+e.ErrText
	case mvcc.EventLogGone:
		v.Severity, v.Text = mvcc.StateHigh, fmt.Sprintf("log was recycled that %s wanted", e.Holder.Name)
	}
	if e.Why != "" {
		v.Text += " (" + e.Why + ")"
	}
	return v
}

// name is whom an event is about.
func name(n *mvcc.SnapshotName) string {
	if n.Kind == "" {
		return "a snapshot"
	}
	text := fmt.Sprintf("%s %d", n.Kind, n.ID)
	if n.Label != "" {
		text += " " + n.Label
	}
	return text
}
