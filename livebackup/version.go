package livebackup

import "runtime/debug"

// createdBy names the program and version in what we write.
var createdBy = programVersion()

func programVersion() string {
	version := "(devel)"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == "github.com/spillwaydb/spillway" && m.Version != "" {
				version = m.Version
			}
		}
	}
	return "spillway " + version
}
