package mvcc

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/blockcache"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/snapshot"
	"github.com/spillwaydb/spillway/spill"
	"github.com/spillwaydb/spillway/wal"
)

// Names in a database's directory.
const (
	nameData        = "data"
	nameLog         = "log"
	nameDoublewrite = "doublewrite"
)

// Open opens the database in dir, or creates one if dir is missing or empty (or
// holds a creation that a crash cut short), unless Options.Existing says that it is
// there. It returns when everything that was ever acknowledged is there and durable.
// ErrLocked if it is open already, ErrNotDatabase, ErrVersion, or *block.CorruptError.
func Open(dir string, o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	s, err := open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return s, nil
}

func open(dir string, o Options) (*Store, error) {
	file, err := lockData(dir, &o)
	if err != nil {
		return nil, err
	}
	s, err := openLocked(dir, o, file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return s, nil
}

// lockData opens the data file and locks it: the file itself is the lock, so
// that no other name of it helps. It is created if dir is missing or empty.
func lockData(dir string, o *Options) (vfs.File, error) {
	if o.ReadOnly {
		return lockForReading(dir, o)
	}
	if err := checkPrivate(o.FS, dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, nameData)
	file, err := o.FS.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.Existing:
		err = fmt.Errorf("%w: %w", ErrNotDatabase, err)
	case errors.Is(err, fs.ErrNotExist):
		file, err = createData(dir, o)
	}
	if err != nil {
		return nil, err
	}
	return file, lockFile(file)
}

// checkPrivate refuses a directory that all users may write to, unless it is sticky:
// there nobody can rename or remove what is ours. On Windows mode bits do not say.
func checkPrivate(fsys vfs.FS, dir string) error {
	info, err := fsys.Lstat(behindLink(dir))
	if err != nil || runtime.GOOS == "windows" {
		return nil // what is not there will be ours
	}
	if mode := info.Mode(); mode.Perm()&0o002 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("%w: any user may write to it (%v): chmod o-w", ErrNotPrivate, mode)
	}
	return nil
}

// behindLink is the directory itself where dir is a link to one. Whose link that is does
// not matter: the data file was opened through it.
func behindLink(dir string) string {
	if dir == "" {
		return "."
	}
	return dir + "/."
}

// lockFile closes the file if it cannot be locked.
func lockFile(file vfs.File) error {
	err := file.Lock()
	if err == nil {
		return nil
	}
	if errors.Is(err, vfs.ErrLocked) {
		err = fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return errors.Join(err, file.Close())
}

func createData(dir string, o *Options) (vfs.File, error) {
	made := o.FS.Mkdir(dir, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return nil, made
	}
	// A directory that is there may be one whose maker was killed; but the one
	// above it need not be ours.
	if err := o.FS.SyncDir(filepath.Dir(dir)); err != nil && made == nil {
		return nil, err
	}
	entries, err := o.FS.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("%w: the directory holds %s but no file %s", ErrNotDatabase, entries[0].Name(), nameData)
	}
	file, err := o.FS.OpenFile(filepath.Join(dir, nameData), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := o.FS.SyncDir(dir); err != nil { // a directory without it is refused
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func openLocked(dir string, o Options, file vfs.File) (*Store, error) {
	sb, slot, err := readSuperblocks(file)
	if errors.Is(err, errUnfinished) {
		sb, err = createAnew(dir, o, file)
		slot = 0
	}
	if err != nil {
		return nil, err
	}
	if sb.newLog && !o.ReadOnly {
		if sb, slot, err = renewLog(dir, o.FS, file, sb, slot); err != nil {
			return nil, err
		}
	}
	s := newStore(dir, o, sb, slot)
	s.sealed = sb.newLog // nothing is in the log that is not in place
	if err := s.build(file); err != nil {
		return nil, errors.Join(append([]error{err}, s.undo()...)...)
	}
	return s, nil
}

// newStore is a store as its superblock describes it; build does the rest.
func newStore(dir string, o Options, sb superblock, slot int) *Store {
	s := &Store{opts: o, dir: dir, logger: o.Logger, now: time.Now, quit: make(chan struct{}), patient: newTurn()}
	s.anchor.writing = newTurn()
	s.state.idle = make(chan struct{})
	s.marks.init(&o)
	s.database, s.timeline, s.created, s.standby = sb.database, sb.timeline, sb.created, sb.standby
	s.geo = newGeometry(sb.blockSize)
	s.anchor.now, s.anchor.slot = sb, slot
	return s
}

// errUnfinished means that a data file never got its superblock.
var errUnfinished = errors.New("creation was not finished")

// readSuperblocks returns the sound superblock with the highest sequence.
func readSuperblocks(file vfs.File) (best superblock, slot int, err error) {
	b := make([]byte, superblockStride+superblockSize)
	n, err := file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return best, 0, fmt.Errorf("read superblock of %s: %w", file.Name(), err)
	}
	b = b[:n]
	var errs [2]error
	found := false
	for i := range 2 {
		sb, err := decodeSuperblock(b[min(n, i*superblockStride):])
		if errs[i] = err; err == nil && (!found || sb.sequence > best.sequence) {
			best, slot, found = sb, i, true
		}
	}
	if found {
		return best, slot, nil
	}
	return best, 0, noSuperblock(file, b, errs)
}

// noSuperblock says why: only zeros were never a database; a version or a
// checksum that is wrong is told as what it is.
func noSuperblock(file vfs.File, b []byte, errs [2]error) error {
	for _, err := range errs {
		if errors.Is(err, ErrVersion) {
			return fmt.Errorf("%s: %w", file.Name(), err)
		}
	}
	for i, err := range errs {
		if !errors.Is(err, errNoSuperblock) {
			return &block.CorruptError{Path: file.Name(), Offset: int64(i) * superblockStride, Block: block.NoBlock,
				Reason: "neither superblock is sound", Cause: err}
		}
	}
	for _, c := range b {
		if c != 0 {
			return fmt.Errorf("%w: %s does not begin with %q", ErrNotDatabase, file.Name(), superblockMagic)
		}
	}
	return errUnfinished
}

// createAnew creates the database in a directory where that was begun and not finished.
func createAnew(dir string, o Options, file vfs.File) (sb superblock, err error) {
	if err := neverCommitted(dir, o.FS, file); err != nil {
		return sb, err
	}
	if o.ReadOnly || o.Existing {
		return sb, fmt.Errorf("%w: %s: %w", ErrNotDatabase, file.Name(), errUnfinished)
	}
	return create(dir, o, file)
}

// neverCommitted proves that a data file without a superblock is one of a creation that
// was cut short: to begin that anew destroys what is there. A creation leaves the first
// places only, and a log without commits; where there is more, the superblocks were lost.
func neverCommitted(dir string, fsys vfs.FS, file vfs.File) error {
	lost := func(why string) error {
		return &block.CorruptError{Path: file.Name(), Block: block.NoBlock, Reason: "both superblocks are zeros, and " + why}
	}
	size, err := file.Size()
	if err != nil {
		return fmt.Errorf("size of %s: %w", file.Name(), err)
	}
	if size > reserved*block.SizeMax {
		return lost(fmt.Sprintf("the file has %d bytes", size))
	}
	committed, err := wal.Committed(fsys, filepath.Join(dir, nameLog))
	if err != nil {
		return err
	}
	if committed {
		return lost("the log has commits")
	}
	return nil
}

// create makes the files of an empty database. The superblock comes last: until
// it is there Open begins anew.
func create(dir string, o Options, file vfs.File) (sb superblock, err error) {
	if err := o.checkRAM(o.BlockSize); err != nil {
		return sb, err
	}
	now := time.Now()
	sb = superblock{
		blockSize: o.BlockSize, database: block.NewDatabaseID(), timeline: block.NewTimelineID(),
		sequence: 1, redo: 1, durableTime: now, created: now,
	}
	if err := makeFiles(dir, o.FS, sb, 0); err != nil {
		return sb, fmt.Errorf("create: %w", err)
	}
	if err := writeFirstBlocks(file, sb); err != nil {
		return sb, fmt.Errorf("create: %w", err)
	}
	return sb, publishSuperblock(dir, o.FS, file, sb)
}

// publishSuperblock makes everything else durable first.
func publishSuperblock(dir string, fsys vfs.FS, file vfs.File, sb superblock) error {
	if err := file.Sync(); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if _, err := file.WriteAt(sb.encode(), 0); err != nil {
		return fmt.Errorf("create: %w", errors.Join(err, unpublish(file)))
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	return nil
}

// unpublish takes what there is of the first superblock away, durably: half of it would
// look like damage.
func unpublish(file vfs.File) error {
	_, err := file.WriteAt(make([]byte, superblockSize), 0)
	if err != nil {
		err = errors.Join(err, file.Truncate(0)) // for which a full disk has room
	}
	return errors.Join(err, file.Sync())
}

// makeFiles makes log and double-write file, over leftovers of an unfinished
// creation.
func makeFiles(dir string, fsys vfs.FS, sb superblock, base block.LSN) error {
	if err := makeLog(dir, fsys, sb, base); err != nil {
		return err
	}
	second, err := fsys.OpenFile(filepath.Join(dir, nameDoublewrite), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	d := doublewrite{size: sb.blockSize, capacity: doublewriteCapacity(sb.blockSize)}
	// What there is may be of a database with the same id, and of a checkpoint with the same number.
	return errors.Join(second.Truncate(0), second.Allocate(0, 2*d.halfBytes()), second.Sync(), second.Close(), fsys.SyncDir(dir))
}

// makeLog makes a log without commits, whose first one will be base+1, whatever
// is there.
func makeLog(dir string, fsys vfs.FS, sb superblock, base block.LSN) error {
	logDir := filepath.Join(dir, nameLog)
	if err := fsys.Mkdir(logDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := fsys.ReadDir(logDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := fsys.Remove(filepath.Join(logDir, e.Name())); err != nil {
			return err
		}
	}
	log, err := wal.Create(wal.Options{
		FS: fsys, Dir: logDir, Database: sb.database, Timeline: sb.timeline,
		SegmentBytes: wal.SegmentBytesMin, // soon full; the next one has the size that Options ask for
		RareSyncs:    true,                // it is not worth writing twice
	}, base)
	if err != nil {
		return err
	}
	return log.Close()
}

// writeFirstBlocks writes meta block and first bitmap of an empty database.
func writeFirstBlocks(file vfs.File, sb superblock) error {
	g := newGeometry(sb.blockSize)
	seed := block.SeedOf(sb.database)
	if err := file.Allocate(0, g.offset(reserved)); err != nil {
		return err
	}
	b := make([]byte, g.size)
	m := meta{highWater: reserved}
	m.encode(block.Payload(b))
	block.Seal(b, block.Trailer{Type: block.TypeMeta, ID: metaBlock}, seed)
	if _, err := file.WriteAt(b, g.offset(metaBlock)); err != nil {
		return err
	}
	clear(b)
	initBitmap(block.Payload(b))
	block.Seal(b, block.Trailer{Type: block.TypeBitmap, ID: g.bitmapOf(0)}, seed)
	_, err := file.WriteAt(b, g.offset(g.bitmapOf(0)))
	return err
}

// build opens the parts, recovers, and starts what runs in the background.
func (s *Store) build(file vfs.File) error {
	o := &s.opts
	if err := o.checkRAM(s.geo.size); err != nil {
		return err
	}
	size, err := file.Size()
	if err != nil {
		return err
	}
	s.data = &dataFile{file: file, path: file.Name(), geo: s.geo, seed: block.SeedOf(s.database), size: size}
	s.events = newEvents(o.OnEvent, o.Logger)
	s.zeros, s.scratch = make([]byte, s.geo.size), make([]byte, s.geo.size)
	s.marking = make([]block.ID, 0, raiseBatch)
	if err := s.openCache(); err != nil {
		return err
	}
	if err := s.openDoublewrite(); err != nil {
		return err
	}
	s.cleaner = newCleaner(s)
	if err := s.recover(); err != nil {
		return err
	}
	s.startChanges(s.changesNow())
	if !o.ReadOnly {
		s.cleaner.start()
	}
	s.background.Go(s.tick)
	return nil
}

func (s *Store) openCache() error {
	o := &s.opts
	temp := o.Temp
	switch {
	case temp == nil && o.ReadOnly:
		temp = []TempDir{}
	case temp == nil:
		temp = []TempDir{{Path: behindLink(s.dir), BytesMax: 1 << 30}}
	}
	sp, err := spill.Open(spill.Options{
		Dirs: temp, BlockSize: s.geo.size, Seed: s.data.seed, Encrypt: o.EncryptTemp,
		AllowMemoryFS: o.AllowMemoryTemp || o.Temp == nil, FS: o.FS, Logger: o.Logger,
	})
	if err != nil {
		return fmt.Errorf("open temporary storage: %w", err)
	}
	s.cache, err = blockcache.Open(blockcache.Options{
		BlockSize: s.geo.size, RAMBytesMax: o.MaxRAM, OverflowBytesMax: o.OverflowMax,
		HostReserve: o.HostReserve, Host: o.host, Marks: o.Marks,
		Spill:     sp,
		Exhausted: s.exhausted,
		NeedClean: func() { s.cleaner.kick() },
	})
	if err != nil {
		return errors.Join(err, sp.Close())
	}
	s.workspace.byID, s.workspace.away = map[block.ID]int{}, s.cache.NewEntryTable()
	return nil
}

func (s *Store) openDoublewrite() error {
	if s.sealed {
		return nil
	}
	path, flag := filepath.Join(s.dir, nameDoublewrite), os.O_RDWR
	if s.opts.ReadOnly {
		flag = os.O_RDONLY
	}
	f, err := s.opts.FS.OpenFile(path, flag, 0)
	if errors.Is(err, fs.ErrNotExist) { // the superblock came last: it was there
		err = &block.CorruptError{Path: path, Offset: -1, Block: block.NoBlock, Reason: "the file of second copies is missing", Cause: err}
	}
	if err != nil {
		return err
	}
	d := &doublewrite{file: f, path: path, database: s.database, size: s.geo.size, capacity: doublewriteCapacity(s.geo.size)}
	s.second = d
	return nil
}

// undo closes what build opened before it failed; the data file is its
// caller's.
func (s *Store) undo() (errs []error) {
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	if s.second != nil {
		errs = append(errs, s.second.file.Close())
	}
	if s.cache != nil {
		errs = append(errs, s.cache.Close())
	}
	if s.events != nil {
		s.events.close()
	}
	return errs
}

// onBroken tells of a snapshot that was broken.
func (s *Store) onBroken(e *snapshot.BrokenError) {
	ev := Event{
		Kind: EventBroken, Why: string(e.Reason), Bytes: e.HeldBytes, Snapshot: e, Err: e.Cause,
		Of: SnapshotName{ID: e.ID, Kind: e.Kind, Owner: e.Owner, Label: e.Label, LSN: e.LSN},
	}
	var guard *GuardError
	switch {
	case errors.As(e.Cause, &guard):
		ev.Kind, ev.Guard = EventGuard, guard
	case e.Reason == snapshot.ReasonReleased || e.Reason == snapshot.ReasonExpired:
		ev.Kind = EventReleased
	case e.Reason == snapshot.ReasonExhausted:
		ev.Rung = RungBreak
	}
	s.emit(ev)
}
