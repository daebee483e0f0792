package bench

// written counts bytes written since the process or the machine started, in three
// ways, none of which is right everywhere.
type written struct {
	// dirtied is what the kernel accounts to the process when a clean piece of
	// the page cache becomes dirty. It counts the whole piece, although only
	// the blocks that were changed are written: where a file was written (or
	// read ahead) in large steps, pieces are large, and a small write into one is
	// accounted as up to a thousand times its size.
	dirtied int64
	// passed is what the process gave to write calls. Right where everything
	// is synced before it is written again.
	passed int64
	// device is what the device wrote, for everybody: right on a quiet machine.
	device int64
}

// since puts what was written after earlier into m, also per byte of the user's.
func (w written) since(earlier written, m Metrics, userBytes float64) {
	for name, bytes := range map[string]int64{
		"written": w.dirtied - earlier.dirtied,
		"passed":  w.passed - earlier.passed,
		"device":  w.device - earlier.device,
	} {
		m[name+"_bytes"] = float64(bytes)
		m[name+"_per_user_byte"] = float64(bytes) / userBytes
	}
}
