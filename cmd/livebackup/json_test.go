package main

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spillwaydb/spillway/internal/watch"
	"github.com/spillwaydb/spillway/livebackup"
)

// Every field of what commands print is in docs/json.md, and no other.
func TestJSON_EveryFieldIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	for section, printed := range map[string]any{
		"A backup": backupJSON{}, "backup": backupResult{}, "plan": livebackup.BackupPlan{}, "archive": archiveJSON{},
		"logs": livebackup.LogSpace{}, "verify": livebackup.Proof{}, "restore": restoreResult{}, "restore --dry-run": planJSON{},
		"drill": drillResult{}, "get, extract": record{}, "prune, delete": livebackup.PruneResult{}, "prune --dry-run": livebackup.PrunePlan{},
		"status": statusReport{}, "watch": watch.View{}, "check": checkResult{}, "repair": repairResult{},
	} {
		_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
		if !found {
			t.Errorf("there is no section %q", section)
			continue
		}
		rest, _, _ = strings.Cut(rest, "\n## ")
		var said []string
		for line := range strings.Lines(rest) {
			if cells := strings.Split(line, "|"); len(cells) > 3 && strings.HasPrefix(line, "| `") {
				for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
					said = append(said, m[1])
				}
			}
		}
		is := printedFields(reflect.TypeOf(printed), "")
		if section == "backup" { // the rest is that of a backup
			both := printedFields(reflect.TypeFor[backupJSON](), "")
			is = slices.DeleteFunc(is, func(f string) bool { return slices.Contains(both, f) })
		}
		for _, f := range is {
			if !slices.Contains(said, f) {
				t.Errorf("%s: %s is not documented", section, f)
			}
		}
		for _, f := range said {
			if !slices.Contains(is, f) {
				t.Errorf("%s: %s is documented and not there", section, f)
			}
		}
	}
}

// Every kind of error is in docs/json.md, with its exit code.
func TestJSON_EveryKindIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range outcomes {
		if !regexp.MustCompile(fmt.Sprintf("(?m)^\\| %d \\|.*`%s`", o.code, o.kind)).Match(text) {
			t.Errorf("kind %s with exit code %d is not documented", o.kind, o.code)
		}
	}
}

// elsewhere are types that are described once, where the text says.
var elsewhere = []reflect.Type{
	reflect.TypeFor[livebackup.Record](), reflect.TypeFor[livebackup.Cost](), reflect.TypeFor[livebackup.Run](),
	reflect.TypeFor[backupJSON](), reflect.TypeFor[livebackup.Proof](),
}

// printedFields are the paths of what a type has in JSON.
func printedFields(typ reflect.Type, path string) (list []string) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	text := reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()
	switch {
	case typ.Kind() == reflect.Slice:
		return printedFields(typ.Elem(), path+"[]")
	case typ.Kind() != reflect.Struct || typ.Implements(text) || path != "" && slices.Contains(elsewhere, typ):
		return []string{path}
	case path == "best", path == "at_this_rate": // as "now"
		return []string{path}
	}
	for _, f := range reflect.VisibleFields(typ) {
		if len(f.Index) > 1 || !f.IsExported() && !f.Anonymous {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
			continue
		case f.Anonymous && name == "":
			list = append(list, printedFields(f.Type, path)...)
			continue
		case name == "":
			name = f.Name // what has no name of its own shows as such
		}
		if path != "" {
			name = path + "." + name
		}
		list = append(list, printedFields(f.Type, name)...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
