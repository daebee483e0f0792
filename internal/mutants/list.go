package mutants

// Mutant is a planted bug: in File, which is named from the root of the module, Old,
// which is there exactly once, becomes New.
type Mutant struct {
	Name     string
	Breaks   string // laws, rules and guarantees
	File     string
	Old, New string
	Packages []string // whose tests should find it, the likeliest first
}

// All lists the planted bugs.
func All() []Mutant {
	var all []Mutant
	for _, list := range [][]Mutant{ofLog(), ofCheckpoint(), ofRecovery(), ofCommit(), ofSnapshots(), ofBackups(), ofRepository(), ofTrees(), ofSocket(), Strangers()} {
		all = append(all, list...)
	}
	return all
}

// no is an error that never comes: what a call that was left out returns.
const no = "error(nil)"

func ofLog() []Mutant {
	wal, mvcc := []string{"wal", "mvcc", "internal/prove"}, []string{"wal", "internal/prove", "mvcc"}
	return []Mutant{
		{"log is not synced", "L7 D1", "wal/sync.go", "if err := r.seg.file.Sync(); err != nil {", "if err := " + no + "; err != nil {", wal},
		{"acknowledged before the log is written", "L7 D1", "wal/sync.go", "err := l.flush(g, r)\n", "l.announce(r.last)\n\t\terr := l.flush(g, r)\n", wal},
		{"header of a segment is not synced", "R5", "wal/segment.go", "if err := s.file.Sync(); err != nil {\n\t\t\treturn fmt.Errorf(\"sync segment header",
			"if err := " + no + "; err != nil {\n\t\t\treturn fmt.Errorf(\"sync segment header", wal},
		{"segments have no salt", "R5", "wal/append.go", "salt: newSalt(),", "salt: salt{},", wal},
		{"a record need not follow the one before it", "R5", "wal/reader.go", "return r.lsn == due && r.prevSum == sum", "return r.lsn == due", wal},
		{"any damage is a torn tail", "R5", "wal/recover.go", "if rec.synced >= due {\n", "if rec.synced >= due && false {\n", wal},
		{"headers behind damage are not asked", "R5", "wal/recover.go", "} else if s.header.synced >= due {", "} else if false {", wal},
		{"a log that ends early is accepted", "R6", "wal/recover.go", "if need := max(s.Durable, s.Redo-1); r.cut.end < need {", "if need := s.Redo - 1; r.cut.end < need {", wal},
		{"recovery does not secure the tail", "L7 D3", "wal/recover.go", "if rec.lsn > synced || rec.lsn == synced && rec.is(flagMark) {", "if false {", wal},
		{"name of a new segment is not synced", "R5", "wal/segment.go", "if err := o.FS.SyncDir(o.Dir); err != nil {", "if err := " + no + "; err != nil {", wal},
		{"a failed sync acknowledges all the same", "L8 D6", "wal/sync.go", "if err == nil {\n\t\t\tl.announce(r.last)", "if err == nil || true {\n\t\t\tl.announce(r.last)", wal},
		{"a segment is recycled too early", "R8 D1", "wal/release.go", "n := l.neededFrom(lowest)\n\tfor", "n := min(l.neededFrom(lowest)+1, max(len(l.live)-1, 0))\n\tfor", mvcc},
		{"holders of log are not asked", "R14", "wal/release.go", "lowest = min(lowest, h.lsn)", "_ = h", wal},
		{"a record's place is not checked", "R5", "wal/format.go", "return s.tag ^ uint32(off/recordAlign)", "return s.tag", wal},
	}
}

func ofCheckpoint() []Mutant {
	mvcc := []string{"mvcc", "internal/prove"}
	return []Mutant{
		{"no second copies", "L6", "mvcc/cleaner.go", "picked{v, image, v.LSN, v.Image < s.redoStart()}", "picked{v, image, v.LSN, false}", mvcc},
		{"an image that no longer counts does for a second copy", "R8", "mvcc/cleaner.go", "v.Image < s.redoStart()}", "v.Image == 0}", mvcc},
		{"in place before the log", "L6 D1", "mvcc/cleaner.go", "if err := s.log.Sync(last); err != nil {", "if err := " + no + "; err != nil {", mvcc},
		{"a half of second copies is used again too early", "R8", "mvcc/cleaner.go", "if c.unsynced >= 2 {", "if c.unsynced >= 3 {", mvcc},
		{"second copies are not synced", "L6", "mvcc/doublewrite.go", "if err := d.file.Sync(); err != nil {", "if err := " + no + "; err != nil {", mvcc},
		{"checkpoint before the data is synced", "R8 D1", "mvcc/cleaner.go", "return c.syncData()\n", "return nil\n", mvcc},
		{"a round that fails hands its turn on to who may write", "L8 D1", "mvcc/cleaner.go", "\t\t_ = c.s.fail(err)\n\t\treturn err\n", "\t\treturn err\n", mvcc},
		{"superblock is not synced", "R8", "mvcc/checkpoint.go", "if err := settle(); err != nil {", "if err := " + no + "; err != nil {", mvcc},
		{"superblocks do not take turns", "R8", "mvcc/checkpoint.go", "return next, 1 - s.anchor.slot", "return next, s.anchor.slot", mvcc},
		{"redo starts one commit late", "R8 D1", "mvcc/cleaner.go", "s.recordCheckpoint(upTo + 1)", "s.recordCheckpoint(upTo + 2)", mvcc},
		{"originals are not secured before a block goes in place", "L4 R4", "mvcc/cleaner.go", "\ts.secured.Add(1)\n\treturn true, s.secureFromFile(l, v)", "\treturn false, nil", mvcc},
		{"in place is not cleared", "R4", "mvcc/cleaner.go", "\t\ts.cache.ClearInPlace(v)\n\t\treturn false, nil", "\t\treturn false, nil", mvcc},
		{"a tail is cut off with its originals", "R9", "mvcc/cleaner.go", "if err := s.secureTail(highWater); err != nil {", "if err := " + no + "; err != nil {", mvcc},
		{"behind a sync that failed another one succeeds", "L8 D1", "mvcc/cleaner.go", "if d.failed == nil {\n\t\td.failed", "if true {\n\t\td.failed", mvcc},
		{"a marked map block counts as clean", "R16", "mvcc/changemap.go", "\tif v.Rec != recNone {\n\t\treturn\n\t}\n", "", mvcc},
		{"a change counts from later on than it was made", "R8 D1", "mvcc/cleaner.go", "h.Rec = max(h.Rec, v.LSN+1)", "h.Rec = h.LSN + 1", mvcc},
	}
}

func ofRecovery() []Mutant {
	mvcc := []string{"mvcc", "internal/prove"}
	return []Mutant{
		{"stale second copies are accepted", "R8", "mvcc/doublewrite.go", "if seq != sequence {", "if seq == 0 {", mvcc},
		{"torn blocks are not repaired", "L6", "mvcc/recovery.go", "if err != nil && !errors.Is(err, block.ErrCorrupt) {\n\t\t\ts.second", "if err != nil {\n\t\t\ts.second", mvcc},
		{"second copies that were not read are overwritten", "R8", "mvcc/readonly.go", "case s.opts.ReadOnly || unread != nil || dirty", "case s.opts.ReadOnly || dirty", mvcc},
		{"a build keeps what a finished database left", "R8", "mvcc/builder.go", "if _, _, err := readSuperblocks(f); errors.Is(err, errUnfinished) {", "if true {", []string{"mvcc", "livebackup"}},
		{"a diff applies to any version", "R8", "mvcc/recovery.go", "if have != want {", "if have != want && false {", mvcc},
		{"redo is not idempotent", "R8", "mvcc/recovery.go", "if have >= r.lsn {", "if have > r.lsn {", mvcc},
		{"a free does not make earlier redo void", "R8", "mvcc/recovery.go", "if r.lsn < r.lastFree[e.id] {\n", "if false {\n", mvcc},
		{"what the cache shows is trusted", "R8 D3", "mvcc/recovery.go", "if v.Dirty || v.Role != blockcache.RoleHead {", "if true {", mvcc},
		{"what a void commit frees counts", "L10 R8", "mvcc/recovery.go", "if _, void := r.void[lsn]; !void {\n\t\tfor", "if _, void := r.void[lsn]; !void || true {\n\t\tfor", mvcc},
		{"a void commit counts", "L10", "mvcc/recovery.go", "if !void {", "if !void || true {", mvcc},
		{"redo leaves the changed-block map alone", "R16", "mvcc/recovery.go", "return r.mark(e)\n\t})", "return nil\n\t})", mvcc},
		{"blocks may be anywhere", "D5", "block/format.go", "if t.ID != id {", "if false {", []string{"block", "mvcc"}},
		{"blocks may be of any database", "D5", "block/format.go", "return Seed(crc32.Checksum(d[:], castagnoli))", "return 0", []string{"block", "mvcc"}},
		{"the map's floor is not asked", "R16", "mvcc/increment.go", "if floor := s.mapFloor(); base < floor {", "if floor := s.mapFloor(); base < floor && false {", []string{"mvcc", "livebackup"}},
	}
}

func ofCommit() []Mutant {
	mvcc := []string{"mvcc", "internal/prove"}
	return []Mutant{
		{"readers of a failed store take frames that nobody cleans", "L8 D6", "mvcc/read.go", "case v != nil && v.Slot() != 0 && s.state.failure() != nil:", "case false:", []string{"mvcc"}},
		{"the reserve of a cleaner that has ended is nobody's", "L8 D6", "blockcache/alloc.go", "\tc.shared.Store(true)\n", "", []string{"mvcc"}},
		{"visible before durable", "L7 D3", "mvcc/commit.go", "s.pressCleaner(int64(len(body)))", "s.advance(lsn)\n\ts.pressCleaner(int64(len(body)))", mvcc},
		{"acknowledged at once", "L7 D1", "mvcc/commit.go", "if err = s.awaitCommitted(lsn); err == nil && !began.IsZero() {", "if !began.IsZero() {", mvcc},
		{"acknowledged after a failure", "L8 D6", "mvcc/commit.go", "if err := s.state.failure(); err != nil { // no acknowledgement", "if err := " + no + "; err != nil { // no acknowledgement", mvcc},
		{"nobody waits for what it was based on", "R3", "mvcc/commit.go", "return base, s.awaitDurable(base)", "return base, nil", mvcc},
		{"versions are swept before they are durable", "R1", "mvcc/replaced.go", "q.commits[done].lsn <= horizon; done++", "q.commits[done].lsn <= horizon+1; done++", mvcc},
		{"marks are one commit low", "R16", "mvcc/changemap.go", "return s.raise(ids, t.base+1)", "return s.raise(ids, t.base)", []string{"mvcc", "livebackup"}},
		{"time steps back", "R19", "mvcc/commit.go", "if raw.UnixNano() <= s.lastTime.UnixNano() {", "if false {", mvcc},
		{"log space is not reserved", "R7 D7", "mvcc/commit.go", "if err := s.reserveLog(int64(len(w.buf))); err != nil {", "if err := " + no + "; err != nil {", mvcc},
		{"a move copies from beside", "R8", "mvcc/moves.go", "w.runs = append(w.runs, run{at: at, size: n, distance: d})", "w.runs = append(w.runs, run{at: at, size: n, distance: -d})", mvcc},
		{"the last bytes of a block are not compared", "L1 D2", "mvcc/redo.go", "for i < n && a[i] == b[i] {", "for i < n {", mvcc},
	}
}

func ofSnapshots() []Mutant {
	snap := []string{"snapshot", "mvcc"}
	return []Mutant{
		{"the tail is cut for a commit that is in no log", "L8 R9", "mvcc/cleaner.go", "if err := s.state.failure(); err != nil { // perhaps", "if err := " + no + "; err != nil { // perhaps", []string{"mvcc"}},
		{"what a free block's place holds is its newest version", "L1", "mvcc/read.go", "if err == nil && fresh && s.snapshots.EndedAfter(id, t.LSN) {", "if false {", []string{"mvcc", "internal/prove"}},
		{"a reader at the version's own LSN is not asked", "L1 L2", "snapshot/set.go", "byReader := at >= 0 && s.points[at].lsn >= v.LSN", "byReader := at >= 0 && s.points[at].lsn > v.LSN", snap},
		{"the version that was just replaced is found", "L1", "snapshot/set.go", "o.ID == id && o.Until > lsn {", "o.ID == id && o.Until >= lsn {", snap},
		{"a backup at the version's own LSN is not asked", "L1 R11", "snapshot/tally.go", "return v.LSN <= b.lsn && b.lsn < v.Until", "return v.LSN < b.lsn && b.lsn < v.Until", snap},
		{"originals of readers go with the backup", "L2", "snapshot/point.go", "if o.Flags&(isGone|isInList) != 0 || o.Wants != 0 {", "if o.Flags&isGone != 0 || o.Wants != 0 {", snap},
		{"originals of backups go with the readers", "L2", "snapshot/point.go", "if o.Flags&(isGone|isInList) != 0 || o.Wants != 0 {", "if o.Flags&(isGone|isInList) != 0 {", snap},
		{"lists of two births are freed together", "L2", "snapshot/point.go", "if born == p.born {", "if born == p.born || len(p.dead) == 1 {", snap},
		{"originals are never let go", "L2 L3", "snapshot/leaving.go", "s.change(o, func() { o.Flags &^= isInList })", "", snap},
		{"done blocks are still wanted", "L3 R10", "snapshot/backup.go", "b.carries(v.ID, v.LSN) && !b.done.has(v.ID)", "b.carries(v.ID, v.LSN)", snap},
		{"an incremental wants all", "L3 R11", "snapshot/backup.go", "return b.also == nil || lsn > b.base || b.also(id)", "return true", snap},
		{"a broken snapshot does not say so", "L10", "snapshot/point.go", "if e := r.point.broken.Load(); e != nil {", "if e := r.point.broken.Load(); e != nil && false {", snap},
		{"temporary storage is not checked", "D5 L10", "spill/format.go", "if t.LSN != lsn {", "if false {", []string{"spill", "blockcache", "mvcc"}},
		{"slots are not bound to their place", "D5", "spill/format.go", "return c.seed ^ block.Seed(slot) ^ block.Seed(slot>>32)*0x9E3779B1", "return c.seed", []string{"spill", "blockcache", "mvcc"}},
	}
}

func ofBackups() []Mutant {
	both, snap := []string{"mvcc", "livebackup"}, []string{"mvcc", "internal/prove"}
	return []Mutant{
		{"an incremental does not keep the bitmaps", "R11", "mvcc/increment.go", "return audited || id == g.bitmapOf(g.groupOf(id))", "return audited", []string{"mvcc", "internal/prove"}},
		{"an incremental is off by one", "R11 D9", "mvcc/increment.go", "return lsn > b.inc.base, nil", "return lsn > b.inc.base+1, nil", both},
		{"changed extents are off by one", "R11 D9", "mvcc/increment.go", "(!loaded || getMark(inc.extents, m.at(at)) > inc.base) {", "(!loaded || getMark(inc.extents, m.at(at)) > inc.base+1) {", both},
		{"a backup is not durable", "R6", "mvcc/backup.go", "err = s.log.Sync(live.LSN())", "err = " + no, both},
		{"an incremental goes on after a failed sync", "R16 L8", "mvcc/increment.go", "if err := s.state.failure(); err != nil {\n\t\treturn fmt.Errorf(\"%w: only a full", "if err := " + no + "; err != nil {\n\t\treturn fmt.Errorf(\"%w: only a full", both},
		{"what a free block's place holds is audited", "R12", "mvcc/fallforward.go", "if ok && b.inc != nil && lsn <= b.inc.base {", "if false {", []string{"mvcc"}},
		{"the bitmap of a group that is free is asked", "R11", "mvcc/readtx.go", "t.s.inUse(id, t.meta.highWater, ", "t.s.inUse(id, 1<<40, ", []string{"mvcc"}},
		{"an incremental leaves the bitmaps to its base", "R11 D9", "mvcc/increment.go", "if carried = r.v.LSN > b.inc.base; carried {", "if carried = r.v.LSN > b.inc.base; carried && false {", snap},
		{"a dirty block is taken from its place", "R4 D9", "mvcc/backup.go", "case v == nil:\n\t\treturn true, 0", "case v == nil || v.Role == blockcache.RoleHead && !v.Loading:\n\t\treturn true, 0", snap},
		{"an incremental does not carry what was freed since", "R11 D9", "mvcc/increment.go", "v, err := b.s.find(l, id, b.view)", "v, err := b.s.find(l, id, view{newest, b.live})", snap},
		{"what was in hand and changed before the fall is not handed out again", "R12", "mvcc/fallforward.go", "return lsn > b.info.LSN, nil", "return lsn > b.fwd.lsn, nil", snap},
		{"a restore goes on with the old timeline", "L14", "mvcc/builder.go", "if !b.standby {", "if false {", both},
		{"a restore that lacks blocks is finished", "D9", "mvcc/builder.go", "\t\terr = b.Prover.Finish()\n", "\t\terr = nil\n", both},
		{"the moment asked for is left out", "R19", "livebackup/logpoint.go", "m := &momentFinder{reached: func(p LogPoint) bool { return p.Time.After(t) }}", "m := &momentFinder{reached: func(p LogPoint) bool { return !p.Time.Before(t) }}", []string{"livebackup"}},
	}
}

func ofRepository() []Mutant {
	repo := []string{"livebackup", "internal/prove"}
	return []Mutant{
		{"objects are published before they are synced", "L12 D9", "livebackup/local.go", "if err := w.f.Sync(); err != nil {", "if err := " + no + "; err != nil {", repo},
		{"names of objects are not synced", "L12 D9", "livebackup/local.go", "return w.l.fs.SyncDir(w.l.dir)", "return nil", repo},
		{"a closed file stays locked while a program starts", "opening again", "internal/vfs/osfile.go", "\tif f.held != nil {\n\t\tsystemUnlock(f.f)\n\t}\n", "\t_ = systemUnlock\n", []string{"internal/vfs"}},
		{"an object is replaced", "L12", "livebackup/local.go", "err := w.l.fs.Link(w.l.path(w.temp), w.l.path(w.name))", "err := w.l.fs.Rename(w.l.path(w.temp), w.l.path(w.name))", repo},
		{"removals are not synced", "L12 L13", "livebackup/local.go", "if err := l.fs.SyncDir(l.dir); err != nil {", "if err := " + no + "; err != nil {", repo},
		{"bases are removed before what adds to them", "L12 D9", "livebackup/prune.go", "range slices.Backward(d.backups) {", "range slices.All(d.backups) {", repo},
		{"prune ignores what others need", "L13 D10", "livebackup/retention.go", "\t\tp.keepBases()\n", "", repo},
		{"prune ignores leases", "L13 D10", "livebackup/retention.go", "\tp.keepLeased()\n", "", repo},
		{"prune removes what was published since", "L13", "livebackup/prune.go", "now := v.plan(policy, earlier(plan.Made, time.Now().UTC()), backups)", "now := v.plan(policy, earlier(plan.Made, time.Now().UTC()), nil)", repo},
		{"in a plan of only log the backups that stay count as gone", "L13 D10", "livebackup/prune.go", "\tbackups = []BackupID{} // none is not any: see view.plan\n", "", repo},
		{"damaged backups count as generations", "L13 D10", "livebackup/retention.go", "p.sound[i] = e.Damage == nil && e.Unreadable == nil", "p.sound[i] = true", repo},
		{"a repository that is ahead is accepted", "R18", "livebackup/head.go", "if head.LSN > i.LSN {", "if head.LSN > i.LSN && false {", repo},
		{"the journal of a restore is believed whatever its plan", "D9", "livebackup/resume.go", "|| !bytes.Equal(data[:journalHeaderSize], header) {", "|| !bytes.Equal(data[:8], header[:8]) {", repo},
		{"what was cut off is gone on with for other recipients", "L12", "livebackup/rebase.go", "slices.Equal(p.Recipients, r.repo.recipients) && ", "", repo},
		{"a standby goes on with what was cut off", "R18 D9", "livebackup/rebase.go", "if r.info.RecordSum == 0 {", "if r.info.RecordSum == 0 && false {", repo},
		{"what has no checksum hides the newest state that has one", "R18", "livebackup/head.go", "r.checkHead(ctx, src, i.Timeline, h.named[i.Timeline])", "r.checkHead(ctx, src, i.Timeline, head)", repo},
		{"a base without a checksum is of any history", "R18 D9", "livebackup/increment.go", "case m.RecordSum == 0 && info.RecordSum != 0 &&", "case false && m.RecordSum == 0 && info.RecordSum != 0 &&", repo},
		{"a prune takes the newest head with it", "R18", "livebackup/prune.go", "heads, err := remove.keepHeads(ctx)", "heads, err := []mvcc.Head(nil), " + no, repo},
		{"what led to a timeline only its own record says", "L13 R18", "livebackup/timeline.go", "if i >= 0 && len(history)-i-1 > len(longest) {", "if false {", repo},
		{"an incremental is made on what its run may take back", "L13 D9", "livebackup/increment.go", "case e.making:", "case e.making && false:", repo},
		{"prune counts what its run may take back", "L13 D10", "livebackup/retention.go", ` && !p.entries[i].making`, "", repo},
		{"an incremental is made without a lease of its base", "L13", "livebackup/backup.go", "repo.leaseBase(ctx, base)", `repo.leaseMembers(ctx, "incremental backup", base, nil)`, repo},
		{"small log goes before the name of the big one is durable", "L12 R15", "livebackup/merge.go", "if err := m.repo.settle(ctx); err != nil {", "if err := " + no + "; err != nil {", repo},
		{"objects are swept before the end of their manifest is durable", "L12 D9", "livebackup/sweep.go", "if err := r.settle(ctx); err != nil {", "if err := " + no + "; err != nil {", repo},
	}
}

func ofTrees() []Mutant {
	kv := []string{"kv"}
	return []Mutant{
		{"a scan ends in its last leaf when its function changes something", "L1", "kv/iterate.go", "if s.changes != s.t.changes { // also", "if more && s.changes != s.t.changes { // also", kv},
		{"a short value is put into the bucket that its reader deleted", "L11", "kv/bucket.go", "case err == nil && t.changes != changes:", "case err == nil && k == kindOverflow && t.changes != changes:", kv},
	}
}
