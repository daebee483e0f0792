package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spillwaydb/spillway/livebackup/dashboard"
)

const dashboardLong = `Serves a page that shows what "livebackup watch" shows, with curves over the
last hours, and metrics for Prometheus under /metrics. It prints the address,
token included: without the token nobody gets anything, /metrics neither; there
it goes into the header "Authorization: Bearer TOKEN".

It listens on this machine only, unless --anywhere says that others may come.
There is no encryption: put a proxy with TLS before it if they do.

The token is a new one each time, or what --token-file has, for a Prometheus
that is to find it. The database must be served by the process that has it open.
Ctrl-C ends it.`

type dashboardFlags struct {
	dir       string
	repo      repositoryFlags
	listen    string
	anywhere  bool
	tokenFile string
}

func (a *app) dashboard() *cobra.Command {
	var f dashboardFlags
	c := &cobra.Command{
		Use: "dashboard --db DIR [--repo DIR]", Short: "Serve a page, and metrics for Prometheus, about a database",
		Long: dashboardLong, Args: noArgs,
		Example: "  livebackup dashboard --db /srv/app/db --repo /backups/app\n" +
			"  livebackup dashboard --db /srv/app/db --listen 127.0.0.1:9180 \\\n    --token-file /etc/spillway/token",
		RunE: a.command(func(ctx context.Context, _ []string) error { return a.runDashboard(ctx, f) }),
	}
	c.Flags().StringVar(&f.dir, "db", "", "`directory` of the database (required)")
	require(c, "db")
	f.repo.addOptional(c)
	c.Flags().StringVar(&f.listen, "listen", "127.0.0.1:0", "`address` and port; port 0 is any that is free")
	c.Flags().BoolVar(&f.anywhere, "anywhere", false, "allow an address that other machines can reach")
	c.Flags().StringVar(&f.tokenFile, "token-file", "", "`file` with the token, at least 16 bytes")
	mustBeFile(c, "token-file")
	return c
}

// dashboardResult is what the dashboard command prints when it listens.
type dashboardResult struct {
	URL     string `json:"url"`
	Address string `json:"address"`
}

func (a *app) runDashboard(ctx context.Context, f dashboardFlags) error {
	var o dashboard.Options
	if f.tokenFile != "" {
		token, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return fmt.Errorf("read token: %w", err)
		}
		if o.Token = strings.TrimSpace(string(token)); o.Token == "" {
			return &usageError{fmt.Errorf("%s holds no token", f.tokenFile)}
		}
	}
	client, err := dial(f.dir)
	if err != nil {
		return err
	}
	if o.Repository, err = f.repo.openIfNamed(ctx); err != nil {
		return err
	}
	d, err := dashboard.New(client, o)
	if err != nil {
		return &usageError{err}
	}
	defer d.Close()
	ln, err := dashboard.Listen(f.listen, f.anywhere)
	if err != nil {
		return err
	}
	out := dashboardResult{d.URL(ln.Addr()), ln.Addr().String()}
	if err := a.print(out, func(w io.Writer) { fmt.Fprintln(w, out.URL) }); err != nil {
		ln.Close()
		return err
	}
	return d.Serve(ctx, ln)
}
