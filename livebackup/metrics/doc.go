// Package metrics tells Prometheus of a database and of its backups.
//
// It is a package of its own so that nobody who only embeds a database carries
// Prometheus with it. A program that has its own registry registers [New]'s collector
// there; package dashboard serves it under /metrics. Names, units and meanings are in
// docs/metrics.md, alerts to begin with in docs/alerts.yml.
//
// Each scrape asks the database once for its status; between them, nothing is done.
package metrics
