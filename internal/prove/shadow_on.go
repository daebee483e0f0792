//go:build invariants

package prove

import (
	"fmt"
	"os"
	"strings"

	"github.com/spillwaydb/spillway/internal/shadow"
)

// nameIfItDies says which schedule it was when the store notices a wrong version itself,
// which ends the process. It returns what ends that.
func (p *performance) nameIfItDies() func() {
	shadow.Instead(func(text string) {
		fmt.Fprintln(os.Stderr, p.again())
		shadow.Instead(nil)
		shadow.Fail("%s", strings.TrimPrefix(text, "shadow: "))
	})
	return func() { shadow.Instead(nil) }
}
