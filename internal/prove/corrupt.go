package prove

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/wal"
)

// CorruptOptions of a sweep over damage.
type CorruptOptions struct {
	Seed     uint64
	Duration time.Duration // 0: until Damages are done
	Damages  int           // how many, where Duration is 0
	Progress func(CorruptCounts)
}

// CorruptCounts are what a sweep over damage has done.
type CorruptCounts struct {
	Damages  int // that were tried
	Refused  int // opening, or opening the repository, said so
	Found    int // a read, a check or a verify said so
	Harmless int // all that could be read was right
	ByFile   map[string]int
	Elapsed  time.Duration
}

func (c CorruptCounts) String() string {
	return fmt.Sprintf("%d damages: %d refused at opening, %d found by reading, %d harmless; %v; %v",
		c.Damages, c.Refused, c.Found, c.Harmless, c.ByFile, c.Elapsed.Round(time.Second))
}

// Corrupt damages the files of a database and of a repository, one place at a time,
// and opens and reads everything: each damage is told, by an error that callers can
// tell, or what is read is right all the same. Never is a read wrong, or a panic.
//
// The database is one that the power was cut from, so that all of its log counts.
func Corrupt(ctx context.Context, o CorruptOptions) (CorruptCounts, error) {
	began := time.Now()
	c := CorruptCounts{ByFile: map[string]int{}}
	for round := o.Seed; ; round++ {
		r, err := record(ctx, Workload{Name: "backups", run: backups}, round)
		if err != nil {
			return c, err
		}
		x := &corruption{ctx: ctx, r: r, rng: rand.New(rand.NewPCG(round, 31)), counts: &c}
		for range 600 {
			if o.Duration == 0 && c.Damages >= o.Damages || o.Duration > 0 && time.Since(began) > o.Duration || ctx.Err() != nil {
				return c, context.Cause(ctx)
			}
			if err := x.one(); err != nil {
				return c, &Failure{What: "a damaged disk", Seed: round, Err: err, Disk: x.disk}
			}
			c.Elapsed = time.Since(began)
			if o.Progress != nil {
				o.Progress(c)
			}
		}
	}
}

type corruption struct {
	ctx    context.Context
	r      *recording
	rng    *rand.Rand
	counts *CorruptCounts
	disk   *simfs.FS // the damaged one, for who looks into a failure
	told   bool      // a read said so

	noRepository bool // it is not looked at
}

// one damages one file of the disk of one moment.
func (x *corruption) one() error {
	m := &x.r.moments[len(x.r.moments)/3+x.rng.IntN(len(x.r.moments)*2/3)]
	disk := m.disk.States()[1].Disk() // all of what was pending is kept
	name, what, err := x.damage(disk)
	if err != nil || name == "" {
		return err
	}
	x.disk, x.told = disk.Crash(nil, simfs.KeepAll), false
	x.counts.Damages++
	x.counts.ByFile[roleOf(name)]++
	refused, err := x.look(disk, m)
	switch {
	case err != nil:
		return fmt.Errorf("%s, %s, after event %d: %w", name, what, m.number, err)
	case refused:
		x.counts.Refused++
	case x.told:
		x.counts.Found++
	default:
		x.counts.Harmless++
	}
	return nil
}

// damage changes a file: a bit, a few bytes, a sector of zeros, a sector or block of
// another place, or the end of it.
func (x *corruption) damage(disk *simfs.FS) (name, what string, err error) {
	var files []string
	for _, n := range disk.Names() {
		if info, err := disk.Lstat(n); err == nil && !info.IsDir() && info.Size() > 0 {
			files = append(files, n)
		}
	}
	name = files[x.rng.IntN(len(files))]
	data, err := disk.Bytes(name)
	if err != nil {
		return "", "", err
	}
	at := x.rng.IntN(len(data))
	if x.rng.IntN(3) == 0 {
		at = x.rng.IntN(min(len(data), 600)) // headers
	}
	n := min([]int{1, 1, 8, 512, 4096}[x.rng.IntN(5)], len(data)-at)
	bad := append([]byte(nil), data[at:at+n]...)
	switch x.rng.IntN(5) {
	case 0:
		clear(bad)
		what = "zeros"
	case 1:
		from := x.rng.IntN(len(data) - n + 1)
		if n >= 512 {
			at, from = at/n*n, from/n*n
		}
		bad = append([]byte(nil), data[from:from+n]...)
		what = fmt.Sprintf("what is at %d", from)
	default:
		bad[0] ^= 1 << x.rng.IntN(8)
		what = "a flipped bit"
	}
	for i, b := range bad {
		if at+i < len(data) && data[at+i] != b {
			if err := disk.FlipBits(name, int64(at+i), data[at+i]^b); err != nil {
				return "", "", err
			}
		}
	}
	return name, fmt.Sprintf("%s, %d bytes at %d", what, n, at), nil
}

// look opens and reads all there is.
func (x *corruption) look(disk *simfs.FS, m *moment) (refused bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	o := x.r.o
	o.FS = disk
	s, err := mvcc.Open(dbDir, o)
	if err != nil {
		refused = true
		if err := tellsDamage(err); err != nil {
			return true, err
		}
	} else {
		err := x.read(s, m)
		_ = s.Close() // damage that it finds now is found
		if err != nil {
			return false, err
		}
	}
	return refused, x.repository(disk)
}

// read compares what an open store shows.
func (x *corruption) read(s *mvcc.Store, m *moment) error {
	r, err := s.BeginRead()
	if err != nil {
		x.told = true
		return tellsDamage(err)
	}
	defer r.Close()
	im, known := x.r.m.image(r.LSN())
	if !known {
		return fmt.Errorf("opened at LSN %v, which was never given", r.LSN())
	}
	if r.LSN() < m.acked && !x.tailOnly(r.LSN(), m) {
		return fmt.Errorf("opened at LSN %v without a word, LSN %v was acknowledged", r.LSN(), m.acked)
	}
	for _, id := range im.ids() {
		b, err := r.Block(id)
		if err != nil {
			x.told = true
			if err := tellsDamage(err); err != nil {
				return err
			}
			continue
		}
		got := contentOf(b)
		b.Release()
		if got != im.blocks[id] {
			return fmt.Errorf("block %v at LSN %v is another version, and nothing says so", id, r.LSN())
		}
	}
	res, err := s.Check(x.ctx, nil)
	if err != nil {
		x.told = true
		return tellsDamage(err)
	}
	x.told = x.told || len(res.Problems) > 0
	return nil
}

// tailOnly: rot in the very last group of the log cannot be told from a torn tail
// (R5): so much the README says. The last group may be several commits.
func (x *corruption) tailOnly(lsn block.LSN, m *moment) bool { return lsn+4 >= m.acked }

// repository lists and verifies.
func (x *corruption) repository(disk *simfs.FS) error {
	if _, err := disk.Lstat(path.Join(repoDir, "repository")); err != nil || x.noRepository {
		return nil
	}
	repo, err := livebackup.OpenRepository(x.ctx, repoDir, livebackup.RepositoryOptions{FS: disk})
	if err != nil {
		x.told = true
		return tellsDamage(err)
	}
	list, err := livebackup.List(x.ctx, repo)
	if err != nil {
		x.told = true
		return tellsDamage(err)
	}
	v := &verifier{s: &sweep{r: x.r}, rng: x.rng}
	for i := range list {
		if list[i].Damage != nil || list[i].Unreadable != nil {
			x.told = true
			continue
		}
		if _, err := livebackup.Verify(x.ctx, repo, list[i].ID, livebackup.VerifyOptions{NoRecord: true}); err != nil {
			x.told = true
			if err := tellsDamage(err); err != nil {
				return err
			}
		} else if x.rng.IntN(6) == 0 {
			if err := v.restore(x.ctx, disk, repo, livebackup.RestoreTarget{Backup: list[i].ID}, list[i].Manifest.EndLSN); err != nil {
				return fmt.Errorf("backup %v verifies, and cannot be restored: %w", list[i].ID, err)
			}
		}
	}
	return nil
}

// tellsDamage returns an error that does not say that something is damaged.
func tellsDamage(err error) error {
	for _, known := range []error{
		block.ErrCorrupt, mvcc.ErrNotDatabase, mvcc.ErrVersion, mvcc.ErrBehind, mvcc.ErrNotInUse, wal.ErrVersion, wal.ErrEndsEarly, wal.ErrForeign,
		livebackup.ErrVersion, livebackup.ErrNotRepository, livebackup.ErrForeignDatabase, livebackup.ErrChain,
	} {
		if errors.Is(err, known) {
			return nil
		}
	}
	if strings.Contains(err.Error(), "malformed redo") {
		return nil
	}
	return fmt.Errorf("an error that does not say that something is damaged: %w", err)
}
