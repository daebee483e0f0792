package main

import (
	"context"
	"time"

	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
)

// outlookEvery is how often a backup that runs is looked ahead for.
const outlookEvery = 2 * time.Second

// follow looks ahead for the backup that this process takes, until the returned
// function is called.
func (p *progress) follow(ctx context.Context, db livebackup.Source, owner string) (stop func()) {
	if p.container == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(outlookEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if o, found := outlookOf(ctx, db, owner); found {
					word := outlookWord(&o)
					p.verdict.Store(&word)
				}
			}
		}
	}()
	return func() { cancel(); <-done }
}

// outlookOf looks ahead for an owner's backup. What cannot be asked is not told.
func outlookOf(ctx context.Context, db livebackup.Source, owner string) (o forecast.Outlook, found bool) {
	st, err := db.Status(ctx)
	if err != nil {
		return o, false
	}
	list, err := livebackup.Outlooks(ctx, db, &st)
	if err != nil {
		return o, false
	}
	for i, b := range st.Backups {
		if b.Owner == owner {
			o, found = list[i], true
		}
	}
	return o, found
}

// outlookWord is an outlook in few columns.
func outlookWord(o *forecast.Outlook) string {
	switch o.Verdict {
	case forecast.Fits:
		return "fits"
	case forecast.FallsForward:
		return "forward in " + human.Elapsed(o.TimeToFull.Round(time.Second))
	case forecast.Breaks:
		return "breaks in " + human.Elapsed(o.TimeToFull.Round(time.Second))
	}
	return ""
}
