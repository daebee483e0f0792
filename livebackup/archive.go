package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// ArchiveOptions of Archive. The zero value is good.
type ArchiveOptions struct {
	// Every bounds what a loss of the database loses: a commit is in the
	// repository at the latest this long after it became durable, while nothing
	// fails. 0: 10 seconds; 100 ms to 24 h.
	Every time.Duration
	// ObjectBytes is the size at which an object is finished at once, and about how
	// much the archive takes in memory; 0: 16 MiB. A single commit that is larger
	// is streamed into an object of its own.
	ObjectBytes int64
	Compression Compression // "": CompressionFastest
	// Progress is called when something changed, Warn with what the archive goes
	// on after: a hole ([LogLostError]), a repository that cannot be written for now.
	// Both by one goroutine; they must be quick, and may be nil.
	Progress func(ArchiveStatus)
	Warn     func(error)

	merge mergeRule // zero: objects of up to ObjectBytes; for tests
}

// ArchiveStatus is how an archive is.
type ArchiveStatus struct {
	StartLSN     block.LSN `json:"start_lsn"`     // this run began behind this commit
	ArchivedLSN  block.LSN `json:"archived_lsn"`  // up to here the log is in the repository
	ArchivedTime time.Time `json:"archived_time"` // commit time of that; zero before this run's first object
	DurableLSN   block.LSN `json:"durable_lsn"`   // newest durable commit that the archive knows of
	// Age is how long the oldest commit that is durable and not in the repository has
	// been durable: what would be lost now. 0: there is none.
	Age     time.Duration `json:"age_ns"`
	Oldest  time.Time     `json:"oldest"`  // since when; zero: there is none
	Objects int           `json:"objects"` // that this run wrote
	Bytes   int64         `json:"bytes"`   // of these
	Late    int           `json:"late"`    // of these: were in the repository later than Every
	// Holes are commits behind the oldest backup that are not in the archive, and
	// will not be: states there cannot be had. Behind the last one only a backup
	// that is made from now on leads.
	Holes   []LogRange `json:"holes"`
	Failure error      `json:"-"` // why the repository cannot be written; nil while it can
}

func (o ArchiveOptions) withDefaults() (ArchiveOptions, error) {
	if o.Every == 0 {
		o.Every = 10 * time.Second
	}
	if o.ObjectBytes == 0 {
		o.ObjectBytes = 16 << 20
	}
	if o.Compression == "" {
		o.Compression = CompressionFastest
	}
	if o.Progress == nil {
		o.Progress = func(ArchiveStatus) {}
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	switch {
	case o.Every < 100*time.Millisecond || o.Every > 24*time.Hour:
		return o, optionError("the archive must follow within 100 ms to 24 h")
	case o.ObjectBytes < 1 || o.ObjectBytes > objectBytesMax:
		return o, optionError("object bytes must be 1 to 1 GiB")
	case !o.Compression.valid():
		return o, optionError("compression %q is unknown", o.Compression)
	}
	return o, nil
}

// Validate returns ErrOptions, with the reason, for what Archive would refuse.
func (o ArchiveOptions) Validate() error {
	_, err := o.withDefaults()
	return err
}

// Archive copies the log of src into repo as it grows, until ctx ends; then it
// archives what is durable at that moment, within a minute, and returns nil. It may
// be killed at any moment: the next one goes on without gap or duplicate (R15).
//
// It begins behind the newest archived commit of the database's history, if the
// database's log reaches back to it; else behind the first backup, done or being made,
// that it reaches back to; else at the newest commit. What is left out is a hole: it
// is told by Warn and by Status, and shows in the names in the repository (R14).
//
// While the repository cannot be written it tries again and again, and the
// database holds its log back, up to mvcc's Options.LogHoldMax. Other errors end
// it: a repository that has another database's, another history's or another archive's log
// ([ErrForeignDatabase], [mvcc.ErrHistory], [ErrRepositoryAhead], [ErrArchiving],
// [ErrLogOverlap], [ErrLogForeign]), and those of src.
func Archive(ctx context.Context, src Source, repo *Repository, o ArchiveOptions) error {
	o, err := o.withDefaults()
	if err == nil {
		a := &archiver{src: src, repo: repo, o: o}
		err = a.archive(ctx)
	}
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

const (
	// archiveLinger is how long an archive goes on when its context has ended.
	archiveLinger = time.Minute
	// pullBytes is how much log is asked for at a time.
	pullBytes = 4 << 20
	// An archive tries again after retryMin, then after twice that, up to retryMax.
	retryMin = time.Second
	retryMax = 30 * time.Second
	// namesEvery is how often the names in the repository are all looked at.
	namesEvery = time.Minute
)

// archiver is an archive at work.
type archiver struct {
	src  Source
	repo *Repository
	o    ArchiveOptions

	claim     io.Closer
	claimName string
	log       LogSession
	history   lineage
	b         *logBuilder
	w         *logWriter // of a commit that is being streamed
	fromSum   uint32     // of commit b.id.from; 0: not known
	prev      LogObject  // that ends where b begins; zero: none

	caughtUp time.Time       // what had not been read then became durable after it
	behind   bool            // there was more than the last pull took
	oldest   time.Time       // when the first commit in b became durable, or earlier
	onTheWay bool            // commits were taken out of b and are not published
	looked   time.Time       // at all names
	small    int             // objects since it was looked for some to merge
	unmerged map[string]bool // objects that are left as they are: see merger.bad
	status   ArchiveStatus
}

// repositoryTrouble is an error of the repository: the next try may go better.
type repositoryTrouble struct{ error }

// Unwrap yields the error.
func (t repositoryTrouble) Unwrap() error { return t.error }

func trouble(err error) error {
	if err == nil {
		return nil
	}
	return repositoryTrouble{err}
}

// passes reports whether the archive goes on after err, by attaching anew.
func passes(err error) bool {
	return errors.As(err, new(repositoryTrouble)) || errors.Is(err, mvcc.ErrLogGone)
}

func (a *archiver) archive(ctx context.Context) error {
	defer a.detach()
	work, stop := lingering(ctx, archiveLinger)
	defer stop()
	if err := a.attach(work); err != nil {
		return err
	}
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		began := time.Now()
		err := a.follow(ctx, work)
		if err == nil || !passes(err) {
			return err
		}
		if ctx.Err() != nil {
			return err
		}
		if time.Since(began) > retryMax {
			wait = retryMin
		}
		if err := a.attachAgain(ctx, work, err, wait); err != nil {
			return err
		}
	}
}

// lingering is a context that ends d later than ctx.
func lingering(ctx context.Context, d time.Duration) (context.Context, func()) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	timer := time.AfterFunc(1<<62, func() { cancel(context.Cause(ctx)) })
	timer.Stop()
	stop := context.AfterFunc(ctx, func() { timer.Reset(d) })
	return late, func() {
		stop()
		timer.Stop()
		cancel(errStopped)
	}
}

// attachAgain finds out where to go on after err. What is in hand and whole is
// published first, if the log is what failed.
func (a *archiver) attachAgain(ctx, work context.Context, err error, wait time.Duration) error {
	if errors.Is(err, mvcc.ErrLogGone) {
		a.o.Warn(err)
		if a.b.commits() > 0 {
			if err := a.publish(ctx, work, a.b.whole()); err != nil {
				return err
			}
		}
	}
	for {
		if err := a.attach(work); err == nil || !passes(err) || ctx.Err() != nil {
			return err
		} else {
			a.failed(err)
		}
		sleepUntil(ctx, time.Now().Add(wait)) // then one last try
		wait = min(2*wait, retryMax)
	}
}

// failed tells that the repository gives trouble.
func (a *archiver) failed(err error) {
	a.status.Failure = err
	a.o.Warn(err)
	a.report()
}

// follow archives until ctx ends, then what is durable. Work is done under a context
// that lasts longer.
func (a *archiver) follow(ctx, work context.Context) error {
	for ctx.Err() == nil {
		if err := a.await(ctx); err != nil {
			return err
		}
		if err := a.pullAll(ctx, work); err != nil {
			return err
		}
		if a.b.commits() > 0 && a.isDue() {
			if err := a.publish(ctx, work, a.b.cut()); err != nil {
				return err
			}
		}
	}
	return a.finish(ctx, work)
}

// await returns when it is time to read: some time after there is something, so
// that what comes meanwhile is read at once.
func (a *archiver) await(ctx context.Context) error {
	if a.behind {
		return nil
	}
	if a.b.commits() == 0 {
		if err := a.log.Wait(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		a.caughtUp = time.Now()
	}
	until := time.Now().Add(a.o.Every / 10)
	if due := a.due(); a.b.commits() > 0 && due.Before(until) {
		until = due
	}
	sleepUntil(ctx, until) // or until ctx ends, which follow sees
	return nil
}

// due is when the commits in hand have to go: a little before they have to have
// arrived.
func (a *archiver) due() time.Time { return a.oldest.Add(a.o.Every - a.o.Every/5) }

func (a *archiver) isDue() bool { return !time.Now().Before(a.due()) }

// pullAll reads what is there, or until what is in hand is due and worth an object.
func (a *archiver) pullAll(ctx, work context.Context) error {
	for {
		began := time.Now()
		size, err := a.pull(ctx, work)
		if err != nil {
			return err
		}
		if a.behind = size >= pullBytes; !a.behind {
			a.caughtUp = began
		}
		a.report()
		if !a.behind || a.b.stored >= a.o.ObjectBytes/8 && a.isDue() {
			return nil
		}
	}
}

// since is a moment before which a commit that was just read did not become durable.
// Where nobody watched, its own time has to do.
func (a *archiver) since(committed time.Time) time.Time {
	if now := time.Now(); a.behind && committed.Before(now) {
		return committed
	} else if a.behind {
		return now
	}
	return a.caughtUp
}

// finish archives what is durable now.
func (a *archiver) finish(ctx, work context.Context) error {
	st, err := a.src.Status(work)
	if err != nil {
		return err
	}
	for size := int64(pullBytes); size >= pullBytes && a.b.id.to < st.DurableLSN; {
		if size, err = a.pull(ctx, work); err != nil {
			return err
		}
	}
	if a.b.commits() == 0 {
		return nil
	}
	return a.publish(ctx, work, a.b.cut())
}

// pull reads a few commits and returns how many bytes they had.
func (a *archiver) pull(ctx, work context.Context) (size int64, err error) {
	lsn, err := a.log.Read(work, pullBytes, func(r mvcc.LogRecord) error {
		size += int64(len(r.Body))
		return a.take(ctx, work, r)
	})
	if err == nil && lsn != a.b.id.to {
		err = fmt.Errorf("source says that it handed out commit %v, it was %v", lsn, a.b.id.to)
	}
	a.status.DurableLSN = max(a.status.DurableLSN, a.b.id.to)
	return size, err
}

// take takes one record, and publishes when there is enough.
func (a *archiver) take(ctx, work context.Context, r mvcc.LogRecord) error {
	empty := a.b.commits() == 0 && !a.b.open
	if err := a.b.add(r); err != nil {
		return err
	}
	if empty {
		a.oldest = a.since(a.b.part.first)
	}
	switch {
	case a.b.open && a.b.stored >= a.o.ObjectBytes:
		return a.stream(ctx, work)
	case !a.b.open && a.w != nil:
		return a.endStream(work)
	case !a.b.open && (a.b.stored >= a.o.ObjectBytes || a.b.full()):
		return a.publish(ctx, work, a.b.cut())
	}
	return nil
}

// stream writes what is there of a commit that is too large to be kept.
func (a *archiver) stream(ctx, work context.Context) error {
	if a.b.commits() > 0 {
		if err := a.publish(ctx, work, a.b.split()); err != nil {
			return err
		}
	}
	id, chunks := a.b.takeOpen()
	if a.w == nil {
		w, err := createLog(work, a.repo.objects, id)
		if err != nil {
			return trouble(err)
		}
		a.w = w
	}
	return a.writeChunks(chunks)
}

func (a *archiver) writeChunks(chunks []logChunk) error {
	for _, c := range chunks {
		if err := a.w.chunk(c); err != nil {
			a.abort()
			return trouble(err)
		}
	}
	return nil
}

// abort gives the commit that is being streamed up.
func (a *archiver) abort() {
	if a.w != nil {
		a.w.abort()
		a.w = nil
	}
}

// endStream publishes the commit that was streamed. What fails cannot be written
// again from memory: the archive attaches anew, and reads it again.
func (a *archiver) endStream(work context.Context) error {
	batch := a.b.cut()
	err := a.prepare(work, &batch)
	if err == nil {
		err = a.writeChunks(batch.chunks)
	}
	if err != nil {
		a.abort()
		return err
	}
	w := a.w
	a.w = nil
	defer w.abort()
	o, digest, err := w.publish(batch.footer)
	if err == nil {
		err = a.prove(work, o, digest)
	}
	if err != nil {
		return trouble(err)
	}
	return a.published(work, o, batch)
}

// publish makes a batch an object, trying until that is done or ctx has ended.
func (a *archiver) publish(ctx, work context.Context, batch logBatch) error {
	a.onTheWay = true
	if err := a.prepare(work, &batch); err != nil {
		return err
	}
	for wait := retryMin; ; wait = min(2*wait, retryMax) {
		ended := ctx.Err() != nil && wait > retryMin // when ctx has ended there is one more try
		o, err := a.tryPublish(work, batch)
		if err == nil {
			return a.published(work, o, batch)
		}
		if !errors.As(err, new(repositoryTrouble)) || ended {
			return err
		}
		a.failed(err)
		sleepUntil(ctx, time.Now().Add(wait))
	}
}

// prepare asks the source for the sums, and makes it remember what is about to
// be published (R18).
func (a *archiver) prepare(work context.Context, batch *logBatch) error {
	sum, err := a.log.Sum(work, batch.id.to)
	if err != nil {
		return err
	}
	batch.footer.fromSum, batch.footer.toSum = a.fromSum, sum
	return a.repo.rememberHead(work, a.src, mvcc.Head{LSN: batch.id.to, Sum: sum})
}

// tryPublish writes an object, publishes it, and proves it.
func (a *archiver) tryPublish(work context.Context, batch logBatch) (LogObject, error) {
	if err := a.lookBefore(work, batch.id); err != nil {
		return LogObject{}, err
	}
	w, err := createLog(work, a.repo.objects, batch.id)
	if err != nil {
		return LogObject{}, trouble(err)
	}
	defer w.abort()
	for _, c := range batch.chunks {
		if err := w.chunk(c); err != nil {
			return LogObject{}, trouble(err)
		}
	}
	o, digest, err := w.publish(batch.footer)
	if errors.Is(err, ErrObjectExists) {
		return a.adopt(work, o, digest)
	}
	if err != nil {
		return o, trouble(err)
	}
	return o, a.prove(work, o, digest)
}

// adopt looks at an object that is there already: a try that failed may have made
// it; then it is made durable.
func (a *archiver) adopt(work context.Context, o LogObject, digest Digest) (LogObject, error) {
	err := a.repo.readBack(work, o, digest)
	if logDamage(err) {
		return o, fmt.Errorf("%s: %w: %w", o.Name(), ErrLogOverlap, err)
	}
	if err == nil {
		err = a.repo.settle(work)
	}
	return o, trouble(err)
}

// prove reads back what was published. What is not what was written goes again: it
// is nobody's yet.
func (a *archiver) prove(work context.Context, o LogObject, digest Digest) error {
	err := a.repo.readBack(work, o, digest)
	if logDamage(err) {
		err = errors.Join(err, a.repo.objects.Delete(work, o.Name()))
	}
	return trouble(err)
}

// lookBefore looks at what the repository has before an object is added: the one
// that it continues must be there, and nothing that overlaps.
func (a *archiver) lookBefore(work context.Context, id logIdentity) error {
	if a.prev.To != 0 {
		if in, err := a.repo.objects.Open(work, a.prev.Name()); err == nil {
			in.Close()
		} else if err := a.explainGap(work, err); err != nil {
			return trouble(err)
		}
	}
	if time.Since(a.looked) < namesEvery {
		return nil
	}
	logs, err := a.repo.logs(work)
	if err != nil {
		return trouble(err)
	}
	a.looked = time.Now()
	own := id.object(0)
	for _, o := range logs {
		if o.timeline == own.timeline && o.overlaps(own.LogRange) && o.LogRange != own.LogRange {
			return fmt.Errorf("%w: %s, and %v was to come", ErrLogOverlap, o.Name(), own.LogRange)
		}
	}
	return nil
}

// published enters an object that is durable and proven: its log may go.
func (a *archiver) published(work context.Context, o LogObject, batch logBatch) error {
	s := &a.status
	s.ArchivedLSN, s.ArchivedTime, s.Failure = o.To, batch.footer.last, nil
	s.Objects, s.Bytes = s.Objects+1, s.Bytes+o.Size
	if time.Since(a.oldest) > a.o.Every {
		s.Late++
	}
	a.prev, a.fromSum, a.onTheWay = o, batch.footer.toSum, false
	if a.b.open {
		a.oldest = a.since(a.b.part.first)
	}
	a.report()
	if err := a.log.Done(work, o.To); err != nil {
		return err
	}
	a.mergeSome(work)
	return nil
}

// mergeSome merges small objects of the timeline into one, now and then, while there is
// nothing else to do. What goes wrong is told: the archive is whole without it.
func (a *archiver) mergeSome(work context.Context) {
	rule := a.o.merge
	if rule == (mergeRule{}) {
		rule = mergeRule{a.o.ObjectBytes, mergeDefault.objects}
	}
	if a.small++; a.small < rule.objects || a.behind || a.b.commits() > 0 || a.b.open {
		return
	}
	a.small = 0
	m := a.repo.newMerger(rule, a.o.Warn)
	m.only, m.most = &a.b.id.timeline, 1
	if a.unmerged == nil {
		a.unmerged = m.bad
	}
	m.bad = a.unmerged // told once
	if err := m.merge(work); err != nil && work.Err() == nil {
		a.o.Warn(fmt.Errorf("merge archived log: %w", err))
	}
}

func (a *archiver) report() {
	s := a.status
	if a.b.commits() > 0 || a.b.open || a.onTheWay {
		s.Age, s.Oldest = time.Since(a.oldest), a.oldest
	}
	s.Holes = slices.Clone(s.Holes)
	a.o.Progress(s)
}

// detach lets go of everything. The claim's name goes first: once the claim is
// let go it may be somebody else's.
func (a *archiver) detach() {
	a.abort()
	if a.b != nil {
		a.b.close()
	}
	if a.log != nil {
		a.log.Close()
	}
	if a.claim != nil {
		a.repo.objects.Delete(context.Background(), a.claimName) // if it stays, the next one takes it
		a.claim.Close()
	}
}
