package mvcc

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// BackupStatus is how far a live backup is, whoever takes it.
type BackupStatus struct {
	ID             uint64 // as in Snapshots
	Owner, Label   string
	LSN, Base      block.LSN // Base 0: a full backup
	Opened         time.Time
	Blocks         uint64  // handed out
	BlocksTotal    uint64  // that it hands out in all: of an incremental as far as known, 0 while it counts what changed
	Share          float64 // of its way, 0 to 1; of an incremental how much was looked at of what changed
	Bytes          int64   // handed out
	BytesPerSecond int64   // over the last ten seconds
	HeldBytes      int64   // of originals that it still wants
	Rung           Rung    // the highest that was reached while it ran
	// PaceBytesPerSecond is what SetPace last asked for: 0 nothing, PaceUnlimited as
	// fast as it goes.
	PaceBytesPerSecond int64
	FellForward        bool // it keeps no originals any more
	Next               Rung `json:",omitempty"` // if its originals find no room: RungFallForward or RungBreak; "": it keeps none, or an older program does not say
}

// RungCache is below the first rung: all originals were in memory, as granted.
const RungCache Rung = "cache"

// Rung is the highest rung of the ladder that the costs tell of.
func (c *Cost) Rung() Rung {
	switch {
	case c.OverflowPeakBytes > 0:
		return RungOverflow
	case c.OriginalsSpilled > 0:
		return RungSpill
	}
	return RungCache
}

// Crossing is a watermark that was crossed while a backup ran.
type Crossing struct {
	Time        time.Time
	Level       string
	Was, State  string
	Used, Limit int64 // bytes, or ns of an age
	ByTime      bool  `json:",omitempty"` // how soon it will be full, not how full it is
}

// LevelPeak is a level as it was when it was fullest while a backup ran, looked at
// every 100 ms.
type LevelPeak struct {
	Name        string
	Used, Limit int64 // bytes
}

// crossingsMax is how many watermarks a backup keeps: the first ones tell how it began.
const crossingsMax = 64

// liveBackups are the backups that are open. mu is held for a few reads and writes
// of memory, and nothing else is taken meanwhile; Next only counts, by atomics.
type liveBackups struct {
	mu   sync.Mutex
	open []*backupTrack
	any  atomic.Bool // open is not empty
}

// backupTrack is what one backup met on its way. What is not atomic is guarded by
// liveBackups.mu.
type backupTrack struct {
	backup *Backup
	handed atomic.Uint64 // blocks
	groups uint64        // of the file; constant
	total  atomic.Uint64 // blocks of an incremental, expected; 0: not known
	looked atomic.Uint64 // blocks of changed extents that its scan is through with
	toLook atomic.Uint64 // of so many in all, about
	pace   atomic.Int64  // see SetPace

	levels    []LevelPeak
	crossings []Crossing
	leftOut   int // beyond crossingsMax
	speed     [speedSamples]speedSample
	speedLen  int // samples taken; the oldest are overwritten
}

// speedSample is how many blocks had been handed out when.
type speedSample struct {
	at     time.Time
	blocks uint64
}

// A rate is that of the last speedSamples seconds.
const (
	speedSamples = 10
	speedEvery   = time.Second
)

func (l *liveBackups) enter(t *backupTrack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, t)
	l.any.Store(true)
}

func (l *liveBackups) leave(t *backupTrack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = slices.DeleteFunc(l.open, func(o *backupTrack) bool { return o == t })
	l.any.Store(len(l.open) > 0)
}

// see takes a reading of all levels and of how far each backup is.
func (l *liveBackups) see(now time.Time, levels []Level) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.open {
		t.takeSpeed(now)
		for _, v := range levels {
			t.takeLevel(v.Name, v.Used, v.Limit)
		}
	}
}

// heard tells all backups that are open of a watermark. It may be called with any lock
// held.
func (l *liveBackups) heard(ev Event) {
	if ev.Kind != EventWatermark || !l.any.Load() {
		return
	}
	m := Crossing{ev.Time, ev.Level.Name, ev.Was, ev.state(), ev.Level.Used, ev.Level.Limit, ev.ByTime}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.open {
		t.takeLevel(m.Level, m.Used, m.Limit)
		if len(t.crossings) == crossingsMax {
			t.leftOut++
			continue
		}
		t.crossings = append(t.crossings, m)
	}
}

// takeLevel remembers where a level was fullest.
func (t *backupTrack) takeLevel(name string, used, limit int64) {
	i := slices.IndexFunc(t.levels, func(p LevelPeak) bool { return p.Name == name })
	if i < 0 {
		t.levels = append(t.levels, LevelPeak{name, used, limit})
	} else if p := &t.levels[i]; used > p.Used {
		p.Used, p.Limit = used, limit
	}
}

func (t *backupTrack) takeSpeed(now time.Time) {
	if t.speedLen > 0 && now.Sub(t.speed[(t.speedLen-1)%speedSamples].at) < speedEvery {
		return
	}
	t.speed[t.speedLen%speedSamples] = speedSample{now, t.handed.Load()}
	t.speedLen++
}

// blocksPerSecond is how fast it was lately.
func (t *backupTrack) blocksPerSecond(now time.Time) float64 {
	if t.speedLen == 0 {
		return 0
	}
	oldest := t.speed[max(t.speedLen-speedSamples, 0)%speedSamples]
	if took := now.Sub(oldest.at).Seconds(); took > 0 {
		return float64(t.handed.Load()-oldest.blocks) / took
	}
	return 0
}

// followBackups takes a reading for the backups that are open.
func (s *Store) followBackups(now time.Time) {
	if s.live.any.Load() {
		s.live.see(now, s.levels())
	}
}

// backupStatus is how far the live backups are, in the order in which they were opened.
func (s *Store) backupStatus() []BackupStatus {
	var list []BackupStatus
	now := time.Now()
	s.live.mu.Lock()
	tracks := slices.Clone(s.live.open)
	rates := make([]float64, len(tracks))
	for i, t := range tracks {
		rates[i] = t.blocksPerSecond(now)
	}
	s.live.mu.Unlock()
	for i, t := range tracks {
		list = append(list, t.backup.status(rates[i]))
	}
	return list
}

// status never waits for Next, which may take long.
func (b *Backup) status(blocksPerSecond float64) BackupStatus {
	t, size := b.track, float64(b.s.geo.size)
	live, peaks := b.live.Stats(), b.s.cache.PeaksSince(b.peaks)
	st := BackupStatus{
		ID: b.live.ID(), Owner: b.live.Owner, Label: b.live.Label, LSN: b.info.LSN, Base: b.info.Base, Opened: b.info.Opened,
		Blocks: t.handed.Load(), HeldBytes: live.HeldBytes, PaceBytesPerSecond: t.pace.Load(),
		Rung:        (&Cost{OriginalsSpilled: b.spilled(), OverflowPeakBytes: peaks.Overflow}).Rung(),
		FellForward: b.live.FellForward(),
	}
	switch {
	case st.FellForward:
	case b.canForward:
		st.Next = RungFallForward
	default:
		st.Next = RungBreak
	}
	st.Bytes, st.BytesPerSecond = int64(float64(st.Blocks)*size), int64(blocksPerSecond*size)
	st.BlocksTotal = b.Total()
	if b.inc == nil {
		st.Share = float64(st.Blocks) / float64(max(st.BlocksTotal, 1))
	} else {
		st.Share = float64(t.looked.Load()) / float64(max(t.toLook.Load(), 1))
	}
	st.Share = min(st.Share, 1)
	return st
}

// name is what events call the backup.
func (b *Backup) name() SnapshotName {
	return SnapshotName{b.live.ID(), "backup", b.live.Owner, b.live.Label, b.live.LSN()}
}

// Total is how many blocks Next will have handed out in the end. Of an incremental that is
// an estimate, which becomes exact, and 0 before there is one. It may be called from any
// goroutine.
func (b *Backup) Total() uint64 {
	if b.inc == nil {
		return b.info.Blocks
	}
	total := b.track.total.Load()
	if total > 0 {
		total = max(total, b.track.handed.Load())
	}
	return total
}

// spilled is how many blocks went to temporary storage since it was opened.
func (b *Backup) spilled() uint64 { return uint64(b.s.cache.Stats().Spilled - b.spilledBefore) }

// met adds to a cost what the backup met on its way.
func (b *Backup) met(c *Cost) {
	l := &b.s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	c.Levels, c.Crossings, c.CrossingsLeftOut = slices.Clone(b.track.levels), slices.Clone(b.track.crossings), b.track.leftOut
}

// PaceUnlimited asks for as fast as it goes.
const PaceUnlimited = -1

// ErrNoBackup: no live backup has that number.
var ErrNoBackup = errors.New("no such live backup")

// SetPace asks a live backup, or all of them if id is 0, to be written no faster
// than so many bytes per second from now on; PaceUnlimited: as fast as it goes. The
// store only remembers it: who takes the backup asks for it with [Backup.Pace].
// ErrNoBackup if there is none.
func (s *Store) SetPace(id uint64, bytesPerSecond int64) error {
	if bytesPerSecond == 0 || bytesPerSecond < PaceUnlimited {
		return fmt.Errorf("%w: a pace of %d bytes per second", ErrOptions, bytesPerSecond)
	}
	s.live.mu.Lock()
	defer s.live.mu.Unlock()
	found := false
	for _, t := range s.live.open {
		if id == 0 || t.backup.live.ID() == id {
			t.pace.Store(bytesPerSecond)
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%w: %d", ErrNoBackup, id)
	}
	return nil
}

// Pace is what SetPace last asked this backup for; 0 if nobody did. It may be called
// from any goroutine.
func (b *Backup) Pace() (bytesPerSecond int64) { return b.track.pace.Load() }
