package wal

import "time"

// Stats is what the log holds and has done since it was opened.
type Stats struct {
	LiveBytes  int64 // segments that recovery needs; bounded by LimitBytes
	HeldBytes  int64 // segments kept only for holders
	SpareBytes int64 // segments ready or free for use
	LimitBytes int64
	Segments   int // files

	Commits         uint64 // made durable
	Syncs           uint64 // of records; a segment switch adds two
	RecordBytes     int64  // of records of commits, appended; in segments they may take more
	WrittenBytes    int64  // to segments, headers left out
	PrewrittenBytes int64  // zeros written to new segments
	BufferWaits     uint64 // appends that found BufferBytes in flight
	SyncMax         time.Duration
}

// Stats returns a consistent picture.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.LimitBytes = l.o.LimitBytes
	s.LiveBytes = l.recoveryBytes()
	s.HeldBytes = -s.LiveBytes
	for _, seg := range l.live {
		s.HeldBytes += seg.header.size
	}
	for _, list := range [][]*segment{l.ready, l.idle} {
		for _, seg := range list {
			s.SpareBytes += seg.header.size
		}
	}
	s.Segments = len(l.slots)
	return s
}

// count records that run r was made durable. mu is held.
func (l *Log) count(r *run, took time.Duration) {
	r.seg.written = true
	l.stats.Syncs++
	l.stats.Commits += uint64(r.commits)
	l.stats.WrittenBytes += int64(r.to - r.from)
	l.perSync += (int64(r.to-r.from) - l.perSync) / syncsAveraged
	l.stats.SyncMax = max(l.stats.SyncMax, took)
}
