package mutants

func ofSocket() []Mutant {
	livebackup := []string{"livebackup"}
	return []Mutant{
		{"a socket is removed by its number when that may be another's", "R21", "livebackup/serve.go",
			"\tif info, statErr := os.Lstat(s.path);", "\ts.ln.Close()\n\tif info, statErr := os.Lstat(s.path);", livebackup},
		{"who has the socket and is busy counts as dead", "L12", "livebackup/serve.go", "if !errors.Is(err, ErrNotServed) {", "if false {", livebackup},
		{"a standby is promoted twice", "L14", "livebackup/promote.go", "if c.s.promoted {", "if c.s.promoted && false {", livebackup},
		{"a client writes on behind half a frame", "R21", "livebackup/client.go", "\tif c.mute {\n\t\treturn\n\t}\n", "", livebackup},
		{"a check goes on that nobody hears", "R21", "livebackup/serveconn.go", "\t\t\t\tcancel(err)\n", "\t\t\t\t_ = err\n", livebackup},
	}
}
