package prove

import (
	"fmt"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// Coverage counts what a workload reached. A workload that does not reach all of it
// proves less than it seems to: [Coverage.Missing].
type Coverage struct {
	Checkpoints atomic.Int64 // superblocks written after the first
	Recycled    atomic.Int64 // uses of a log segment's file after its first
	Freed       atomic.Int64 // commits after which fewer blocks were in use
	Reused      atomic.Int64 // commits that took blocks without raising the high-water mark
	Spilled     atomic.Int64 // writes to temporary storage
	Backups     atomic.Int64 // manifests published
	InPlace     atomic.Int64 // writes of blocks in place
	SecondCopy  atomic.Int64 // writes of second copies

	mu        sync.Mutex
	segments  map[string]bool // files of the log that were used
	highWater uint64
	inUse     uint64
}

// note takes an event of the disk in.
func (c *Coverage) note(ev simfs.Event) {
	if ev.Err != nil {
		return
	}
	base := path.Base(ev.File)
	switch {
	case ev.Op == simfs.OpLink && strings.HasSuffix(ev.To, ".manifest"):
		c.Backups.Add(1)
	case ev.Op != simfs.OpWrite:
	case ev.File == dbDir+"/data" && ev.Off < 2*superblockStride:
		c.Checkpoints.Add(1)
	case ev.File == dbDir+"/data":
		c.InPlace.Add(1)
	case ev.File == dbDir+"/doublewrite":
		c.SecondCopy.Add(1)
	case base == "(temporary)":
		c.Spilled.Add(1)
	case strings.HasSuffix(base, ".wal") && ev.Off == 0:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.segments == nil {
			c.segments = make(map[string]bool)
		}
		if c.segments[base] {
			c.Recycled.Add(1)
		}
		c.segments[base] = true
	}
}

// superblockStride is the distance of the two superblocks: see package mvcc's format.
const superblockStride = 4096

// look takes in how many blocks are in use after a commit.
func (c *Coverage) look(s *mvcc.Store) {
	st := s.Status()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case st.AllocatedBlocks < c.inUse:
		c.Freed.Add(1)
	case st.AllocatedBlocks > c.inUse && uint64(st.HighWater) <= c.highWater:
		c.Reused.Add(1)
	}
	c.inUse, c.highWater = st.AllocatedBlocks, max(c.highWater, uint64(st.HighWater))
}

// Missing names what was not reached.
func (c *Coverage) Missing() (names []string) {
	for _, x := range []struct {
		name string
		n    *atomic.Int64
		want int64
	}{
		{"checkpoints", &c.Checkpoints, 3}, {"recycled log segments", &c.Recycled, 1}, {"freed blocks", &c.Freed, 1},
		{"reused blocks", &c.Reused, 1}, {"spilled blocks", &c.Spilled, 1}, {"backups", &c.Backups, 1},
		{"writes in place", &c.InPlace, 1}, {"second copies", &c.SecondCopy, 1},
	} {
		if x.n.Load() < x.want {
			names = append(names, x.name)
		}
	}
	return names
}

func (c *Coverage) String() string {
	return fmt.Sprintf("%d checkpoints, %d segments recycled, %d frees, %d reuses, %d spills, %d backups, %d writes in place, %d of second copies",
		c.Checkpoints.Load(), c.Recycled.Load(), c.Freed.Load(), c.Reused.Load(), c.Spilled.Load(), c.Backups.Load(), c.InPlace.Load(), c.SecondCopy.Load())
}
