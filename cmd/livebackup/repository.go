package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/livebackup"
)

// repositoryFlags say which repository, and which keys open it.
type repositoryFlags struct {
	dir        string
	identities []string
}

func (f *repositoryFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "repo", "", "directory of the repository (required)")
	c.Flags().StringArrayVar(&f.identities, "identity", nil, "file with a key that opens an encrypted repository")
	require(c, "repo")
	if err := c.MarkFlagFilename("identity"); err != nil {
		panic(err) // the flag was not defined: a mistake in this package
	}
}

func (f *repositoryFlags) options() livebackup.RepositoryOptions {
	return livebackup.RepositoryOptions{}
}

// create is options for who makes the repository if there is none.
func (f *repositoryFlags) create() livebackup.RepositoryOptions {
	o := f.options()
	o.Create = true
	return o
}

// open opens the repository, which is there.
func (f *repositoryFlags) open(ctx context.Context) (*livebackup.Repository, error) {
	return livebackup.OpenRepository(ctx, f.dir, f.options())
}

// complete names the backups in the repository to a shell.
func (f *repositoryFlags) complete(ctx context.Context) ([]string, cobra.ShellCompDirective) {
	repo, err := f.open(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	entries, err := livebackup.List(ctx, repo)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, e := range entries {
		names = append(names, fmt.Sprintf("%v\t%s %s %s", e.ID, when(e.Manifest.Started), e.State(), e.Manifest.Label))
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
