package watch

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/spillwaydb/spillway/livebackup"
)

// repositoryEvery is how often the repository is looked at: each time, its manifests
// are read.
const repositoryEvery = 20 * time.Second

// RepositoryLook looks at a repository now and then, in a goroutine of its own: a slow one keeps
// no look at the database waiting. Safe for concurrent use.
type RepositoryLook struct {
	repo *livebackup.Repository

	mu    sync.Mutex // guards what follows
	busy  bool
	began time.Time
	found *Repository
}

// LookAt makes a look at repo.
func LookAt(repo *livebackup.Repository) *RepositoryLook { return &RepositoryLook{repo: repo} }

// Look returns what was found last, and looks again if that is old. Nil: nothing was
// found yet.
func (l *RepositoryLook) Look(ctx context.Context, now time.Time) *Repository {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy && (l.began.IsZero() || now.Sub(l.began) >= repositoryEvery) {
		l.busy, l.began = true, now
		go l.refresh(ctx)
	}
	return l.found
}

func (l *RepositoryLook) refresh(ctx context.Context) {
	found, err := readRepository(ctx, l.repo)
	if err != nil {
		found = &Repository{Error: err.Error()}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy, l.found = false, found
}

// readRepository finds the newest sound backup and the end of the archive.
func readRepository(ctx context.Context, repo *livebackup.Repository) (*Repository, error) {
	list, err := livebackup.List(ctx, repo)
	if err != nil {
		return nil, err
	}
	spaces, err := livebackup.LogSpaces(ctx, repo)
	if err != nil {
		return nil, err
	}
	r := &Repository{Backups: len(list)}
	slices.SortFunc(list, func(a, b livebackup.Entry) int { return cmp.Compare(a.ID.Sequence, b.ID.Sequence) })
	for _, e := range list {
		if s := e.State(); s == livebackup.StateComplete || s == livebackup.StateProven {
			r.Newest, r.Kind, r.State, r.Committed = e.ID, e.Manifest.Kind, s, e.Manifest.Committed
		}
	}
	for _, s := range spaces {
		if s.Objects > 0 {
			r.Archived = true
		}
		if len(s.Holes) == 0 && s.Until.After(r.Until) { // behind a hole nothing can be had
			r.ArchivedTo, r.Until = s.To, s.Until
		}
	}
	return r, nil
}
