package mvcc

import (
	"errors"
	"testing"

	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/simfs"
)

// S3-V: MaxRAM is a share of what control group and host allow, unless it is said.
func TestMaxRAM_IsAShareOfWhatTheHostAllows(t *testing.T) {
	for _, c := range []struct {
		o                      Options
		ram, overflow, reserve int64
	}{
		{Options{}, 2 << 30, 8 << 30, 512 << 20},
		{Options{MaxRAMShare: 0.5}, 4 << 30, 8 << 30, 512 << 20},
		{Options{MaxRAM: 64 << 20}, 64 << 20, 8 << 30, 512 << 20},
		{Options{MaxRAM: 64 << 20, OverflowMax: -1}, 64 << 20, 0, 512 << 20},
		{Options{MaxRAM: 64 << 20, OverflowMax: 5, HostReserve: 7}, 64 << 20, 5, 7},
		{Options{OverflowMax: 5, HostReserve: 7}, 2 << 30, 5, 7},
	} {
		o := c.o
		o.FS = simfs.New()
		o.host = func() (blockcache.HostMemory, error) {
			return blockcache.HostMemory{Limit: 8 << 30, Available: 4 << 30}, nil
		}
		if err := o.validate(); err != nil {
			t.Fatal(err)
		}
		if o.MaxRAM != c.ram || o.OverflowMax != c.overflow || o.HostReserve != c.reserve {
			t.Errorf("%+v: MaxRAM %d, overflow %d, reserve %d", c.o, o.MaxRAM, o.OverflowMax, o.HostReserve)
		}
	}
}

// S3-V: more than there is would end the process, as it makes its tables of frames.
func TestMaxRAM_IsNoMoreThanThereIs(t *testing.T) {
	says := func() (blockcache.HostMemory, error) {
		return blockcache.HostMemory{Limit: 8 << 30, Available: 4 << 30}, nil
	}
	silent := func() (blockcache.HostMemory, error) { return blockcache.HostMemory{}, errors.ErrUnsupported }
	for _, c := range []struct {
		host   func() (blockcache.HostMemory, error)
		ram    int64
		refuse bool
	}{
		{says, 8 << 30, false},
		{says, 8<<30 + 1, true},
		{says, 1 << 62, true},
		{silent, 64 << 20, false},
		{silent, 1 << 62, true},
	} {
		s, err := Open("db", Options{FS: simfs.New(), MaxRAM: c.ram, host: c.host})
		if c.refuse != errors.Is(err, ErrOptions) {
			t.Errorf("MaxRAM %d: %v", c.ram, err)
		}
		if err == nil {
			s.Close()
		}
	}
}
