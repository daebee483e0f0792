// Package dashboard is a page to look at a database that lives: what "livebackup
// watch" shows, with curves over the last hours, and metrics for Prometheus.
//
//	d, err := dashboard.New(livebackup.NewSource(store), dashboard.Options{})
//	defer d.Close()
//	ln, err := dashboard.Listen("127.0.0.1:0", false)
//	fmt.Println(d.URL(ln.Addr()))
//	err = d.Serve(ctx, ln)
//
// A [Dashboard] is an http.Handler, too, for a program that has a server of its own:
// all its addresses are relative, so it works below any path (http.StripPrefix).
//
// # What it serves
//
//	/               the page; everything it needs is embedded, nothing comes from elsewhere
//	/state.json     what is now, as "livebackup watch --json"
//	/history.json   curves; ?range=hours for the last six, else the last half hour
//	/metrics        for Prometheus, see package metrics
//
// # Who may look
//
// A page that shows owners, labels and sizes is nobody's business but the operator's.
// So a [Listen] is on loopback unless something else is asked for expressly, and every
// address wants a token of 128 random bits: as "Authorization: Bearer", or as a cookie
// that the first visit with ?token= sets, after which it is gone from the address. It is
// compared in constant time, and never logged. A page of somebody else in the same
// browser can do nothing: the cookie is of this site only, there is nothing that
// changes anything, and a Host that is a foreign name is refused, however it resolves.
//
// # What it costs
//
// One status of the database every two seconds, and less than 2 MiB: the curves are
// rings.
package dashboard
