package livebackup

import (
	"context"
	"fmt"
	"time"

	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/mvcc"
)

// BackupPlan is what a backup that begins now, or at a better time, is expected to
// take and to cost. See package forecast for what it goes by.
type BackupPlan struct {
	forecast.Plan
	Kind string   `json:"kind"` // KindFull or KindIncremental
	Base BackupID `json:"base,omitzero"`
}

// What is supposed of a sink of which nothing is known, in bytes per second.
const sinkAssumed = 50_000_000

// indexBytes is what MaxRAM pays for an original in temporary storage; see
// mvcc.Options.MaxRAM.
const indexBytes = 64 + 24

// PlanBackup forecasts the backup that Backup with the same options would make now,
// without making it. repo may be nil: then it is a full backup, to a sink that
// o.BytesPerSecond describes.
func PlanBackup(ctx context.Context, src Source, repo *Repository, o BackupOptions) (*BackupPlan, error) {
	p, err := planBackup(ctx, src, repo, o)
	if err != nil {
		return nil, fmt.Errorf("plan backup: %w", err)
	}
	return p, nil
}

func planBackup(ctx context.Context, src Source, repo *Repository, o BackupOptions) (*BackupPlan, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	var entries []Entry
	if repo != nil {
		if entries, err = List(ctx, repo); err != nil {
			return nil, err
		}
	}
	status, err := src.Status(ctx)
	if err != nil {
		return nil, err
	}
	changes, err := src.Changes(ctx)
	if err != nil {
		return nil, err
	}
	p := &BackupPlan{Kind: KindFull}
	in := forecast.Input{
		Now: changes.At, Changes: changes, BlockSize: status.BlockSize, Blocks: status.AllocatedBlocks,
		Sink: sinkOf(entries, o.BytesPerSecond), Room: RoomForOriginals(&status),
		Abort: o.OnExhaustion == mvcc.ExhaustionAbort,
	}
	picker := &basePicker{o: o, entries: entries}
	if base := picker.pick(nil); base != nil {
		m := &base[0].Manifest
		p.Kind, p.Base = KindIncremental, m.ID
		in.Since = max(changes.At.Sub(m.Committed), time.Second)
	} else if o.Type == TypeIncremental {
		return nil, fmt.Errorf("%w: %w", ErrNoBase, picker.why)
	}
	p.Plan = *forecast.Make(in)
	return p, nil
}

// sinkBackups is how many of the last backups tell how fast the sink is.
const sinkBackups = 3

// sinkOf is how fast a backup gets rid of its blocks: as asked, else as the last ones
// did, else a figure that says that it is none.
func sinkOf(entries []Entry, perSecond int64) forecast.Sink {
	var raw, stored, seconds float64
	n := 0
	for i := len(entries) - 1; i >= 0 && n < sinkBackups; i-- {
		m := &entries[i].Manifest
		if m.RawBytes > 0 && m.StoredBytes > 0 && m.Duration > 0 {
			raw, stored, seconds = raw+float64(m.RawBytes), stored+float64(m.StoredBytes), seconds+m.Duration.Seconds()
			n++
		}
	}
	ratio := 1.0
	if n > 0 {
		ratio = stored / raw
	}
	switch {
	case perSecond > 0 && n > 0:
		return forecast.Sink{BlocksPerSecond: float64(perSecond) / ratio, StoredPerSecond: float64(perSecond),
			From: "the rate asked for; blocks compress as in the last backups"}
	case perSecond > 0:
		return forecast.Sink{BlocksPerSecond: float64(perSecond), StoredPerSecond: float64(perSecond),
			From: "the rate asked for; how blocks compress is not known yet"}
	case n > 0:
		return forecast.Sink{BlocksPerSecond: raw / seconds, StoredPerSecond: stored / seconds, From: "the last backups"}
	}
	return forecast.Sink{BlocksPerSecond: sinkAssumed, StoredPerSecond: sinkAssumed, From: "assumed: there is no backup to go by, and no rate was given"}
}

// RoomForOriginals is what originals may take, by a database's status. Of MaxRAM half:
// the rest is for dirty blocks and for clean ones that are never pushed out. What
// knows where originals are bounds temporary storage, too.
func RoomForOriginals(st *mvcc.Status) (r forecast.Room) {
	index := int64(-1)
	for _, l := range st.Levels {
		free := max(l.Limit-l.Used, 0)
		switch l.Name {
		case mvcc.LevelRAM:
			r.Cache = l.Limit / 2
		case mvcc.LevelTemporary:
			r.Temporary = free
		case mvcc.LevelOverflow:
			r.Overflow = free
		case mvcc.LevelIndex:
			index = free / indexBytes * int64(st.BlockSize)
		}
	}
	if index >= 0 {
		r.Temporary = min(r.Temporary, index)
	}
	return r
}

// Outlooks looks ahead for each live backup of a database whose status is st, in the
// order of st.Backups.
func Outlooks(ctx context.Context, src Source, st *mvcc.Status) ([]forecast.Outlook, error) {
	if len(st.Backups) == 0 {
		return nil, nil
	}
	changes, err := src.Changes(ctx)
	if err != nil {
		return nil, fmt.Errorf("look ahead: %w", err)
	}
	return forecast.Outlooks(st, &changes, RoomForOriginals(st)), nil
}

// Changes are what the store remembers.
func (s storeSource) Changes(ctx context.Context) (mvcc.Changes, error) {
	return s.store.Changes(), context.Cause(ctx)
}

// Changes are what the store of the serving process remembers.
func (c *Client) Changes(ctx context.Context) (mvcc.Changes, error) {
	var changes mvcc.Changes
	if err := c.call(ctx, frameChanges, nil, &changes, nil); err != nil {
		return mvcc.Changes{}, fmt.Errorf("changes: %w", err)
	}
	return changes, nil
}

func (c *serverConn) changes(ctx context.Context) error {
	changes, err := c.s.src.Changes(ctx)
	if err != nil {
		return err
	}
	return c.reply(frameReply, changes)
}
