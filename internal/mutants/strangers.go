package mutants

// The planted bugs of a stranger: written from the design, the protocol and the product
// alone, by someone who had read no test. What the tests find of these says how much
// they prove of the rest; docs/trust.md has how many that were at the first run.

// Strangers are those of [All] that are a stranger's.
func Strangers() []Mutant {
	var all []Mutant
	for _, list := range [][]Mutant{
		strangeLog(), strangeRecovery(), strangeCheckpoint(), strangeMap(), strangeVersions(), strangeCache(),
		strangeSpill(), strangeBackups(), strangeTimelines(), strangeRetention(), strangeArchive(), strangeRuns(),
		strangeTrees(), strangeLimits(),
	} {
		all = append(all, list...)
	}
	return all
}

func strangeLog() []Mutant {
	wal := []string{"wal", "mvcc", "internal/prove"}
	return []Mutant{
		{"copies of a segment's header are written before one is synced", "R5", "wal/segment.go",
			"\t\tif err := s.file.Sync(); err != nil {\n\t\t\treturn fmt.Errorf(\"sync segment header",
			"\t\tif off == 0 {\n\t\t\tcontinue\n\t\t}\n\t\tif err := s.file.Sync(); err != nil {\n\t\t\treturn fmt.Errorf(\"sync segment header", wal},
		{"what was appended counts as claimed: no mark is written", "R5", "wal/append.go",
			"l.lsn, l.claimed, l.ended = lsn, v, flags&flagEnd != 0", "l.lsn, l.claimed, l.ended = lsn, lsn, flags&flagEnd != 0", wal},
		{"a group may leave out what the last sync achieved", "R5", "wal/sync.go",
			"if len(l.active.runs) > 0 && l.claimed < l.Durable() {", "if len(l.active.runs) > 0 && l.claimed+1 < l.Durable() {", wal},
		{"a mark behind the last claim is not secured", "R5 D3", "wal/recover.go",
			"\t\tif s.last < synced {\n\t\t\tcontinue", "\t\tif s.last <= synced {\n\t\t\tcontinue", wal},
		{"a segment goes before its successor is on disk", "R5", "wal/spare.go",
			"l.live[i+1].first() <= lsn && l.live[i+1].written {", "l.live[i+1].first() <= lsn {", wal},
		{"a cursor passes a commit that its reader did not take", "R15", "wal/cursor.go",
			"\t\tif err := fn(r.lsn, r.body, last); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tbytes",
			"\t\tif err := fn(r.lsn, r.body, last); err != nil {\n\t\t\tif last {\n\t\t\t\tc.next, c.sum, c.seg, c.off = r.lsn+1, r.sum, p.seg, p.off\n\t\t\t}\n\t\t\treturn err\n\t\t}\n\t\tbytes", wal},
		{"the holder that wants least is broken, not the one that wants most", "R14", "wal/release.go",
			"h := slices.MinFunc(l.holders,", "h := slices.MaxFunc(l.holders,", wal},
		{"a release takes the spares that a commit has reserved", "R7", "wal/release.go",
			"for len(l.ready) > max(1, l.reserved) {", "for len(l.ready) > 1 {", wal},
	}
}

func strangeRecovery() []Mutant {
	mvcc := []string{"mvcc", "internal/prove"}
	return []Mutant{
		{"a block that redo finds in place counts as logged whole", "L6 R8", "mvcc/recovery.go",
			"r.mistrust(b.v, 0)", "r.mistrust(b.v, r.lsn)", mvcc},
		{"the superblock that is relied on is not made durable", "R8 D3", "mvcc/recovery.go",
			"\tif err := s.writeSuperblock(&s.anchor.now, s.anchor.slot); err != nil {\n\t\treturn err\n\t}\n\treturn s.opts.FS.SyncDir(s.dir)",
			"\treturn s.opts.FS.SyncDir(s.dir)", mvcc},
		{"a damaged block that the log makes whole keeps the store from opening", "R8", "mvcc/recovery.go",
			"\tdelete(r.bad, e.id)\n", "", mvcc},
		{"a block that its second copy equals is not written again", "L8 D6", "mvcc/recovery.go",
			"\t\t\tif second, _ := block.Verify(image, id, s.data.seed); second.LSN != t.LSN {\n\t\t\t\treturn nil\n\t\t\t}\n\t\t\tagain++\n",
			"\t\t\t_ = t.LSN\n\t\t\treturn nil\n", mvcc},
		{"the time of commits may step back over an opening", "R19", "mvcc/recovery.go",
			"bad: map[block.ID]error{}, at: a.durableTime}", "bad: map[block.ID]error{}}", mvcc},
		{"the log is made anew before the superblock that asks for it is there", "L14", "mvcc/promote.go",
			"\tif err := writeSuperblock(file, &sb, slot); err != nil {\n\t\treturn sb, slot, err\n\t}\n\tif err := makeLog",
			"\tif err := makeLog", []string{"mvcc", "livebackup", "internal/prove"}},
	}
}

func strangeCheckpoint() []Mutant {
	mvcc := []string{"mvcc", "internal/prove"}
	return []Mutant{
		{"a block that is written while it changes forgets the change between", "R8", "mvcc/cleaner.go",
			"h.Rec = max(h.Rec, v.LSN+1)", "h.Rec = max(h.Rec, h.LSN)", mvcc},
		{"a hot block's first change is forgotten with its second", "R8", "mvcc/commit.go",
			"v.Rec, h.Dirty = h.Rec, false", "h.Dirty = false", mvcc},
		{"a weaker mode's checkpoint passes a free that is not durable", "R9", "mvcc/cleaner.go",
			"\tif s.opts.Durability != DurableCommit {\n\t\tif err := s.log.Sync(s.log.End()); err != nil {", "\tif false {\n\t\tif err := s.log.Sync(s.log.End()); err != nil {", mvcc},
		{"the cleaner does not wait for a commit that is on its way into the log", "L6 L8", "mvcc/cleaner.go",
			"\ts.awaitAppended(last)\n\tif err := s.log.Sync(last)", "\tif err := s.log.Sync(last)", mvcc},
		{"a superblock between checkpoints voids the second copies", "R8", "mvcc/checkpoint.go",
			"\tnext.amends++\n", "", mvcc},
		{"a tail is cut off before the free of it is durable", "R9", "mvcc/cleaner.go",
			"\tif err := s.log.Sync(s.log.End()); err != nil {\n\t\treturn err\n\t}\n\ts.advance(s.newestLSN())", "\ts.advance(s.newestLSN())", mvcc},
		{"who follows the log is forgotten when the store is closed", "R14", "mvcc/checkpoint.go",
			"next.keep = s.followedFrom(redo)", "next.keep = 0", mvcc},
	}
}

func strangeMap() []Mutant {
	mvcc := []string{"mvcc", "livebackup", "internal/prove"}
	return []Mutant{
		{"a map block that is made anew misses the commit that is being prepared", "R16", "mvcc/changemap.go",
			"all := s.newestLSN() + 1", "all := s.newestLSN()", mvcc},
		{"a base one below the map's floor is taken", "R16", "mvcc/increment.go",
			"if floor := s.mapFloor(); base < floor {", "if floor := s.mapFloor(); base+1 < floor {", mvcc},
		{"that the map was found wrong is not made durable", "R16", "mvcc/checkpoint.go",
			"&& !higher && ", "&& (!higher || true) && ", mvcc},
		{"a standby raises no marks", "R16 R20", "mvcc/apply.go",
			"\tif err := t.raiseMarks(); err != nil {\n\t\treturn err\n\t}\n", "", mvcc},
	}
}

func strangeVersions() []Mutant {
	prove, snapshot := []string{"mvcc", "internal/prove"}, []string{"snapshot", "mvcc", "internal/prove"}
	return []Mutant{
		{"a free is forgotten when an earlier version of the block is swept", "R1 R9", "mvcc/replaced.go",
			"case h.Freed && h.LSN == r.until:", "case h.Freed:", prove},
		{"the place of a backup is given away before its originals have gone", "L2 R11", "snapshot/leaving.go",
			"if b.ended() && b.queue.Len() == 0 && b.set.backups[b.bit] == b {", "if b.ended() && b.set.backups[b.bit] == b {", snapshot},
		{"a page of blocks counts as done when the scan comes to it", "L1 R10", "snapshot/done.go",
			"for d.run < uint64(id)/donePageBits {", "for d.run <= uint64(id)/donePageBits {", snapshot},
		{"bytes that a snapshot takes over from another are not counted", "R13", "snapshot/original.go",
			"\tl.held += m.held\n", "", snapshot},
		{"a snapshot that does not want an unreadable original is broken with it", "L10", "snapshot/victim.go",
			"s.points[at].lsn < until && !s.points[at].horizon;", "s.points[at].lsn <= until && !s.points[at].horizon;", snapshot},
		{"the age that all may have overrides a snapshot's own", "R13", "snapshot/lease.go",
			"if lease == 0 {", "if lease == 0 || most > 0 {", snapshot},
		{"blocks of a transaction that was rolled back are not used again", "L11", "mvcc/writetx.go",
			"\t\ts.cache.Kill(p.v)\n\t\ts.allocHint(p.v.ID)\n", "\t\ts.cache.Kill(p.v)\n", []string{"mvcc", "kv", "internal/prove"}},
	}
}

func strangeCache() []Mutant {
	cache := []string{"blockcache", "mvcc", "internal/prove"}
	return []Mutant{
		{"an original's frame is taken from who reads it, once it is spilled", "L1", "blockcache/spiller.go",
			"case v.Pinned() || v.slot == 0:", "case v.slot == 0:", cache},
		{"the slot of a version that died while it was written is lost", "L9", "blockcache/spiller.go",
			"\tif v.Role == RoleDead {\n\t\tc.opts.Spill.Free(slot)\n\t\treturn\n\t}\n", "\tif v.Role == RoleDead {\n\t\treturn\n\t}\n", cache},
		{"room that came while a write found none is not noticed", "L10 R13", "blockcache/spiller.go",
			"\t\ts.freed.Store(true)\n", "", cache},
		{"a buffer that was refused stays half charged", "L9", "blockcache/budget.go",
			"\t\tb.buffers.Add(-2 * n)\n\t\treturn", "\t\tb.buffers.Add(-n)\n\t\treturn", cache},
		{"a head whose home is the gap stays behind it", "L1", "blockcache/latch.go",
			"&mask >= (at-gap)&mask {", "&mask > (at-gap)&mask {", cache},
	}
}

func strangeSpill() []Mutant {
	spill := []string{"spill", "blockcache", "mvcc", "internal/prove"}
	return []Mutant{
		{"slots that are written together are encrypted with one nonce", "R17", "spill/write.go",
			"\t\ts.uses++\n", "\t\tif i == 0 {\n\t\t\ts.uses++\n\t\t}\n", spill},
		{"room of a write that found the file system full is lost", "L9 R7", "spill/dir.go",
			"\td.space.giveBack(r)\n\tif full {", "\tif !full {\n\t\td.space.giveBack(r)\n\t}\n\tif full {", spill},
		{"after a cut that failed holes and room change places", "R7", "spill/trim.go",
			"\tfor i, j := 0, len(before)-1; i < j; i, j = i+1, j-1 {\n\t\tbefore[i], before[j] = before[j], before[i]\n\t}\n", "", spill},
	}
}

func strangeBackups() []Mutant {
	mvcc := []string{"mvcc", "livebackup", "internal/prove"}
	return []Mutant{
		{"a rescue believes what was in place before a write that was lost", "L8", "mvcc/backup.go",
			"return t.LSN, exact == 0 && !b.s.isLost(id, t.LSN) || t.LSN == exact", "return t.LSN, exact == 0 || t.LSN == exact", mvcc},
		{"what was in hand and changed before the fall is not taken again", "R12", "mvcc/fallforward.go",
			"\t\treturn mark > b.info.LSN\n", "\t\treturn mark > b.fwd.lsn\n", mvcc},
		{"an image as of the commit before the log cannot repair", "R8", "mvcc/repair.go",
			"m.follows = r.AsOf+1 >= oldest", "m.follows = r.AsOf >= oldest", mvcc},
	}
}

func strangeTimelines() []Mutant {
	mvcc, livebackup := []string{"mvcc", "livebackup"}, []string{"livebackup"}
	return []Mutant{
		{"a push that was cut off hides what the repository has", "L14 R18", "mvcc/heads.go",
			"\t\tif k.was == h && h != (Head{}) {\n", "\t\tif k.was == h && false {\n", mvcc},
		{"a copy forks at a head that may never have been pushed", "L14 R18", "mvcc/promote.go",
			"lsn = min(lsn, h.was.LSN)", "lsn = max(lsn, h.was.LSN)", mvcc},
		{"to push the same state twice forgets the one before", "R18", "mvcc/heads.go",
			"out[0].was = k.was", "out[0].was = Head{}", mvcc},
		{"a base above an older fork is taken", "L14 R18", "livebackup/lineage.go",
			"lsn = min(lsn, f.LSN) // also", "lsn = f.LSN // also", livebackup},
		{"a rival that pushed meanwhile is not looked for", "R18", "livebackup/run.go",
			"_, err = r.repo.checkRivals(", "_, _ = r.repo.checkRivals(", livebackup},
		{"a backup is there before the database remembers it", "R18", "livebackup/run.go",
			"\tif err == nil && !r.o.Rescue {\n\t\terr = r.repo.announce(ctx, r.src, r.heads, r.id, m.Timeline, mvcc.Head{LSN: m.EndLSN, Sum: m.RecordSum})\n\t}\n\tif err == nil {\n\t\terr = r.publish(ctx, &m)\n\t}\n",
			"\tif err == nil {\n\t\terr = r.publish(ctx, &m)\n\t}\n\tif err == nil && !r.o.Rescue {\n\t\terr = r.repo.announce(ctx, r.src, r.heads, r.id, m.Timeline, mvcc.Head{LSN: m.EndLSN, Sum: m.RecordSum})\n\t}\n", livebackup},
	}
}

func strangeRetention() []Mutant {
	livebackup := []string{"livebackup", "internal/prove"}
	return []Mutant{
		{"a prune removes a base before what adds to it", "L12 L13", "livebackup/prune.go",
			"for _, id := range slices.Backward(d.backups) {", "for _, id := range d.backups {", livebackup},
		{"a window ends now, though the database's clock is behind", "L13", "livebackup/retention.go",
			"earlier(p.now, end).Add(-p.policy.Window), -1", "p.now.Add(-p.policy.Window), -1", livebackup},
		{"log that a backup lies in the middle of goes", "L13", "livebackup/retention.go",
			"if e.Manifest.EndLSN < l.To && p.leads(", "if e.Manifest.EndLSN <= l.From && p.leads(", livebackup},
		{"a merge removes what is held by who has not said what he reads", "L13", "livebackup/merge.go",
			"if held.all == \"\" && held.reads(o.LogRange) == \"\" {", "if held.reads(o.LogRange) == \"\" {", livebackup},
		{"a reader does not wait for a prune that had no room for names", "L13", "livebackup/lease.go",
			"return h.All || slices.ContainsFunc(lease.Backups", "return slices.ContainsFunc(lease.Backups", livebackup},
		{"a reader looks for manifests before it waits for a prune", "L13", "livebackup/lease.go",
			"\tif err = r.awaitPrune(ctx, &h); err == nil {\n\t\terr = r.lookFor(ctx, h.Backups)\n\t}\n",
			"\tif err = r.lookFor(ctx, h.Backups); err == nil {\n\t\terr = r.awaitPrune(ctx, &h)\n\t}\n", livebackup},
		{"a restore does not lease the log that it rolls forward by", "L13", "livebackup/restore.go",
			"r.repo.leaseMembers(ctx, \"restore\", p.members, log)\n", "r.repo.leaseMembers(ctx, \"restore\", p.members, nil)\n\t_ = log\n", livebackup},
		{"a sweep takes the objects of a run that published while it looked", "L12", "livebackup/sweep.go",
			"\tpublished, err = r.published(ctx, id)\n\tif err != nil {\n\t\treturn 0, err\n\t}\n", "", livebackup},
		{"a sweep takes what a living writer is writing", "L12", "livebackup/local.go",
			"\t\tif err := f.Lock(); errors.Is(err, vfs.ErrLocked) {\n\t\t\treturn nil // its writer lives\n\t\t} else if err != nil {\n",
			"\t\tif err := f.Lock(); err != nil && !errors.Is(err, vfs.ErrLocked) {\n", livebackup},
	}
}

func strangeArchive() []Mutant {
	livebackup := []string{"livebackup", "internal/prove"}
	return []Mutant{
		{"archived log is let go before it was read back", "L12 R15", "livebackup/archive.go",
			"\treturn o, a.prove(work, o, digest)\n", "\treturn o, nil\n", livebackup},
		{"an archive goes on behind log that is in the system's cache only", "R15", "livebackup/archiveattach.go",
			"\tif err := a.repo.settle(ctx); err != nil {\n\t\treturn trouble(err)\n\t}\n", "", livebackup},
		{"the newest object of log is merged, too", "R15", "livebackup/merge.go",
			"singles = singles[:len(singles)-1] // not the newest", "_ = singles // not the newest", livebackup},
		{"what a merge left beside its object stays for ever", "R15", "livebackup/merge.go",
			"if n == 0 || o.To > singles[n-1].To {", "if n == 0 || o.To >= singles[n-1].To {", livebackup},
		{"a restored database's name is not durable", "L12", "livebackup/restore.go",
			"if err := fsys.SyncDir(r.place.parent); err != nil {", "if err := " + no + "; err != nil {", livebackup},
	}
}

func strangeRuns() []Mutant {
	livebackup := []string{"livebackup", "internal/prove"}
	return []Mutant{
		{"an incremental goes on with what a full run left", "R10 R18", "livebackup/rebase.go",
			"p.Base == base && p.BaseManifest == digest, nil", "(p.Base == base && p.BaseManifest == digest || r.base != nil), nil", livebackup},
		{"an incremental is laid over a base that was replaced", "L12", "livebackup/chain.go",
			"\tcase base.digest != m.BaseManifest:\n\t\treason = \"is not the one that it was made on\"\n", "", livebackup},
	}
}

func strangeTrees() []Mutant {
	kv := []string{"kv"}
	return []Mutant{
		{"a merged leaf is not known to hold long values", "L11", "kv/delete.go",
			"if c.right.special && !c.left.special {", "if false {", kv},
		{"a batch that is committed runs again when a hook ends its goroutine", "D1", "kv/batch.go",
			"tx.OnCommit(func() { *outcome = nil })", "_ = outcome", kv},
		{"a cursor goes on in its copy of a leaf that has lost entries", "L1", "kv/delete.go",
			"\tdefer b.Release()\n\tt.changes++\n\tif j > n.count()", "\tdefer b.Release()\n\tif j > n.count()", kv},
		{"blocks of a value whose reader failed are lost", "L11", "kv/overflow.go",
			"\tfor _, id := range c.pending {\n\t\tif err := c.t.free(id); err != nil {\n\t\t\treturn err\n\t\t}\n\t}\n\tfor i, id", "\tfor i, id", kv},
		{"a reader of a value reads on in blocks that are another's", "L1", "kv/overflow.go",
			"t.lives[r.ids[0]] = life + 1", "t.lives[r.ids[0]] = life", kv},
		{"readers know a deleted bucket by its old number", "L1", "kv/nested.go",
			"\tb.tx.deletions++\n\tt.renamed = b.tx.base + 1\n", "\tb.tx.deletions++\n", kv},
	}
}

func strangeLimits() []Mutant {
	mvcc, forecast := []string{"mvcc", "livebackup"}, []string{"forecast"}
	return []Mutant{
		{"a guard swings: after it ended a backup the next may begin too early", "L9", "mvcc/guards.go",
			"return limit * (1 - guardSlack)", "return limit * (1 + guardSlack)", mvcc},
		{"a guard forgets at once that it has ended a backup", "L9", "mvcc/guards.go",
			"\t\t\ts.tripped.add(err.Guard)\n", "", mvcc},
		{"the rate of a sink counts what a write under way has not taken", "L9", "livebackup/guards.go",
			"\tif m.writing > 0 {\n\t\ts.busy += now.Sub(m.began)\n\t}\n", "", []string{"livebackup"}},
		{"a forecast promises a fall forward that makes no headway", "R12", "forecast/forecast.go",
			"f.RedoPerSecond < redoShare*sink", "f.RedoPerSecond < sink", forecast},
		{"a forecast takes what is in hand for good, though it changed", "R12", "forecast/forecast.go",
			"left := b.n - r.scanned*(1-r.changed)", "left := b.n - r.scanned", forecast},
	}
}
