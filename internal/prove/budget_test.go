//go:build invariants

package prove

import (
	"context"
	"flag"
	"testing"

	"github.com/spillwaydb/spillway/internal/chance"
)

var flagEach = flag.Int("each", 12, "requests to the memory budget that are refused, of each kind; 0: every one")

// TestBudget_L9_R7_EveryRequest refuses requests to the memory budget, one after the
// other: a sample by default, every one with -each 0.
func TestBudget_L9_R7_EveryRequest(t *testing.T) {
	o := BudgetOptions{Seed: chance.Seed(t), Each: *flagEach, Duration: *flagFor}
	counts, err := Budget(context.Background(), o)
	t.Log(counts)
	if err != nil {
		t.Fatal(err)
	}
}
