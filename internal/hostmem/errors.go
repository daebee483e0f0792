package hostmem

import "errors"

// errInvalidSize is a size that no memory can have.
var errInvalidSize = errors.New("size is not positive")
