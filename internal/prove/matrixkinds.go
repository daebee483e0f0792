package prove

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/livebackup"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/spill"
	"github.com/spillwaydb/spillway/wal"
)

// rotKinds makes one sound original of each kind of file.
func rotKinds(ctx context.Context, seed uint64) (kinds []rotKind, err error) {
	for _, make := range []func(context.Context, uint64) ([]rotKind, error){rotData, rotSpill, rotLog, rotRepair, rotRepository} {
		of, err := make(ctx, seed)
		kinds = append(kinds, of...)
		if err != nil {
			return kinds, err
		}
	}
	return kinds, nil
}

const rotBlocks = 200 // Check lists at most 256 damaged ones

// rotData: blocks of the data file, in an open store that has all of them in RAM, where
// nothing but Check reads the file. The bit is flipped in each block at once.
func rotData(ctx context.Context, seed uint64) ([]rotKind, error) {
	disk, err := newDisk()
	if err != nil {
		return nil, err
	}
	o := smallOptions(disk)
	o.MaxRAM = 8 << 20
	w := &world{ctx: ctx, rng: rand.New(rand.NewPCG(seed, 51)), fs: disk, o: o, m: newBlockModel(), cover: &Coverage{}}
	if err := inOrder(w.open, func() error { return w.grow(rotBlocks) }, w.checkpoint, w.look); err != nil {
		return nil, err
	}
	im, _ := w.m.image(w.newest())
	ids := im.ids()
	flip := func(n int) error {
		for _, id := range ids {
			if err := disk.FlipBits(dbDir+"/data", int64(id)*orderBlock+int64(n/8), 1<<(n%8)); err != nil {
				return err
			}
		}
		return nil
	}
	try := func(n int) (int, error) {
		if err := flip(n); err != nil {
			return 0, err
		}
		res, err := w.s.Check(ctx, nil)
		if err != nil {
			return 0, err
		}
		if len(res.Damaged) != len(ids) {
			return len(res.Damaged), fmt.Errorf("%d of %d blocks with a flipped bit are found", len(res.Damaged), len(ids))
		}
		return len(ids), flip(n)
	}
	return []rotKind{{"data file", orderBlock * 8, len(ids), try, w.s.Close}}, nil
}

// rotFS is a file system whose temporary files are read with a flipped bit.
type rotFS struct {
	vfs.FS
	bit *int // of each block; -1: none
}

func (r rotFS) OpenTemp(dir string) (vfs.File, error) {
	f, err := r.FS.OpenTemp(dir)
	return rotFile{f, r.bit}, err
}

type rotFile struct {
	vfs.File
	bit *int
}

func (f rotFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if at := *f.bit / 8; *f.bit >= 0 {
		for b := 0; b+at < n; b += orderBlock {
			p[b+at] ^= 1 << (*f.bit % 8)
		}
	}
	return n, err
}

// rotSpill: slots of temporary storage, in clear and encrypted.
func rotSpill(_ context.Context, seed uint64) (kinds []rotKind, err error) {
	const slots = 64
	for _, encrypt := range []bool{false, true} {
		disk, err := newDisk()
		if err != nil {
			return nil, err
		}
		bit := new(int)
		*bit = -1
		s, err := spill.Open(spill.Options{
			Dirs: []spill.Dir{{Path: dbDir, BytesMax: 1 << 20}}, BlockSize: orderBlock, Seed: block.Seed(seed), Encrypt: encrypt, FS: rotFS{disk, bit},
		})
		if err != nil {
			return nil, err
		}
		rng := rand.New(rand.NewPCG(seed, 52))
		items, places := make([]spill.Item, slots), make([]spill.Slot, slots)
		for i := range items {
			b := make([]byte, orderBlock)
			for at := range b {
				b[at] = byte(rng.Uint32())
			}
			items[i] = spill.Item{ID: block.ID(i + 3), LSN: block.LSN(i%5 + 1), Data: b}
			block.Seal(b, block.Trailer{Type: block.TypeLeaf, ID: items[i].ID, LSN: items[i].LSN}, block.Seed(seed))
		}
		if _, err := s.Write(items, places); err != nil {
			return nil, err
		}
		got := make([]byte, orderBlock)
		try := func(n int) (told int, err error) {
			*bit = n
			for i, it := range items {
				if err := s.Read(places[i], it.ID, it.LSN, got); errors.Is(err, block.ErrCorrupt) {
					told++
				} else if err != nil {
					return told, err
				} else if err := sameBytes("a slot", got, it.Data); err != nil {
					return told, err
				}
			}
			return told, nil
		}
		if told, err := try(-1); told > 0 || err != nil {
			return nil, errors.Join(errNotDamaged, err)
		}
		name := map[bool]string{false: "temporary storage", true: "encrypted temporary storage"}[encrypt]
		kinds = append(kinds, rotKind{name, orderBlock * 8, slots, try, s.Close})
	}
	return kinds, nil
}

// rotCommits is how many commits a log has that is to be damaged.
const rotCommits = 60

// rotLog: a log that was closed in good order, of which all commits have to be there,
// and one that the power was cut from, of which the last group cannot be told from a
// torn tail (R5).
func rotLog(_ context.Context, seed uint64) (kinds []rotKind, err error) {
	for _, closed := range []bool{true, false} {
		disk := simfs.New()
		const dir = "/log"
		if err := errors.Join(disk.Mkdir(dir, 0o700), disk.SyncDir("/")); err != nil {
			return nil, err
		}
		o := wal.Options{FS: disk, Dir: dir, SegmentBytes: wal.SegmentBytesMin, LimitBytes: 16 * wal.SegmentBytesMin}
		o.Database[0], o.Timeline[0] = 1, 2
		sound, bodies, err := writeLog(disk, o, rand.New(rand.NewPCG(seed, 53)), closed)
		if err != nil {
			return nil, err
		}
		r := rotLogs{o: o, sound: sound, bodies: bodies, least: rotCommits}
		name := "log, closed"
		if !closed {
			name, r.least = "log, cut off", rotCommits-1
		}
		for _, f := range sound.Names() {
			if b, err := sound.Bytes(f); err == nil {
				r.add(f, 0, len(b))
			}
		}
		if told, err := r.try(-1); told > 0 || err != nil {
			return nil, errors.Join(errNotDamaged, err)
		}
		kinds = append(kinds, rotKind{name, r.bits, 1, r.try, nil})
	}
	return kinds, nil
}

// writeLog makes a log of some segments, and closes it or cuts the power.
func writeLog(disk *simfs.FS, o wal.Options, rng *rand.Rand, closed bool) (sound *simfs.FS, bodies [][]byte, err error) {
	l, err := wal.Create(o, 0)
	if err != nil {
		return nil, nil, err
	}
	for lsn := block.LSN(1); lsn <= rotCommits; lsn++ {
		body := make([]byte, 1+rng.IntN(6000))
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		if err := errors.Join(l.Reserve(int64(len(body))), l.Append(lsn, body, true), l.Sync(lsn)); err != nil {
			return nil, nil, errors.Join(err, l.Close())
		}
		bodies = append(bodies, body)
	}
	sound = disk.Crash(nil, simfs.DropAll)
	err = l.Close()
	if closed {
		sound = disk.Crash(nil, simfs.DropAll)
	}
	return sound, bodies, err
}

// rotPlaces are parts of files of a disk whose bits are counted through.
type rotPlaces struct {
	parts []rotPart
	bits  int
}

type rotPart struct {
	file string
	off  int64
	end  int // bits of all parts up to and with this one
}

func (r *rotPlaces) add(file string, off int64, bytes int) {
	if bytes > 0 {
		r.bits += bytes * 8
		r.parts = append(r.parts, rotPart{file, off, r.bits})
	}
}

// flip makes a disk with bit n flipped; -1: none.
func (r *rotPlaces) flip(sound *simfs.FS, n int) (*simfs.FS, error) {
	disk := sound.Crash(nil, simfs.KeepAll)
	begin := 0
	for _, p := range r.parts {
		if begin <= n && n < p.end {
			at := n - begin
			return disk, disk.FlipBits(p.file, p.off+int64(at/8), 1<<(at%8))
		}
		begin = p.end
	}
	return disk, nil
}

type rotLogs struct {
	rotPlaces
	o      wal.Options
	sound  *simfs.FS
	bodies [][]byte
	least  block.LSN // commits that have to be there where nothing is said
}

func (r *rotLogs) try(n int) (told int, err error) {
	o := r.o
	disk, err := r.flip(r.sound, n)
	if err != nil {
		return 0, err
	}
	o.FS = disk
	l, err := wal.Open(o, wal.Start{Redo: 1})
	if err != nil {
		return 1, tellsDamage(err)
	}
	defer l.Close()
	var end block.LSN
	err = l.Replay(1, func(lsn block.LSN, body []byte, last bool) error {
		if end = lsn; int(lsn) > len(r.bodies) || !last {
			return fmt.Errorf("commit %v was never made", lsn)
		}
		return sameBytes(fmt.Sprintf("commit %v", lsn), body, r.bodies[lsn-1])
	})
	if err == nil && end < r.least {
		err = fmt.Errorf("the log ends at LSN %v without a word, LSN %v was synced", end, r.least)
	}
	return 0, err
}

// rotRepair: what opening a database reads: superblocks, and second copies where a
// block is torn that needs its own.
func rotRepair(ctx context.Context, seed uint64) ([]rotKind, error) {
	r, err := record(ctx, Workload{Name: "backups", run: backups}, seed)
	if err != nil {
		return nil, err
	}
	m, torn, err := tornBlock(r)
	if err != nil {
		return nil, err
	}
	open := func(sound *simfs.FS, p *rotPlaces) func(int) (int, error) {
		return func(n int) (int, error) {
			disk, err := p.flip(sound, n)
			if err != nil {
				return 0, err
			}
			counts := &CorruptCounts{}
			x := &corruption{ctx: ctx, r: r, rng: rand.New(rand.NewPCG(seed, uint64(n))), counts: counts, noRepository: true}
			refused, err := x.look(disk, m)
			if refused || x.told {
				return 1, err
			}
			return 0, err
		}
	}
	second, err := secondCopies(torn, block.ID(m.event.Off/orderBlock))
	if err != nil {
		return nil, err
	}
	var super rotPlaces
	super.add(dbDir+"/data", 0, 2*superblockStride)
	kinds := []rotKind{
		{"second copies", second.bits, 1, open(torn, &second), nil},
		{"superblocks", super.bits, 1, open(m.disk.States()[1].Disk(), &super), nil},
	}
	for _, k := range kinds {
		if told, err := k.try(-1); told > 0 || err != nil {
			return nil, errors.Join(errNotDamaged, err)
		}
	}
	return kinds, nil
}

// secondCopies finds what of the double-write file has to do with a block: the headers
// that list it, and its images.
func secondCopies(disk *simfs.FS, id block.ID) (places rotPlaces, err error) {
	const file, header = dbDir + "/doublewrite", 8192
	b, err := disk.Bytes(file)
	for at := 0; at+header < len(b); at += orderBlock {
		if string(b[at:at+8]) != "SPILLDBW" {
			continue
		}
		for i := range int(binary.LittleEndian.Uint32(b[at+12:])) {
			if block.ID(binary.LittleEndian.Uint64(b[at+40+16*i:])) == id {
				places.add(file, int64(at), header)
				places.add(file, int64(at+header+i*orderBlock), orderBlock)
			}
		}
	}
	return places, err
}

// tornBlock finds a moment at which a block was being written in place, and makes the
// disk that a cut there leaves if half of it is lost: only its second copy helps.
func tornBlock(r *recording) (*moment, *simfs.FS, error) {
	for i := len(r.moments) - 1; i > 0; i-- {
		m := &r.moments[i]
		if m.event.File != dbDir+"/data" || m.event.Op != simfs.OpWrite || m.event.Off < 2*superblockStride || m.event.Err != nil {
			continue
		}
		disk := m.disk.States()[1].Disk()
		half := m.event.Off + orderBlock/2
		for off := half; off < half+512; off++ {
			if err := disk.FlipBits(dbDir+"/data", off, 0xff); err != nil {
				return nil, nil, err
			}
		}
		copies, err := secondCopies(disk, block.ID(m.event.Off/orderBlock))
		if err != nil {
			return nil, nil, err
		}
		without := disk.Crash(nil, simfs.KeepAll)
		for _, p := range copies.parts {
			if err := without.FlipBits(p.file, p.off, 1); err != nil {
				return nil, nil, err
			}
		}
		if copies.bits > 0 && opens(r, disk) && !opens(r, without) {
			return m, disk, nil
		}
	}
	return nil, nil, errors.New("no block in place needed its second copy")
}

// opens reports whether a copy of a disk can be opened.
func opens(r *recording, disk *simfs.FS) bool {
	o := r.o
	o.FS = disk.Crash(nil, simfs.KeepAll)
	s, err := mvcc.Open(dbDir, o)
	if err == nil {
		_ = s.Close()
	}
	return err == nil
}

// rotRepository: the objects of a full backup, an incremental and archived log, and
// what a repository has beside them. All is listed, verified and planned; where nothing
// is said of damage, all is restored and compared.
func rotRepository(ctx context.Context, seed uint64) ([]rotKind, error) {
	disk, err := newDisk()
	if err != nil {
		return nil, err
	}
	o := smallOptions(disk)
	w := &world{ctx: ctx, rng: rand.New(rand.NewPCG(seed, 54)), fs: disk, o: o, m: newBlockModel(), cover: &Coverage{}}
	err = inOrder(w.open, func() error { return w.grow(12) },
		func() error { return w.backup(livebackup.BackupOptions{}) },
		func() error { return w.commits(2, 4, 12) },
		func() error { return w.backup(livebackup.BackupOptions{Type: livebackup.TypeIncremental}) },
		func() error { return w.archiveBeside(func() error { return w.commits(3, 4, 12) }) },
		w.proofs, func() error { return w.s.Close() })
	if err != nil {
		return nil, err
	}
	r := &rotRepo{ctx: ctx, w: w, sound: disk.Crash(nil, simfs.KeepAll)}
	byKind := map[string]*rotPlaces{}
	var names []string
	for _, f := range r.sound.Names() {
		b, err := r.sound.Bytes(f)
		if path.Dir(f) != repoDir || err != nil {
			continue
		}
		name := kindOfObject(path.Base(f))
		if byKind[name] == nil {
			byKind[name] = &rotPlaces{}
			names = append(names, name)
		}
		byKind[name].add(f, 0, len(b))
	}
	if told, err := r.look(r.sound.Crash(nil, simfs.KeepAll)); told || err != nil {
		return nil, errors.Join(errNotDamaged, err)
	}
	var kinds []rotKind
	for _, name := range names {
		places := byKind[name]
		kinds = append(kinds, rotKind{"repository: " + name, places.bits, 1, func(n int) (int, error) {
			disk, err := places.flip(r.sound, n)
			if err != nil {
				return 0, err
			}
			told, err := r.look(disk)
			if told {
				return 1, err
			}
			return 0, err
		}, nil})
	}
	return kinds, nil
}

// kindOfObject says what an object is, by its name.
func kindOfObject(name string) string {
	switch _, kind, _ := strings.Cut(name, "."); {
	case strings.HasPrefix(name, "timeline-"):
		return "registry"
	case strings.HasPrefix(name, "log-"):
		return "archived log"
	case strings.HasPrefix(kind, "blocks-"):
		return "blocks"
	case strings.HasPrefix(kind, "index-"):
		return "index"
	case kind == "manifest":
		return kind
	case strings.HasPrefix(kind, "proof-"):
		return "proofs"
	default:
		return "headers"
	}
}

// proofs has every backup read back, and that noted.
func (w *world) proofs() error {
	for _, b := range w.backups {
		if _, err := livebackup.Verify(w.ctx, w.repo, b.id, livebackup.VerifyOptions{}); err != nil {
			return err
		}
	}
	return nil
}

type rotRepo struct {
	ctx   context.Context
	w     *world
	sound *simfs.FS
}

// look reads all that a repository has.
func (r *rotRepo) look(disk *simfs.FS) (told bool, err error) {
	repo, err := livebackup.OpenRepository(r.ctx, repoDir, livebackup.RepositoryOptions{FS: disk})
	if err != nil {
		return true, tellsDamage(err)
	}
	list, err := livebackup.List(r.ctx, repo)
	if err != nil {
		return true, tellsDamage(err)
	}
	if len(list) != 2 {
		told = true
	}
	for i := range list {
		if list[i].Damage != nil || list[i].Unreadable != nil {
			return true, nil
		}
		if _, err := livebackup.Verify(r.ctx, repo, list[i].ID, livebackup.VerifyOptions{NoRecord: true}); err != nil {
			return true, tellsDamage(err)
		}
	}
	return r.restore(disk, repo, told)
}

// restore restores the newest state and compares it.
func (r *rotRepo) restore(disk *simfs.FS, repo *livebackup.Repository, told bool) (bool, error) {
	const target = "/restored"
	o := r.w.o
	res, err := livebackup.Restore(r.ctx, repo, livebackup.RestoreTarget{}, target, livebackup.RestoreOptions{FS: disk, MaxRAM: o.MaxRAM})
	if err != nil {
		if _, there := disk.Lstat(target); !errors.Is(there, fs.ErrNotExist) {
			return true, fmt.Errorf("a restore fails and leaves its target: %w", err)
		}
		return true, tellsDamage(err)
	}
	newest := r.w.newest()
	switch {
	case res.Lost != nil || len(res.Passed) > 0:
		told = true
	case res.LSN != newest && !told:
		return false, fmt.Errorf("restored is LSN %v without a word, LSN %v was archived", res.LSN, newest)
	}
	o.FS, o.Temp = disk, nil
	s, err := mvcc.Open(target, o)
	if err != nil {
		return told, fmt.Errorf("what was restored is refused: %w", err)
	}
	defer s.Close()
	tx, err := s.BeginRead()
	if err != nil {
		return told, err
	}
	defer tx.Close()
	if tx.LSN() != res.LSN {
		return told, fmt.Errorf("what was restored is at LSN %v, LSN %v was said", tx.LSN(), res.LSN)
	}
	_, err = r.w.m.compare(s, tx)
	return told, err
}
