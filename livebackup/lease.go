package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/spillwaydb/spillway/block"
)

// Leases, and the intent of a prune (L13).
//
// Who reads backups (a restore, a verify, an incremental that adds to one, a
// backup that is open in place) claims a lease that names them; who removes some
// claims the intent, of which there is one, that names those. Both are claims: they
// end with the process. Each side first says what it is about to do, and then looks
// at what the other one says:
//
//	reader R                      pruner P
//	R1  claims a lease            P1  claims the intent
//	R2  looks at the intent       P2  looks at leases
//	R3  looks for the manifests   P3  lists manifests and plans afresh
//	R4  reads                     P4  removes manifests, leaves first, then objects
//	R5  lets go                   P5  lets go
//
// Whatever the order of the rest, R1 comes before P2 or P1 before R2:
//
//	R1 before P2    P drops what the lease names from its plan. R may read, and
//	                waits meanwhile, if it has seen the intent, until P lets go
//	                or the intent turns out to name nothing that R reads.
//	P1 before R2    R sees the intent. If it names what R wants to read, R waits
//	                until P has let go, and looks at R3 whether that is still there.
//	both            both: P leaves alone what R wants, R waits for nothing.
//	                Nobody waits for R, so there is no circle.
//
// A backup that is published while P is at work is not in P's plan. One that adds to
// what is in it has leased that before it began: it is as any R, and lets go only
// after its own manifest is there, which P3 then finds.
//
// A lease or an intent is not there at once: between its first byte and its last it
// does not decode. Whoever sees one that is alive and does not decode takes it for
// one that names everything.
//
// P dies, at any place: its claim is void. A manifest that is there has all its
// objects, since P4 removes objects only when the removal of the manifest is
// durable; objects without a manifest are swept by the next run.
//
// The intent's file stays, void, so that a disk that is full can be pruned: what is
// said there the next time goes where the last words stood. Readers of a full disk
// have no such place, and go without a lease. A backup that adds to another does not:
// when the disk was pruned it could be written, and what it adds to be gone.

// Errors of leases.
var (
	// ErrBackupInUse: the backup is being read, by a restore or a verify for
	// example, or a backup that adds to it is being made.
	ErrBackupInUse = errors.New("backup is in use")
	// ErrPruneRunning: another process prunes this repository.
	ErrPruneRunning = errors.New("another prune of this repository is running")
)

// hold is the payload of a lease or an intent.
type hold struct {
	Backups []BackupID `json:"backups"`
	Logs    []string   `json:"logs,omitempty"` // of an intent: names of log objects
	Log     *LogRange  `json:"log,omitempty"`  // of a lease: commits whose archived log is read, of any timeline
	All     bool       `json:"all,omitempty"`  // of an intent that has no room for names
	By      string     `json:"by"`             // for people
}

func holdOf(by string, ids ...BackupID) hold {
	host, _ := os.Hostname() // "" will do
	return hold{Backups: ids, By: fmt.Sprintf("%s, pid %d on %q since %s", by, os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))}
}

// holds is what is said by those who live.
type holds struct {
	by  map[BackupID]string
	log []hold // that say which log they read
	all string // who holds everything, or ""
}

// of says who holds backup id.
func (h holds) of(id BackupID) (by string, held bool) {
	if by, held = h.by[id]; held {
		return by, true
	}
	return h.all, h.all != ""
}

// reads says who reads log of commits in r, or "".
func (h holds) reads(r LogRange) string {
	for _, l := range h.log {
		if l.Log.overlaps(r) {
			return l.By
		}
	}
	return ""
}

// readHold reads a lease or an intent. What does not decode is block.ErrCorrupt.
func (r *Repository) readHold(ctx context.Context, name string, m magic) (hold, error) {
	var h hold
	data, err := readSmall(ctx, r.objects, name, manifestBytesMax)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = damaged(name, -1, "it is being written", err)
	}
	if err != nil {
		return h, err
	}
	_, err = decodeEnvelope(name, data, m, &h)
	if errors.Is(err, ErrVersion) {
		err = damaged(name, -1, "it is being written", err) // half of it is
	}
	return h, err
}

// claimHold claims name and says h there.
func (r *Repository) claimHold(ctx context.Context, name string, m magic, h hold) (io.Closer, error) {
	data, err := encodeEnvelope(m, identity{repository: r.id}, h)
	if err != nil {
		return nil, err
	}
	claim, err := r.objects.Claim(ctx, name, data)
	if err != nil {
		return nil, err
	}
	return &held{r, name, claim}, nil
}

// held is a claim whose name is removed when it is let go, but for the intent's.
type held struct {
	repo  *Repository
	name  string
	claim io.Closer
}

// Close lets go. What stays of the claim if that fails is void, and swept.
func (h *held) Close() error {
	if h.claim == nil {
		return nil
	}
	err := h.claim.Close()
	h.claim = nil
	if h.name != pruneName {
		h.repo.objects.Delete(context.Background(), h.name)
	}
	return err
}

// nameTries is how many names are tried for what is new: a sweeper may take what is
// not locked yet for a leftover of the dead. They are some time apart, since a new
// file may be given the number of one that is not yet known to be gone.
const nameTries = 20

// lease holds what h names until Close: backups, which are whole chains, and log. A prune
// leaves them alone, and so does a merge. It fails with ErrBackupNotFound if a backup is
// gone; of log the list that was made before may be old by now.
//
// A repository that cannot be written, or has no space left, can be read all the
// same, without a lease: to restore is what it is there for.
func (r *Repository) lease(ctx context.Context, h hold) (io.Closer, error) {
	claim, err := r.leaseToWrite(ctx, h)
	if errors.Is(err, ErrRepositoryWrite) && readOnly(err) {
		return noLease{}, nil
	}
	return claim, err
}

// leaseToWrite is lease for who will write to the repository. What he writes needs what
// he reads for as long as it is there, so that he does nothing without a lease: a disk
// that was full is not when a prune is through with it.
func (r *Repository) leaseToWrite(ctx context.Context, h hold) (io.Closer, error) {
	claim, err := r.claimLease(ctx, h)
	if err != nil {
		return nil, writeError("lease backups", err)
	}
	if err = r.awaitPrune(ctx, &h); err == nil {
		err = r.lookFor(ctx, h.Backups)
	}
	if err != nil {
		claim.Close()
		return nil, err
	}
	return claim, nil
}

// findTries is how often the newest backup is looked for, if it is pruned meanwhile.
const findTries = 10

// leaseChain is chain, and holds what it returns until the lease is closed.
func (r *Repository) leaseChain(ctx context.Context, by string, id BackupID) (members []Entry, lease io.Closer, err error) {
	for range findTries {
		if members, err = r.chain(ctx, id); err == nil {
			lease, err = r.leaseMembers(ctx, by, members, nil)
		}
		if err == nil || !id.IsZero() || !errors.Is(err, ErrBackupNotFound) {
			break
		}
	}
	return members, lease, err
}

// leaseMembers leases a whole chain, which may be none, and the log that is read behind
// it: nil if none is.
func (r *Repository) leaseMembers(ctx context.Context, by string, members []Entry, log *LogRange) (io.Closer, error) {
	if len(members) == 0 {
		return noLease{}, nil
	}
	h := holdMembers(by, members)
	h.Log = log
	return r.lease(ctx, h)
}

// leaseBase leases the chain that an incremental adds to, if it is one.
func (r *Repository) leaseBase(ctx context.Context, base []Entry) (io.Closer, error) {
	if len(base) == 0 {
		return noLease{}, nil
	}
	return r.leaseToWrite(ctx, holdMembers("incremental backup", base))
}

func holdMembers(by string, members []Entry) hold {
	var ids []BackupID
	for i := range members {
		ids = append(ids, members[i].ID)
	}
	return holdOf(by, ids...)
}

type noLease struct{}

func (noLease) Close() error { return nil }

func readOnly(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || noSpace(err)
}

func (r *Repository) claimLease(ctx context.Context, h hold) (claim io.Closer, err error) {
	for range nameTries {
		claim, err = r.claimHold(ctx, leaseName(rand.Uint64()), magicLease, h)
		if !errors.Is(err, ErrClaimed) {
			break
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
	return claim, err
}

// lookFor proves that manifests are there.
func (r *Repository) lookFor(ctx context.Context, ids []BackupID) error {
	for _, id := range ids {
		found, err := r.published(ctx, id)
		if err == nil && !found {
			err = fmt.Errorf("%v: %w", id, ErrBackupNotFound)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// claimPoll is how often one who waits for another's claim looks, and claimTries how
// often he does where it should be there, or gone, in no time.
const (
	claimPoll  = 50 * time.Millisecond
	claimTries = 20
)

// awaitPrune returns when no prune, or merge, is running that says it may remove what the
// lease is of.
func (r *Repository) awaitPrune(ctx context.Context, lease *hold) error {
	for {
		h, err := r.readHold(ctx, pruneName, magicPrune)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil && !errors.Is(err, block.ErrCorrupt):
			return fmt.Errorf("look for a prune: %w", err)
		case err == nil && !h.touches(lease):
			return nil
		}
		alive, err := r.alive(ctx, pruneName)
		if err == nil && alive {
			err = pause(ctx)
		}
		if err != nil || !alive {
			return err
		}
	}
}

// touches reports whether the intent h names something that the lease is of.
func (h *hold) touches(lease *hold) bool {
	return h.All || slices.ContainsFunc(lease.Backups, func(id BackupID) bool { return slices.Contains(h.Backups, id) }) ||
		lease.Log != nil && slices.ContainsFunc(h.Logs, func(name string) bool {
			o, ok := parseLogName(ObjectInfo{Name: name})
			return ok && o.overlaps(*lease.Log)
		})
}

// pause waits a moment for somebody else's claim.
func pause(ctx context.Context) error {
	return sleepUntil(ctx, time.Now().Add(claimPoll))
}

// alive reports whether somebody who lives has hold of name. What the dead left is
// removed, but for the intent. Where that cannot be told, because nothing can be written, he lives.
func (r *Repository) alive(ctx context.Context, name string) (bool, error) {
	there, err := r.objects.Open(ctx, name) // a claim would make what is not there
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at %s: %w", name, err)
	}
	there.Close()
	claim, err := r.objects.Claim(ctx, name, nil)
	if errors.Is(err, ErrClaimed) || readOnly(err) {
		return true, nil
	}
	if err != nil {
		return false, writeError("look at "+name, err)
	}
	return false, (&held{r, name, claim}).Close()
}

// leases are what readers who live hold.
func (r *Repository) leases(ctx context.Context) (holds, error) {
	h := holds{by: map[BackupID]string{}}
	c, err := r.catalog(ctx)
	if err != nil {
		return h, err
	}
	for _, name := range c.leases {
		l, err := r.leased(ctx, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, block.ErrCorrupt):
			h.all = "by somebody who does not say what he reads: " + name
		case err != nil:
			return h, fmt.Errorf("look at leases: %w", err)
		}
		for _, id := range l.Backups {
			h.by[id] = l.By
		}
		if l.Log != nil {
			h.log = append(h.log, l)
		}
	}
	return h, nil
}

// leased reads a lease whose holder lives; fs.ErrNotExist if he does not. One that
// does not decode is being written, or looked at by another who sweeps: it will be
// there, or gone, in a moment.
func (r *Repository) leased(ctx context.Context, name string) (l hold, err error) {
	for range claimTries {
		alive, err := r.alive(ctx, name)
		if err == nil && !alive {
			err = fs.ErrNotExist
		}
		if err != nil {
			return l, err
		}
		if l, err = r.readHold(ctx, name, magicLease); !errors.Is(err, block.ErrCorrupt) {
			return l, err
		}
		if err := pause(ctx); err != nil {
			return l, err
		}
	}
	return r.readHold(ctx, name, magicLease)
}
