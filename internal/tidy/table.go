package tidy

// row is one line of the table of layers: what a package may import.
type row struct {
	pkg    string   // folder; one that ends in "/..." stands for all below, too
	ours   []string // folders of ours; "*" is any
	others []string // import paths of others, or their beginnings
}

// seams are what every package above block may use, to reach files and memory, and to be
// held up by tests.
var seams = []string{"internal/vfs", "internal/hostmem", "internal/yield"}

const (
	sys        = "golang.org/x/sys/"
	btree      = "github.com/google/btree"
	ristretto  = "github.com/dgraph-io/ristretto/v2"
	humanize   = "github.com/dustin/go-humanize"
	compress   = "github.com/klauspost/compress/"
	age        = "filippo.io/age"
	cobra      = "github.com/spf13/cobra"
	bars       = "github.com/vbauerster/mpb/v8"
	terminal   = "golang.org/x/term"
	prometheus = "github.com/prometheus/client_golang/prometheus"
)

// table is the layers of the design, from the bottom. A package that has no row
// may not exist. Tests may import what they like: they are imported by nobody.
var table = []row{
	{pkg: "block"},
	{pkg: "internal/vfs/...", ours: []string{"internal/vfs"}, others: []string{sys}},
	{pkg: "internal/hostmem", others: []string{sys}},
	{pkg: "internal/simfs", ours: []string{"internal/vfs"}},
	{pkg: "internal/latency"},
	{pkg: "internal/yield"}, // nothing, without the tag invariants
	{pkg: "internal/human", others: []string{humanize}},
	{pkg: "internal/interrupt"},
	{pkg: "internal/tidy"},
	{pkg: "internal/chance"},                                       // for tests
	{pkg: "internal/blindfuzz", ours: []string{"internal/chance"}}, // for tests
	{pkg: "internal/shadow", ours: []string{"block"}},              // empty without the tag invariants
	{pkg: "spill", ours: []string{"block"}, others: []string{sys}},
	{pkg: "blockcache", ours: []string{"spill", "block", "internal/shadow"}, others: []string{ristretto, sys}},
	{pkg: "wal", ours: []string{"block"}},
	{pkg: "snapshot", ours: []string{"blockcache", "block", "internal/shadow"}, others: []string{btree}},
	{pkg: "mvcc", ours: []string{"snapshot", "wal", "blockcache", "spill", "block", "internal/shadow"}}, // spill: mvcc opens it for the cache
	{pkg: "kv", ours: []string{"mvcc", "block"}},
	{pkg: "forecast", ours: []string{"mvcc"}},
	{pkg: "livebackup", ours: []string{"forecast", "mvcc", "wal", "block"}, others: []string{compress, ristretto, sys, age}},
	{pkg: "bench", ours: []string{"kv", "livebackup", "mvcc", "block", "internal/vfs", "internal/latency", "internal/human"}, others: []string{sys}}, // mvcc: kv's options
	{pkg: "bench/load", ours: []string{"kv", "livebackup", "mvcc", "internal/latency"}},
	{pkg: "internal/prove", ours: []string{"*"}},
	{pkg: "internal/mutants", ours: []string{"internal/chance"}},
	{pkg: "internal/soak", ours: []string{"*"}},
	{pkg: "livebackup/metrics", ours: []string{"livebackup", "mvcc", "internal/watch"}, others: []string{prometheus}},
	{pkg: "livebackup/dashboard", ours: []string{"livebackup", "livebackup/metrics", "internal/watch"}, others: []string{prometheus}}, // never imported by livebackup: an embedder would carry both
	{pkg: "internal/hooks", ours: []string{"livebackup"}},
	{pkg: "internal/priority", others: []string{sys}},
	{pkg: "internal/watch", ours: []string{"forecast", "livebackup", "mvcc", "block", "internal/human"}},
	{pkg: "internal/demo", ours: []string{"*"}, others: []string{compress}},
	{pkg: "bench/peers/...", ours: []string{"*"}, others: []string{"*"}}, // a module of its own
	{pkg: "bench/blocksize", ours: []string{"*"}},
	{pkg: "bench/originals", ours: []string{"mvcc", "block"}},
	{pkg: "bench/limits", ours: []string{"*"}, others: []string{sys}},
	{pkg: "cmd/...", ours: []string{"*"}, others: []string{cobra, bars, terminal}},
	{pkg: "."}, // the example of the README
}
