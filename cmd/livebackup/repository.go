package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/livebackup"
)

// repositoryFlags say which repository, and which keys open it. Keys come from files
// only: a command line is seen by others.
type repositoryFlags struct {
	dir        string
	identities []string
	recipients []string
}

func (f *repositoryFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "repo", "", "`directory` of the repository (required)")
	c.Flags().StringArrayVar(&f.identities, "identity", nil, "`file` with an age key that opens an encrypted repository")
	require(c, "repo")
	mustBeFile(c, "identity")
}

// addOptional is for commands that can do without.
func (f *repositoryFlags) addOptional(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "repo", "", "`directory` of the repository")
	c.Flags().StringArrayVar(&f.identities, "identity", nil, "`file` with an age key that opens an encrypted repository")
	if err := c.MarkFlagDirname("repo"); err != nil {
		panic(err) // the flag was not defined: a mistake in this package
	}
	mustBeFile(c, "identity")
}

// addRecipients is for commands that may make the repository.
func (f *repositoryFlags) addRecipients(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.recipients, "recipients", nil, "`file` with age public keys: encrypt a new repository for all of them, or what is added to one from now on")
	mustBeFile(c, "recipients")
}

func mustBeFile(c *cobra.Command, flag string) {
	if err := c.MarkFlagFilename(flag); err != nil {
		panic(err) // the flag was not defined: a mistake in this package
	}
}

// open opens the repository, which is there.
func (f *repositoryFlags) open(ctx context.Context) (*livebackup.Repository, error) {
	return f.openOr(ctx, livebackup.RepositoryOptions{})
}

// openIfNamed opens the repository, nil if none was named.
func (f *repositoryFlags) openIfNamed(ctx context.Context) (*livebackup.Repository, error) {
	if f.dir == "" {
		return nil, nil
	}
	return f.open(ctx)
}

// openOrMake makes the repository if there is none.
func (f *repositoryFlags) openOrMake(ctx context.Context) (*livebackup.Repository, error) {
	return f.openOr(ctx, livebackup.RepositoryOptions{Create: true})
}

func (f *repositoryFlags) openOr(ctx context.Context, o livebackup.RepositoryOptions) (_ *livebackup.Repository, err error) {
	if len(f.identities) > 0 {
		if o.Identities, err = livebackup.ReadIdentities(f.identities...); err != nil {
			return nil, err
		}
	}
	if len(f.recipients) > 0 {
		if o.Recipients, err = livebackup.ReadRecipients(f.recipients...); err != nil {
			return nil, err
		}
	}
	return livebackup.OpenRepository(ctx, f.dir, o)
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
		names = append(names, fmt.Sprintf("%v\t%s %s %s", e.ID, when(e.Manifest.Started), e.State(), printable(e.Manifest.Label)))
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}
