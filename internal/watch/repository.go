package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
// found yet. Backups of another database than the one named say nothing about it.
func (l *RepositoryLook) Look(ctx context.Context, now time.Time, database string) *Repository {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.busy && (l.began.IsZero() || now.Sub(l.began) >= repositoryEvery) {
		l.busy, l.began = true, now
		go l.refresh(ctx)
	}
	if r := l.found; r != nil && r.database != "" && database != "" && r.database != database {
		return &Repository{Error: fmt.Sprintf("%v: %s", livebackup.ErrForeignDatabase, r.database)}
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
	owner, known, err := repo.Database(ctx)
	if err != nil {
		return nil, err
	}
	if known {
		r.database = owner.String()
	}
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
	}
	if !r.Archived || r.Newest.IsZero() { // without a sound backup log leads nowhere
		return r, nil
	}
	// Only a restore knows which log it would get to: there may be a hole before a backup that is damaged.
	newest, err := livebackup.PlanRestore(ctx, repo, livebackup.RestoreTarget{})
	if errors.Is(err, livebackup.ErrUnreachable) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	r.ArchivedTo, r.Until = newest.LSN, newest.Time
	return r, nil
}
