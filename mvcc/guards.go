package mvcc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spillwaydb/spillway/snapshot"
)

// # Guards
//
// A guard is a limit beyond which a backup is worth less than what it costs: it is
// ended, and everything else is as if there had been none. The ticker reads what the
// guards of live backups ask for, ten times a second, and breaks a backup with a
// [GuardError] as the cause at the first reading beyond a limit. So from the crossing to
// the end it takes at most a tick and what the reading is old: 400 ms for the host.
//
// A guard does not swing (T16): after it has ended a backup, none that has the guard is
// opened until its reading is back within the limit by a tenth. Nor is one opened that
// its guards would end at once.

// Guards of a backup that the store itself watches. Zero fields are none.
type Guards struct {
	HeldMax       int64   `json:"held_max,omitempty"`        // bytes of originals that the backup holds
	TempShareMax  float64 `json:"temp_share_max,omitempty"`  // of temporary storage in use, whoever uses it: above 0, to 1
	HostMemoryMin int64   `json:"host_memory_min,omitempty"` // bytes that the host can still give without swapping
	PressureMax   float64 `json:"pressure_max,omitempty"`    // percent of the last 10 s in which all tasks waited for memory
}

func (g Guards) validate() error {
	switch {
	case g.HeldMax < 0, g.HostMemoryMin < 0:
		return optionError("Guards: a number of bytes is negative")
	case !(g.TempShareMax >= 0 && g.TempShareMax <= 1):
		return optionError("Guards: TempShareMax %v is not between 0 and 1", g.TempShareMax)
	case !(g.PressureMax >= 0 && g.PressureMax <= 100):
		return optionError("Guards: PressureMax %v is not between 0 and 100", g.PressureMax)
	}
	return nil
}

// limits are the guards that are set.
func (g Guards) limits() (list []Margin) {
	for _, m := range []Margin{
		{GuardHeld, float64(g.HeldMax), 0}, {GuardTempShare, g.TempShareMax, 0},
		{GuardHostMemory, float64(g.HostMemoryMin), 0}, {GuardPressure, g.PressureMax, 0},
	} {
		if m.Limit > 0 {
			list = append(list, m)
		}
	}
	return list
}

// Margin is how near a backup came to the limit of one of its guards, in the guard's
// unit.
type Margin struct {
	Guard          Guard
	Limit, Closest float64
}

// Beyond reports whether a reading is beyond a limit.
func (g Guard) Beyond(reading, limit float64) bool {
	if g.atLeast() {
		return reading < limit
	}
	return reading > limit
}

// guardSlack is by how much of a limit a reading must be back within it, after the guard
// has ended a backup.
const guardSlack = 0.1

// eased is the limit for who wants to begin after that.
func (g Guard) eased(limit float64) float64 {
	if g.atLeast() {
		return limit * (1 + guardSlack)
	}
	return limit * (1 - guardSlack)
}

// guarding are the guards of one backup, and what they have read.
type guarding struct {
	mu      sync.Mutex
	margins []Margin
	read    bool // there was a reading
}

// see takes readings, and returns the guard whose limit they are beyond.
func (g *guarding) see(read func(Guard) (float64, error)) *GuardError {
	g.mu.Lock()
	defer g.mu.Unlock()
	var beyond *GuardError
	for i := range g.margins {
		m := &g.margins[i]
		v, err := read(m.Guard)
		if err != nil {
			continue // what the host does not tell now it tells the next time
		}
		if !g.read || m.Guard.atLeast() == (v < m.Closest) {
			m.Closest = v
		}
		if m.Guard.Beyond(v, m.Limit) && beyond == nil {
			beyond = &GuardError{m.Guard, m.Limit, v}
		}
	}
	g.read = true
	return beyond
}

// seen is how near the readings came.
func (g *guarding) seen() []Margin {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.read {
		return nil
	}
	return append([]Margin(nil), g.margins...)
}

// tripped remembers the guards that have ended backups.
type tripped struct {
	any atomic.Bool
	mu  sync.Mutex
	by  map[Guard]bool
}

func (t *tripped) add(g Guard) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[Guard]bool{}
	}
	t.by[g] = true
	t.any.Store(true)
}

// has reports whether a guard has ended a backup and did not let another begin since.
func (t *tripped) has(g Guard) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.by[g]
}

func (t *tripped) forget(g Guard) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by, g)
}

// reading is what a guard reads of the store; held is what its backup holds.
func (s *Store) reading(g Guard, held int64) (float64, error) {
	switch g {
	case GuardHeld:
		return float64(held), nil
	case GuardTempShare:
		return s.cache.TemporaryShare(), nil
	case GuardHostMemory:
		h, ok := s.cache.Host()
		if !ok {
			return 0, fmt.Errorf("memory of the host: %w", errors.ErrUnsupported)
		}
		return float64(h.Available), nil
	case GuardPressure:
		return s.opts.stalled()
	}
	return 0, fmt.Errorf("guard %s is not the store's: %w", g, errors.ErrUnsupported)
}

// admit refuses a backup whose guards would end it, or have just ended another.
func (s *Store) admit(g Guards) error {
	for _, m := range g.limits() {
		v, err := s.reading(m.Guard, 0)
		if err != nil {
			return fmt.Errorf("guard %s: %w", m.Guard, err)
		}
		limit := m.Limit
		if s.tripped.has(m.Guard) {
			limit = m.Guard.eased(limit)
		}
		if m.Guard.Beyond(v, limit) {
			return &GuardError{m.Guard, limit, v}
		}
		s.tripped.forget(m.Guard)
	}
	return nil
}

// watchGuards ends the backups whose guards have had enough.
func (s *Store) watchGuards() {
	if !s.live.any.Load() {
		return
	}
	for _, b := range s.live.backups() {
		held := b.live.Stats().HeldBytes
		err := b.guards.see(func(g Guard) (float64, error) { return s.reading(g, held) })
		if err != nil && b.live.Err() == nil {
			s.tripped.add(err.Guard)
			b.live.Break(snapshot.ReasonGuard, err)
		}
	}
}

// ErrEmergency matches every [EmergencyError].
var ErrEmergency = errors.New("the store is in emergency and takes no new backup")

// EmergencyError refuses a backup, because it would make worse what is bad already:
// the store is poisoned, which only a rescue may read from, or the host is short of
// memory. It matches ErrEmergency.
type EmergencyError struct {
	Reason string
	Cause  error // ErrPoisoned with what poisoned it, or nil
}

func (e *EmergencyError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%v: %s: %v", ErrEmergency, e.Reason, e.Cause)
	}
	return fmt.Sprintf("%v: %s", ErrEmergency, e.Reason)
}

// Unwrap yields ErrEmergency and the cause.
func (e *EmergencyError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrEmergency}
	}
	return []error{ErrEmergency, e.Cause}
}

// emergency is nil, or says why no backup is taken.
func (s *Store) emergency() error {
	if err := s.state.failure(); err != nil {
		return &EmergencyError{Reason: "only a rescue backup can be taken", Cause: err}
	}
	if h, ok := s.cache.Host(); ok && h.Available < s.opts.HostFloor {
		return &EmergencyError{Reason: fmt.Sprintf("the host can give %d MiB of memory, its floor is %d MiB", h.Available>>20, (s.opts.HostFloor+1<<20-1)>>20)}
	}
	return nil
}

// mayOpen refuses a backup that must not begin.
func (s *Store) mayOpen(ctx context.Context, o *BackupOptions) error {
	if err := errors.Join(context.Cause(ctx), o.validate()); err != nil {
		return err
	}
	if o.Rescue {
		return s.mayRescue()
	}
	if err := s.emergency(); err != nil {
		return err
	}
	return s.admit(o.Guards)
}

// mayRescue refuses a rescue of what needs none, and of what cannot give one. A rescue
// is exact at the last durable commit. In the weaker modes readers see commits that
// never became durable, and the versions before them are gone: there the state that
// counts is in the files only, and opening them again is what brings it back.
func (s *Store) mayRescue() error {
	if s.state.failure() == nil {
		return optionError("Rescue is for a store that has failed")
	}
	if v := s.log.Durable(); s.snapshots.Horizon() > v {
		return &EmergencyError{Reason: fmt.Sprintf("it acknowledged commits above LSN %v, which is durable; open it again", v), Cause: s.state.failure()}
	}
	return nil
}

// overdue breaks readers that have been open for longer than they may be; now and then
// is soon enough.
func (s *Store) overdue(now time.Time) { s.snapshots.Expire(now, s.opts.ReadAgeMax) }

// ErrNoSnapshot: no live snapshot has that number.
var ErrNoSnapshot = errors.New("no such live snapshot")

// Release ends a live snapshot for an operator: a reader or a backup, by its number in
// Status. Every use of it then returns a BrokenError with the reason that it was
// released. Readers without a name are ended together with all others that read at the
// same commit. ErrNoSnapshot.
func (s *Store) Release(id uint64) error {
	if !s.snapshots.Release(id, snapshot.ReasonReleased) {
		return fmt.Errorf("release %d: %w", id, ErrNoSnapshot)
	}
	return nil
}

// backups are those that are open.
func (l *liveBackups) backups() []*Backup {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]*Backup, 0, len(l.open))
	for _, t := range l.open {
		list = append(list, t.backup)
	}
	return list
}
