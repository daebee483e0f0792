package mutants

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrStale means that a planted bug no longer fits its file: the code was changed, and
// the list has to follow.
var ErrStale = errors.New("the text to change is not there exactly once")

// Plant writes what the go command's -overlay takes for a planted bug to directory
// dir, and returns the name of that file. root is where the module is. Nothing
// outside dir is changed.
func Plant(root, dir string, m Mutant) (overlay string, err error) {
	file := filepath.Join(root, filepath.FromSlash(m.File))
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("plant %q: %w", m.Name, err)
	}
	if n := strings.Count(string(text), m.Old); n != 1 || m.Old == m.New {
		return "", fmt.Errorf("plant %q in %s: found %d times: %w", m.Name, m.File, n, ErrStale)
	}
	changed := filepath.Join(dir, filepath.Base(m.File))
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), m.Old, m.New, 1)), 0o600); err != nil {
		return "", fmt.Errorf("plant %q: %w", m.Name, err)
	}
	data, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		return "", fmt.Errorf("plant %q: %w", m.Name, err)
	}
	overlay = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, data, 0o600); err != nil {
		return "", fmt.Errorf("plant %q: %w", m.Name, err)
	}
	return overlay, nil
}
