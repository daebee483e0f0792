package mutants

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// FuzzBug is a bug in what a fuzz target attacks. The target has to find it from its
// seeds alone, within [FuzzTimeMax]: one that cannot reaches nothing behind the first
// check of what it attacks.
type FuzzBug struct {
	Target string // in the package of the mutant
	Mutant
}

// FuzzTimeMax is how long a fuzz target may take to find the bug planted for it.
const FuzzTimeMax = time.Minute

// FuzzBugs has at least one for every fuzz target.
func FuzzBugs() []FuzzBug {
	bug := func(target, pkg, file, old, changed string) FuzzBug {
		return FuzzBug{target, Mutant{Name: pkg + "." + target, Breaks: "D11", File: file, Old: old, New: changed, Packages: []string{pkg}}}
	}
	return []FuzzBug{
		bug("FuzzVerify", "block", "block/format.go", "|| tr[6] != 0 || tr[7] != 0 {", "|| tr[6] != 0 {"),
		bug("FuzzMake", "forecast", "forecast/curve.go", "if !(v > 0) { // nor is NaN", "if v < 0 {"),
		bug("FuzzParse", "internal/hostmem", "internal/hostmem/parse_linux.go", "|| !(percent >= 0 && percent <= 100) {", "|| percent < 0 {"),
		bug("FuzzHostileBlock", "kv", "kv/node.go", "\tif end > len(n) {\n\t\treturn c, false\n\t}\n", ""),
		bug("FuzzOperations", "kv", "kv/node.go", "return uint16(key[shared]) << 8", "return uint16(key[shared])"),
		bug("FuzzManifest", "livebackup", "livebackup/format.go", "if err != nil || !bytes.Equal(again, payload) {", "if err != nil || len(again) == 0 && !bytes.Equal(again, payload) {"),
		bug("FuzzIndex", "livebackup", "livebackup/format.go", "h.runs < h.groups || h.runs > sectionRunsMax {", "h.runs > sectionRunsMax {"),
		bug("FuzzJournal", "livebackup", "livebackup/resume.go", "\t\tj.end += journalEntrySize\n\t}\n\treturn nil", "\t}\n\treturn nil"),
		bug("FuzzNames", "livebackup", "livebackup/id.go", "return id, k, number, temp, objectName(id, k, number) == name", "return id, k, number, temp, true"),
		bug("FuzzFrames", "livebackup", "livebackup/protocol.go", "if b[5]|b[6]|b[7] != 0 {", "if b[5]|b[6] != 0 {"),
		bug("FuzzServer", "livebackup", "livebackup/serveconn.go", "\tif c.quiet != nil {\n\t\tc.quiet.Release()\n\t}\n", ""),
		bug("FuzzClient", "livebackup", "livebackup/protocol.go", "|| dataHeaderSize+n*uint64(b.size+8) != uint64(length) {", "{"),
		bug("FuzzLogObject", "livebackup", "livebackup/logformat.go", "|| int(n) > len(b)-recordHeadSize || flags > 1 {", "|| flags > 1 {"),
		bug("FuzzLogNames", "livebackup", "livebackup/logobject.go", "&& o.From < o.To && o.Name() == info.Name", "&& o.From < o.To"),
		bug("FuzzLogFrame", "livebackup", "livebackup/logprotocol.go", "\tif len(rest) > 0 {", "\tif false {"),
		bug("FuzzLogClient", "livebackup", "livebackup/logprotocol.go", "if r.LSN != o.last+1 {", "if false {"),
		bug("FuzzChanges", "mvcc", "mvcc/changesformat.go", "if w.start <= newest && !w", "if !w"),
		bug("FuzzDecodeSuperblock", "mvcc", "mvcc/format.go", "if !block.ValidSize(s.blockSize) {\n\t\treturn s, fmt.Errorf(\"superblock says", "if false {\n\t\treturn s, fmt.Errorf(\"superblock says"),
		bug("FuzzDecodeDoublewrite", "mvcc", "mvcc/format.go", "if n > doublewriteMax {", "if false {"),
		bug("FuzzRedo", "mvcc", "mvcc/redo.go", "if s.skip > room-at || s.size > room-at-s.skip {", "if s.size > room-at-s.skip {"),
		bug("FuzzDiff", "mvcc", "mvcc/moves.go", "w.runs = append(w.runs, run{at: at, size: n, distance: d})", "w.runs = append(w.runs, run{at: at, size: n, distance: -d})"),
		// Not the block size: without it a size of 0 is let through here and refused
		// behind it, by what the log and the memory are made for.
		bug("FuzzOpen", "mvcc", "mvcc/format.go", "flags&^(flagStandby|flagNewLog) != 0 || n > forksMax {", "flags&^(flagStandby|flagNewLog) != 0 {"),
		bug("FuzzDecode", "spill", "spill/format.go", "if t.LSN != lsn {", "if false {"),
		bug("FuzzDecodeHeader", "wal", "wal/format.go", "> headerFlagOpen || !allZero(b[108:]) {", "> headerFlagOpen {"),
		bug("FuzzDecodeRecord", "wal", "wal/format.go", "&& allZero(b[13:16]) && allZero", "&& allZero"),
		bug("FuzzOpen", "wal", "wal/format.go", "if sum != block.Checksum(s.seed, b[4:]) {", "if false {"),
	}
}

// RunFuzz plants a bug and lets its target look for it: in what is there of seeds
// first, then with the fuzzer. The input that the fuzzer leaves is taken away again. It
// is not made smaller: a fuzzer whose time ends while it does that forgets what it found.
func RunFuzz(ctx context.Context, root string, b FuzzBug) (Result, error) {
	m := b.Mutant
	found, err := Run(ctx, root, m, Options{Args: []string{"-run", "^" + b.Target + "$"}})
	if err != nil || found.Killed {
		return found, err
	}
	took := found.Took
	inputs := filepath.Join(root, filepath.FromSlash(m.Packages[0]), "testdata", "fuzz", b.Target)
	before, _ := os.ReadDir(inputs) // none is no error
	found, err = Run(ctx, root, m, Options{Args: []string{"-run", "^$", "-fuzz", "^" + b.Target + "$", "-fuzztime", fmt.Sprint(FuzzTimeMax), "-fuzzminimizetime", "1x"}})
	found.Took += took
	found.Killed = false // a fuzzer also fails for its own deadline; only an input is a finding
	after, _ := os.ReadDir(inputs)
	for _, f := range after {
		if !slices.ContainsFunc(before, func(e os.DirEntry) bool { return e.Name() == f.Name() }) {
			found.Killed = true
			err = errors.Join(err, os.Remove(filepath.Join(inputs, f.Name())))
		}
	}
	if len(before) == 0 {
		_ = os.Remove(inputs) // if it is empty, and its parents
		_ = os.Remove(filepath.Dir(inputs))
		_ = os.Remove(filepath.Dir(filepath.Dir(inputs)))
	}
	return found, err
}
