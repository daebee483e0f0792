package livebackup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Merging of archived log.
//
// An archive that loses no more than ten seconds makes an object every ten seconds:
// three million a year. So neighbours of one log space and timeline are merged into
// bigger ones: by the archive while it runs, and by a prune. What is merged is what the
// names say are neighbours; what is in the objects is proven on the way.
//
//	M1  claims "merge": one merges at a time
//	M2  lists, and plans
//	M3  reads the small ones, whole: SHA-256, chunks, order of records, whose log it is,
//	    the sums where they meet
//	M4  publishes the big one: synced, linked, directory synced
//	M5  reads all of them back, uncached: the big one must have the commits of each
//	    small one, record for record
//	M6  claims the intent of a prune, naming the small ones
//	M7  looks at leases
//	M8  syncs the directory, for a big one that it only found, and removes the small ones
//	    whose commits nobody has leased
//
// At every moment each commit that was archived is in an object that is durable: the small
// ones go only after M5. So a kill or a power cut leaves one of these:
//
//	before M4's link   a temporary name, which is swept
//	before its sync    the big one is there or not; all small ones are
//	before M8 ends     the big one, and small ones with the same content: leftovers
//
// A leftover is an object whose range lies in that of another one of its timeline. It is
// neither damage nor an overlap that anybody reads twice (see lineage.parts). The next
// merge begins at M5 with it, and needs not know who made it: what has the same content goes.
// What is damaged, of another database or timeline, or differs, stays as it is, with what
// it borders on: nothing is merged over it.
//
// Who reads log, and has leased it before M7, reads what he has listed. Who has not (a
// repository that cannot be written gives no leases; who follows lists again each
// second) may find that an object of his list is gone. He lists again, and goes on with
// the one that has its commits: they have been there since M4. A list that was made
// before M4 may be of any age.
//
// The newest object of a timeline is never merged: a try that failed may have published it
// without knowing, and will look for it under its name. The one before it may be; see
// archiver.explainGap.
//
// Each byte is written anew a few times at most: where more is to come, a run is merged
// only with as many objects again as are in it; where nothing is, because a log space has
// ended, or a big object or a hole follows, once.

// mergeRule says what is merged.
type mergeRule struct {
	bytes   int64 // a merged object has no more, about; what has half of that is left
	objects int   // where more is to come: so many at a time at least
}

var mergeDefault = mergeRule{bytes: 16 << 20, objects: 16}

// A removal is made for so many objects and bytes at a time.
const (
	mergeGoneObjects = 4096
	mergeGoneBytes   = 256 << 20
)

// mergePasses is how often a merge looks again at what it made.
const mergePasses = 8

// mergeName is the claim of who merges.
const mergeName = "merge-0000000000000001"

// LogMerge is small objects of archived log that become one.
type LogMerge struct {
	LogRange
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"` // of these
}

// mergeRun is neighbours to be merged.
type mergeRun struct {
	timeline block.TimelineID
	objects  []LogObject
}

// logMerge is what is told of merging objects.
func logMerge(objects []LogObject) LogMerge {
	m := LogMerge{LogRange: LogRange{objects[0].From, objects[len(objects)-1].To}, Objects: len(objects)}
	for _, o := range objects {
		m.Bytes += o.Size
	}
	return m
}

// leftover is objects whose commits another one has, too.
type leftover struct {
	timeline block.TimelineID
	big      LogObject
	small    []LogObject
}

// merger is one merge.
type merger struct {
	repo *Repository
	rule mergeRule
	only *block.TimelineID // nil: all
	most int               // runs; 0: all
	left func(error)       // is told why an object is left as it is; it may be told twice

	bad  map[string]bool // objects that are left as they are
	gone []LogObject     // that may go
	made []LogObject
	told []LogMerge // what they were made of
	took int        // objects that went
}

func (r *Repository) newMerger(rule mergeRule, left func(error)) *merger {
	return &merger{repo: r, rule: rule, left: left, bad: map[string]bool{}}
}

// merge merges what is worth it. It does nothing if somebody else merges.
func (m *merger) merge(ctx context.Context) error {
	leftovers, runs, err := m.plan(ctx)
	if err != nil || len(leftovers)+len(runs) == 0 {
		return err
	}
	host, _ := os.Hostname() // "" will do: the note is for people
	note := fmt.Sprintf("pid %d on %q since %s\n", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))
	claim, err := m.repo.objects.Claim(ctx, mergeName, []byte(note))
	if errors.Is(err, ErrClaimed) {
		return nil
	}
	if err != nil {
		return writeError("claim the merging of log", err)
	}
	defer claim.Close()
	defer m.repo.objects.Delete(context.WithoutCancel(ctx), mergeName) // if it stays, the next one takes it
	for range mergePasses {
		again, err := m.pass(ctx)
		if err != nil || !again {
			return err
		}
	}
	return nil
}

// pass is one look at all there is. again says that another one may find more to merge.
func (m *merger) pass(ctx context.Context) (again bool, err error) {
	leftovers, runs, err := m.plan(ctx)
	if err != nil {
		return false, err
	}
	for _, l := range leftovers {
		if err := m.absorb(ctx, l); err != nil {
			return false, err
		}
	}
	bad := len(m.bad)
	for _, run := range runs {
		if m.most > 0 && len(m.made) >= m.most {
			break
		}
		if err := m.mergeOne(ctx, run); err != nil {
			return false, err
		}
	}
	return len(runs) > 0 && m.most == 0 || len(m.bad) > bad, m.remove(ctx)
}

// plan lists what an earlier merge left, and what is to be merged.
func (m *merger) plan(ctx context.Context) (leftovers []leftover, runs []mergeRun, err error) {
	v, err := m.repo.inventory(ctx)
	if err != nil {
		return nil, nil, err
	}
	leftovers, runs = v.merges(m.rule, m.only, m.bad)
	return leftovers, runs, nil
}

// merges finds what is to be merged; bad is names of objects that are left as they are.
func (v *inventory) merges(rule mergeRule, only *block.TimelineID, bad map[string]bool) (leftovers []leftover, runs []mergeRun) {
	for _, t := range v.records.all() {
		if only != nil && *only != t || !v.alone(t) {
			continue
		}
		own := slices.DeleteFunc(slices.Clone(v.logs), func(o LogObject) bool { return o.timeline != timelineStart(t) })
		own = withoutBad(own, bad)
		singles, left := splitLeftovers(own)
		for i := range left {
			left[i].timeline = t
		}
		leftovers = append(leftovers, left...)
		if len(singles) > 0 {
			singles = singles[:len(singles)-1] // not the newest
		}
		for _, objects := range rule.runs(singles, v.records.cuts(t)) {
			runs = append(runs, mergeRun{t, objects})
		}
	}
	return leftovers, runs
}

// withoutBad leaves out what is bad, and what lies in the same place.
func withoutBad(logs []LogObject, bad map[string]bool) []LogObject {
	var spoilt []LogObject
	for _, o := range logs {
		if bad[o.Name()] {
			spoilt = append(spoilt, o)
		}
	}
	return slices.DeleteFunc(logs, func(o LogObject) bool {
		return slices.ContainsFunc(spoilt, func(s LogObject) bool { return s.overlaps(o.LogRange) })
	})
}

// alone reports whether no other known timeline begins its id as t does: then the names
// tell whose log it is.
func (v *inventory) alone(t block.TimelineID) bool {
	for _, other := range v.records.all() {
		if other != t && timelineStart(other) == timelineStart(t) {
			return false
		}
	}
	return true
}

// cuts are the commits of timeline t at which log spaces begin or other timelines forked.
func (g *registry) cuts(t block.TimelineID) (list []block.LSN) {
	g.histories(func(history []block.Fork) {
		for _, f := range history {
			if f.Timeline == t {
				list = append(list, f.LSN)
			}
		}
	})
	for _, m := range g.known {
		if m.Timeline == t {
			list = append(list, m.EndLSN)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// splitLeftovers tells those of one timeline that lie within another one from the rest,
// which it returns in order.
func splitLeftovers(logs []LogObject) (singles []LogObject, left []leftover) {
	slices.SortFunc(logs, func(a, b LogObject) int {
		if a.From != b.From {
			return byPlace(a, b)
		}
		return byPlace(b, a) // the longest first
	})
	for _, o := range logs {
		n := len(singles)
		if n == 0 || o.To > singles[n-1].To {
			singles = append(singles, o)
			continue
		}
		if k := len(left); k == 0 || left[k-1].big != singles[n-1] {
			left = append(left, leftover{big: singles[n-1]})
		}
		l := &left[len(left)-1]
		l.small = append(l.small, o)
	}
	return singles, left
}

// runs are the neighbours among objects of one timeline that are worth being merged.
// None reaches over a cut.
func (r mergeRule) runs(list []LogObject, cuts []block.LSN) (runs [][]LogObject) {
	var run []LogObject
	sum := int64(0)
	end := func(closed bool) {
		if !closed {
			run = r.worth(run, sum)
		}
		if len(run) > 1 {
			runs = append(runs, run)
		}
		run, sum = nil, 0
	}
	for _, o := range list {
		if n := len(run); n > 0 {
			_, isCut := slices.BinarySearch(cuts, o.From)
			if run[n-1].To != o.From || isCut || sum+o.Size > r.bytes {
				end(true)
			}
		}
		if o.Size >= r.bytes/2 {
			end(true)
			continue
		}
		run, sum = append(run, o), sum+o.Size
	}
	n := len(list)
	end(n > 0 && len(cuts) > 0 && list[n-1].To <= cuts[len(cuts)-1])
	return runs
}

// worth is what of a run to which more is to come is to be merged now.
func (r mergeRule) worth(run []LogObject, sum int64) []LogObject {
	for len(run) > 0 && 2*run[0].Size > sum {
		sum -= run[0].Size
		run = run[1:]
	}
	if len(run) < r.objects {
		return nil
	}
	return run
}

// leave has an object left as it is, and says why.
func (m *merger) leave(o LogObject, err error) {
	m.bad[o.Name()] = true
	m.left(fmt.Errorf("%s is not merged: %w", o.Name(), err))
}

// mergeOne makes one object of a run, as far as it is sound.
func (m *merger) mergeOne(ctx context.Context, run mergeRun) error {
	batch, taken, err := m.read(ctx, run)
	if err != nil || len(taken) == 0 {
		return err
	}
	if len(taken) == 1 || m.bad[batch.id.object(0).Name()] { // the rest makes a run of its own
		m.bad[taken[0].Name()] = true
		return nil
	}
	big, fresh, err := m.publish(ctx, batch)
	if err != nil {
		return err
	}
	if err := m.absorb(ctx, leftover{run.timeline, big, taken}); err != nil {
		return err
	}
	if !m.bad[big.Name()] {
		m.made, m.told = append(m.made, big), append(m.told, logMerge(taken))
	} else if fresh { // it is nobody's yet
		return writeError("remove what reads back other than it was written", m.repo.objects.Delete(ctx, big.Name()))
	}
	return nil
}

// read collects the commits of a run, up to the first object that is not sound.
func (m *merger) read(ctx context.Context, run mergeRun) (batch logBatch, taken []LogObject, err error) {
	d, err := newDecoder()
	if err != nil {
		return batch, nil, err
	}
	defer d.close()
	owner, _, err := m.repo.Database(ctx)
	if err != nil {
		return batch, nil, err
	}
	b, err := newLogBuilder(logIdentity{database: owner, timeline: run.timeline}, run.objects[0].From, CompressionFastest)
	if err != nil {
		return batch, nil, err
	}
	defer b.close()
	fromSum, sum := uint32(0), uint32(0)
	for i, o := range run.objects {
		f, spoilt, err := m.readInto(ctx, d, b, logPart{o.LogRange, o, run.timeline}, sum)
		if spoilt || err != nil {
			return batch, nil, err
		}
		if f == nil {
			break
		}
		if sum = f.toSum; i == 0 {
			fromSum = f.fromSum
		}
		taken = append(taken, o)
	}
	if len(taken) > 1 {
		batch = b.cut()
		batch.footer.fromSum, batch.footer.toSum = fromSum, sum
	}
	return batch, taken, nil
}

// readInto adds the commits of one object to b and returns its footer: nil if it is not to
// be merged. spoilt says that a part of it was added before that was found out.
func (m *merger) readInto(ctx context.Context, d *decoder, b *logBuilder, part logPart, sum uint32) (f *logFooter, spoilt bool, err error) {
	in, err := m.open(ctx, part)
	if in == nil || err != nil {
		return nil, false, err
	}
	defer in.close()
	if f := in.footer.fromSum; sum != 0 && f != 0 && f != sum {
		m.leave(part.object, damaged(in.name, -1, "it goes on behind another commit than the one before it ends with", nil))
		return nil, false, nil
	}
	if len(b.footer.marks)+len(in.footer.marks) > logMarksMax/2 && b.commits() > 0 {
		return nil, false, nil // no room for names
	}
	var failed error
	err = in.records(ctx, d, func(r mvcc.LogRecord) error {
		failed = b.add(r)
		return failed
	})
	if err != nil && (failed != nil || logDamage(err)) {
		m.leave(part.object, err)
		return nil, true, nil
	}
	return &in.footer, false, err
}

// open opens an object and proves it whole, but for its records; nil if it is to be left
// as it is, or has gone.
func (m *merger) open(ctx context.Context, part logPart) (*logReader, error) {
	in, err := m.repo.openPart(ctx, part)
	if err == nil {
		if err = in.prove(ctx); err != nil {
			in.close()
		}
	}
	switch {
	case err == nil:
		return in, nil
	case errors.Is(err, fs.ErrNotExist):
		m.bad[part.object.Name()] = true // pruned
		return nil, nil
	case tellsNothing(err):
		m.leave(part.object, err)
		return nil, nil
	}
	return nil, err
}

// publish makes an object of a batch, or finds one of its name.
func (m *merger) publish(ctx context.Context, batch logBatch) (o LogObject, fresh bool, err error) {
	w, err := createLog(ctx, m.repo.objects, batch.id)
	if err != nil {
		return o, false, err
	}
	defer w.abort()
	for _, c := range batch.chunks {
		if err := w.chunk(c); err != nil {
			return o, false, err
		}
	}
	o, _, err = w.publish(batch.footer)
	if errors.Is(err, ErrObjectExists) {
		return o, false, nil
	}
	return o, err == nil, err
}

// absorb has those of the small objects go that are sound, and of which the big one has the
// same.
func (m *merger) absorb(ctx context.Context, l leftover) error {
	ranges := make([]LogRange, len(l.small))
	for i, o := range l.small {
		ranges[i] = o.LogRange
	}
	have, err := m.contents(ctx, logPart{l.big.LogRange, l.big, l.timeline}, ranges)
	if have == nil || err != nil {
		return err
	}
	for i, o := range l.small {
		own, err := m.contents(ctx, logPart{o.LogRange, o, l.timeline}, ranges[i:i+1])
		switch {
		case err != nil:
			return err
		case own == nil: // it was told
		case own[0] != have[i]:
			m.leave(o, damaged(o.Name(), -1, "it has other commits than "+l.big.Name(), nil))
		default:
			m.gone = append(m.gone, o)
		}
	}
	size := int64(0)
	for _, o := range m.gone {
		size += o.Size
	}
	if len(m.gone) < mergeGoneObjects && size < mergeGoneBytes {
		return nil
	}
	return m.remove(ctx)
}

// contents has the SHA-256 of the records of each range of commits of an object; nil
// if the object is to be left as it is.
func (m *merger) contents(ctx context.Context, part logPart, ranges []LogRange) ([]Digest, error) {
	in, err := m.open(ctx, part)
	if in == nil || err != nil {
		return nil, err
	}
	defer in.close()
	d, err := newDecoder()
	if err != nil {
		return nil, err
	}
	defer d.close()
	sums := make([]hash.Hash, len(ranges))
	for i := range sums {
		sums[i] = sha256.New()
	}
	var head []byte
	first := 0 // ranges begin in order: those before it have ended
	err = in.records(ctx, d, func(r mvcc.LogRecord) error {
		for first < len(ranges) && ranges[first].To < r.LSN {
			first++
		}
		head = appendRecord(head[:0], mvcc.LogRecord{LSN: r.LSN, Last: r.Last})
		head = le.AppendUint64(head, uint64(len(r.Body)))
		for i := first; i < len(ranges) && ranges[i].From < r.LSN; i++ {
			if r.LSN <= ranges[i].To {
				sums[i].Write(head)
				sums[i].Write(r.Body)
			}
		}
		return nil
	})
	if logDamage(err) {
		m.leave(part.object, err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list := make([]Digest, len(ranges))
	for i := range sums {
		list[i] = Digest(sums[i].Sum(nil))
	}
	return list, nil
}

// remove removes what may go, if nobody prunes, and nobody reads it.
func (m *merger) remove(ctx context.Context) error {
	gone := m.gone
	if m.gone = nil; len(gone) == 0 {
		return nil
	}
	names := make([]string, len(gone))
	for i, o := range gone {
		names[i] = o.Name()
	}
	intent, err := m.repo.declare(ctx, "merge of log", []BackupID{}, names)
	if errors.Is(err, ErrPruneRunning) {
		return nil // the next one finds them
	}
	if err != nil {
		return err
	}
	defer intent.Close()
	held, err := m.repo.leases(ctx)
	if err != nil {
		return err
	}
	names = names[:0]
	for _, o := range gone {
		if held.all == "" && held.reads(o.LogRange) == "" {
			names = append(names, o.Name())
		}
	}
	if len(names) == 0 {
		return nil
	}
	// Who made the big ones may have died between M4's link and its sync.
	if err := m.repo.settle(ctx); err != nil {
		return err
	}
	if err := m.repo.objects.Delete(ctx, names...); err != nil {
		return writeError("remove log that was merged", err)
	}
	m.took += len(names)
	return nil
}
