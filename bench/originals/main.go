package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spillwaydb/spillway/mvcc"
)

func main() {
	blocks := flag.Int("blocks", 65536, "size of the database, in blocks of 4 KiB")
	ram := flag.Int64("max-ram", 64<<20, "MaxRAM, in bytes")
	seed := flag.Uint64("seed", 1, "seed")
	dir := flag.String("dir", "", "where the databases are made; default: the system's place for temporary files")
	flag.Parse()
	if err := table(os.Stdout, *dir, *blocks, *ram, *seed); err != nil {
		fmt.Fprintf(os.Stderr, "originals: %v\n", err)
		os.Exit(1)
	}
}

// table runs all loads and prints a line for each.
func table(w io.Writer, dir string, blocks int, ram int64, seed uint64) error {
	fmt.Fprintf(w, "# go run ./bench/originals -blocks %d -max-ram %d -seed %d\n# %s, %s\n", blocks, ram, seed, runtime.Version(), revision())
	fmt.Fprintf(w, "%-8s %5s %-7s %-5s %6s %6s %6s %6s %6s %6s %8s\n",
		"load", "a", "", "order", "all", "made", "peak", "held", "floor", "most", "hot")
	for _, l := range loads(blocks, seed) {
		r, err := runIn(dir, ram, l)
		if err != nil {
			return err
		}
		l.print(w, &r)
	}
	return nil
}

// loads are the rows of the table.
func loads(blocks int, seed uint64) (list []load) {
	l := load{blocks: blocks, seed: seed}
	for _, l.zipf = range []bool{false, true} {
		for _, l.perBlock = range []float64{0.5, 1, 2, 5, 10} {
			for _, l.fileOrder = range []bool{true, false} {
				list = append(list, l)
			}
		}
		l.perBlock, l.burst = 5, blocks/10
		for _, l.fileOrder = range []bool{true, false} {
			list = append(list, l)
		}
		l.burst = 0
	}
	return list
}

func runIn(parent string, ram int64, l load) (r result, err error) {
	dir, err := os.MkdirTemp(parent, "originals")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	return run(dir, mvcc.Options{MaxRAM: ram, Temp: []mvcc.TempDir{{Path: dir, BytesMax: 8 << 30}}}, l)
}

func (l *load) print(w io.Writer, r *result) {
	share := func(n uint64) string { return fmt.Sprintf("%.1f%%", 100*float64(n)/float64(r.blocks)) }
	name, order, bursts, most := "uniform", "hot", "", "-"
	if l.zipf {
		name = "zipf 1.0"
	}
	if l.fileOrder {
		order = "file"
	}
	if l.burst > 0 {
		bursts = "bursts"
	}
	if m := l.most(); m < 1 {
		most = fmt.Sprintf("%.1f%%", 100*m)
	}
	c := &r.cost
	fmt.Fprintf(w, "%-8s %5.1f %-7s %-5s %6s %6s %6s %6s %6s %6s %8d\n", name, l.perBlock, bursts, order,
		share(c.BlocksChanged), share(c.OriginalsMade), share(c.OriginalsPeak), share(c.OriginalsHeldPeak), share(uint64(r.floor)), most, c.BlocksHot)
}

// revision is the commit that the program was made of.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "commit unknown"
}
