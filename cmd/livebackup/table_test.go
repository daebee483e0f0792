package main

import (
	"strings"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/forecast"
	"github.com/spillwaydb/spillway/livebackup"
)

// Labels and owners are texts of others: in a table they take one line, and a terminal does
// not obey them.
func TestTables_TextsOfOthers(t *testing.T) {
	const evil = "nightly\n\x1b[31mred\tend \u202eπ"
	var b strings.Builder
	listText(&b, []backupJSON{{Manifest: livebackup.Manifest{Label: evil}}})
	statusReport{Snapshots: []snapshotReport{{Kind: "reader", Owner: evil, Label: evil, Opened: time.Now()}}}.snapshotsText(&b)
	text := b.String()
	if strings.Count(text, "\n") != 4 || strings.ContainsAny(text, "\x1b\u202e") || strings.Count(text, "nightly??[31mred?end ?π") != 3 {
		t.Errorf("%q", text)
	}
}

// Of a backup of which it is not known yet when it will be done, no time is told: "0 s" was.
func TestStatus_TimeLeftNotKnownYet(t *testing.T) {
	var b strings.Builder
	r := statusReport{Backups: []progressReport{{ID: 7, Rung: "cache"}, {ID: 8, Rung: "cache", Outlook: forecast.Outlook{TimeLeft: time.Minute, Verdict: forecast.Fits}}}}
	r.backupsText(&b)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 || !strings.HasSuffix(strings.TrimSpace(lines[1]), "cache  -") || strings.Contains(lines[1], "0 s") || !strings.Contains(lines[2], "1m00s  fits") {
		t.Errorf("%s", b.String())
	}
}
