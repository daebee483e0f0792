package livebackup

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/spillwaydb/spillway/internal/simfs"
)

// hooked calls before what changes the names of a repository; an error is that of the
// operation, which is not done then.
type hooked struct {
	Objects
	before func(op string, names ...string) error
}

func (h *hooked) Create(ctx context.Context, name string) (ObjectWriter, error) {
	if err := h.before("create", name); err != nil {
		return nil, err
	}
	return h.Objects.Create(ctx, name)
}

func (h *hooked) Delete(ctx context.Context, names ...string) error {
	if err := h.before("delete", names...); err != nil {
		return err
	}
	return h.Objects.Delete(ctx, names...)
}

func (h *hooked) Claim(ctx context.Context, name string, note []byte) (io.Closer, error) {
	if err := h.before("claim", name); err != nil {
		return nil, err
	}
	return h.Objects.Claim(ctx, name, note)
}

// hook is repo with a hook.
func hook(repo *Repository, before func(op string, names ...string) error) *Repository {
	own := *repo
	own.objects = &hooked{repo.objects, before}
	return &own
}

// kindOf is what an object is.
func kindOf(name string) kind {
	_, k, _, _, _ := parseObjectName(name)
	return k
}

// wantSound proves that everything that is listed is whole (L12).
func wantSound(t *testing.T, repo *Repository, n int) {
	t.Helper()
	list := mustList(t, repo)
	for _, e := range list {
		mustProve(t, repo, e.ID)
	}
	if len(list) != n {
		t.Fatalf("%d backups, want %d", len(list), n)
	}
}

// TestL12_TakingOverARunThatPublishes: a backup lists a run that has a record, and claims
// it. In between that run was alive: it has published its backup, and let go of its claim,
// just then, or has also removed its record. Its backup must not be taken for what was
// cut off.
func TestL12_TakingOverARunThatPublishes(t *testing.T) {
	for _, through := range []bool{false, true} {
		disk := simfs.New()
		h := newHistory(t, rand.New(rand.NewPCG(4, 4)), disk, "/db")
		h.commit(200, 0, 0)
		repo := openRepo(t, disk, "/repo")
		o := rebaseOptions
		o.Type = TypeFull

		ready, publish := make(chan struct{}), make(chan struct{})
		letGo, tidy, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
		first := hook(repo, func(op string, names ...string) error {
			switch {
			case op == "create" && kindOf(names[0]) == kindManifest:
				close(ready)
				<-publish
			case op == "delete" && len(names) == 2: // the record and the claim
				close(letGo)
				<-tidy
			}
			return nil
		})
		var failed error
		go func() {
			defer close(ended)
			_, failed = Backup(t.Context(), NewSource(h.store), first, o)
		}()
		<-ready
		claimed := false
		second := hook(repo, func(op string, names ...string) error {
			if op != "claim" || kindOf(names[0]) != kindRun || claimed {
				return nil
			}
			claimed = true
			close(publish)
			<-letGo
			if through {
				close(tidy)
				<-ended
			}
			return nil
		})
		_, err := Backup(t.Context(), NewSource(h.store), second, o)
		if !through {
			close(tidy)
			<-ended
		}
		if !claimed || failed != nil || err != nil {
			t.Fatal(claimed, failed, err)
		}
		wantSound(t, repo, 2)
		h.store.Close()
	}
}

// TestL12_DeletedIsNotGoneOnWith: a backup is there, and the record of its run, since the
// machine stopped before that was removed. It is deleted; between its manifest and its
// objects another backup looks for what it can go on with.
func TestL12_DeletedIsNotGoneOnWith(t *testing.T) {
	disk := simfs.New()
	h := newHistory(t, rand.New(rand.NewPCG(4, 4)), disk, "/db")
	h.commit(200, 0, 0)
	repo := openRepo(t, disk, "/repo")
	o := rebaseOptions
	o.Type = TypeFull
	m := mustBackup(t, NewSource(h.store), hook(repo, func(op string, names ...string) error {
		if op == "delete" && len(names) == 2 {
			return errors.New("the machine stops")
		}
		return nil
	}), o)
	if partials(t, repo) != 1 {
		t.Fatal("there is no record")
	}
	looked := false
	_, err := Delete(t.Context(), hook(repo, func(op string, names ...string) error {
		if objects := slices.ContainsFunc(names, func(n string) bool { return kindOf(n) == kindBlocks }); op == "delete" && objects && !looked {
			looked = true
			mustBackup(t, NewSource(h.store), repo, o)
		}
		return nil
	}), m.ID, DeleteOptions{Force: true})
	if err != nil || !looked {
		t.Fatal(looked, err)
	}
	wantSound(t, repo, 1)
}
