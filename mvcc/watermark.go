package mvcc

import (
	"github.com/spillwaydb/spillway/blockcache"
)

// levels are the levels as they are now.
func (s *Store) levels() []Level {
	var out []Level
	for _, g := range s.cache.Levels() {
		out = append(out, Level{g.Name, g.Used, g.Limit, g.Peak, g.State.String()})
	}
	st := s.log.Stats()
	out = append(out, Level{Name: "log", Used: st.LiveBytes, Limit: st.LimitBytes, State: blockcache.LevelNormal.String()})
	return out
}

// watch looks at the watermarks and tells of every crossing.
func (s *Store) watch() {
	for _, c := range s.cache.Watch() {
		l := Level{c.Level.Name, c.Level.Used, c.Level.Limit, c.Level.Peak, c.Level.State.String()}
		s.log2.Warn("watermark crossed", "level", l.Name, "state", l.State, "was", c.Was.String(), "used", l.Used, "limit", l.Limit)
		s.events.send(Event{Kind: EventWatermark, Level: l, Was: c.Was.String(), LSN: s.newestLSN()})
	}
}
