package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spillwaydb/spillway/block"
)

func main() {
	var p plan
	flag.IntVar(&p.records, "records", 60_000, "records to load")
	flag.IntVar(&p.valueBytes, "value-bytes", 300, "size of a value")
	flag.IntVar(&p.recordsPerTx, "per-tx", 100, "records in a transaction of the load")
	flag.Int64Var(&p.logBytesMax, "max-log", 16<<20, "LogBytesMax of the database, in bytes")
	flag.IntVar(&p.updates, "updates", 4000, "transactions of one record")
	flag.IntVar(&p.reads, "reads", 100_000, "random reads")
	flag.Int64Var(&p.ramBytesMax, "max-ram", 28<<20, "MaxRAM of the database, in bytes")
	flag.StringVar(&p.dir, "dir", os.TempDir(), "where the databases are made")
	flag.Parse()
	if err := run(context.Background(), p, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run measures every size twice and prints the means.
func run(ctx context.Context, p plan, w io.Writer) error {
	sizes := blockSizes()
	results := make(map[int][]result)
	upAndDown := slices.Concat(sizes, reversed(sizes))
	for _, size := range upAndDown {
		start := time.Now()
		r, err := p.measure(ctx, size)
		if err != nil {
			return fmt.Errorf("block size %d: %w", size, err)
		}
		fmt.Fprintf(os.Stderr, "%2d KiB in %v\n", size>>10, time.Since(start).Round(time.Millisecond))
		results[size] = append(results[size], r)
	}
	fmt.Fprintf(w, "%d records, keys of %d and values of %d bytes, MaxRAM %d MiB, LogBytesMax %d MiB\n\n",
		p.records, keyBytes, p.valueBytes, p.ramBytesMax>>20, p.logBytesMax>>20)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "block\tload\twritten\tupdate\twritten\tread\tscan\tbackup\tdata file\t")
	fmt.Fprintln(t, "KiB\trecords/s\tbytes/byte\tcommits/s\tbytes/byte\treads/s\trecords/s\tMB/s\tMB\t")
	for _, size := range sizes {
		m := mean(results[size])
		fmt.Fprintf(t, "%d\t%.0f\t%.1f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t\n", size>>10,
			m.loadPerSecond, m.loadWritten, m.updatePerSecond, m.updateWritten,
			m.readPerSecond, m.scanPerSecond, m.backupBytesPerSecond/1e6, m.fileBytes/1e6)
	}
	return t.Flush()
}

func blockSizes() (sizes []int) {
	for n := block.SizeMin; n <= block.SizeMax; n *= 2 {
		sizes = append(sizes, n)
	}
	return sizes
}

func reversed(s []int) []int {
	r := slices.Clone(s)
	slices.Reverse(r)
	return r
}
