//go:build !unix

package priority

// Set is ErrUnsupported, unless there is nothing to set.
func Set(nice int, class IOClass) error {
	if err := Validate(nice, class); err != nil {
		return err
	}
	if nice > 0 || class != IODefault {
		return ErrUnsupported
	}
	return nil
}
