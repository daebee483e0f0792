package tidy

import (
	"cmp"
	"fmt"
	"slices"
)

// Finding is one place that breaks a rule.
type Finding struct {
	Path string // in the repository, with slashes
	Line int    // 0: the file or folder as a whole
	Rule string
	Text string
}

func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s: %s", f.Path, f.Rule, f.Text)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.Path, f.Line, f.Rule, f.Text)
}

// Check applies all rules to the repository at root. An error means that the
// rules could not be applied.
func Check(root string) ([]Finding, error) {
	t, err := readTree(root)
	if err != nil {
		return nil, err
	}
	for _, rule := range []func(*tree){
		checkImports, checkLengths, checkDocs, checkNames, checkCalls, checkLeftovers,
		checkLaws, checkMission, checkNamedTests, checkLinks, checkOperating, checkReached, checkExample,
	} {
		rule(t)
	}
	found := withoutExceptions(t.findings)
	slices.SortFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Text, b.Text))
	})
	return found, nil
}
