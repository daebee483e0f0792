package mvcc

import (
	"github.com/spillwaydb/spillway/blockcache"
)

// nameHeldLog is the level of log that is kept only for those who follow it
// (R14).
const nameHeldLog = "held log"

func levelOf(g blockcache.Level) Level {
	return Level{g.Name, g.Used, g.Limit, g.Peak, g.State.String()}
}

// levels are the levels as they are now.
func (s *Store) levels() []Level {
	var out []Level
	for _, g := range s.cache.Levels() {
		out = append(out, levelOf(g))
	}
	st := s.log.Stats()
	out = append(out, Level{Name: "log", Used: st.LiveBytes, Limit: st.LimitBytes, State: blockcache.LevelNormal.String()})
	return append(out, levelOf(s.heldLog.Level(nameHeldLog, st.HeldBytes, max(s.opts.LogHoldMax, 0))))
}

// watch looks at the watermarks and tells of every crossing.
func (s *Store) watch() {
	crossed := s.cache.Watch()
	if c, ok := s.heldLog.Watch(nameHeldLog, s.log.Stats().HeldBytes, max(s.opts.LogHoldMax, 0)); ok {
		crossed = append(crossed, c)
	}
	for _, c := range crossed {
		s.emit(Event{Kind: EventWatermark, Level: levelOf(c.Level), Was: c.Was.String()})
	}
}
