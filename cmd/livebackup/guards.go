package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/internal/human"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
)

// guardFlags are the limits beyond which a backup gives itself up.
type guardFlags struct {
	held      human.Size
	tempShare percent
	memory    human.Size
	pressure  percent
	time      human.Duration
	rate      human.Rate
}

func (g *guardFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.Var(&g.held, "max-held", "end it when it holds more of what was overwritten, like 2GB")
	f.Var(&g.tempShare, "max-temp-share", "end it when temporary storage is fuller, like 80%")
	f.Var(&g.memory, "min-host-memory", "end it when the host can give less memory, like 500MB")
	f.Var(&g.pressure, "max-pressure", "end it when all tasks wait for memory for more of the time, like 30%")
	f.Var(&g.time, "max-time", "end it when it has taken longer, like 2h")
	f.Var(&g.rate, "min-rate", "end it when the repository takes less, like 1MB/s")
}

func (g *guardFlags) guards() livebackup.Guards {
	return livebackup.Guards{
		Guards: mvcc.Guards{
			HeldMax: int64(g.held), TempShareMax: float64(g.tempShare) / 100,
			HostMemoryMin: int64(g.memory), PressureMax: float64(g.pressure),
		},
		TimeMax: time.Duration(g.time), RateMin: int64(g.rate),
	}
}

// percent is a flag value: a number from 0 to 100, with a percent sign or without.
type percent float64

func (p *percent) String() string {
	if *p == 0 {
		return "0"
	}
	return strconv.FormatFloat(float64(*p), 'g', -1, 64) + "%"
}
func (p *percent) Type() string { return "percent" }
func (p *percent) Set(text string) error {
	v, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || !(v >= 0 && v <= 100) {
		return fmt.Errorf("%q is no share from 0%% to 100%%", text)
	}
	*p = percent(v)
	return nil
}
