package hostmem

import (
	"math"
	"path/filepath"
	"strings"
)

// group is what one control group says about memory, children included.
type group struct {
	limitBytes       int64 // math.MaxInt64 if it has none
	usageBytes       int64
	reclaimableBytes int64 // file cache not used lately
}

// headroom is what the group may still grow by once the kernel has taken back
// what is easy to take back.
func (g group) headroom() int64 {
	used := max(g.usageBytes-g.reclaimableBytes, 0)
	return max(g.limitBytes-used, 0)
}

// groupFiles are the names that a version of control groups gives its files.
type groupFiles struct {
	limits      []string
	usage       string
	reclaimable string // key in memory.stat
	above       string // key in memory.stat: limit of the groups above; "" if untold
}

var (
	unifiedFiles = groupFiles{
		limits:      []string{"memory.max", "memory.high"},
		usage:       "memory.current",
		reclaimable: "inactive_file",
	}
	legacyFiles = groupFiles{
		limits:      []string{"memory.limit_in_bytes"},
		usage:       "memory.usage_in_bytes",
		reclaimable: "total_inactive_file",
		above:       "hierarchical_memory_limit",
	}
)

// membership is where the process stands in the trees of groups.
type membership struct {
	unified *place // version 2
	legacy  *place // version 1, the tree of the memory controller
}

// place is a group within a mounted tree.
type place struct {
	mountPoint string
	path       string // below the mount point, clean, starts with "/"
}

func (p *place) dir() string { return filepath.Join(p.mountPoint, p.path) }

// upwards lists the directories from the group up to the root of its tree.
func (p *place) upwards() []string {
	var dirs []string
	for path := p.path; ; path = filepath.Dir(path) {
		dirs = append(dirs, filepath.Join(p.mountPoint, path))
		if path == "/" {
			return dirs
		}
	}
}

func (h host) membership() (membership, error) {
	const cgroup, mountinfo = "/proc/self/cgroup", "/proc/self/mountinfo"
	var m membership
	data, err := h.read(cgroup)
	if notThere(err) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	paths, err := parseCgroup(data)
	if err != nil {
		return m, inFile(cgroup, err)
	}
	data, err = h.read(mountinfo)
	if err != nil {
		return m, err
	}
	for _, mount := range parseMountinfo(data) {
		switch {
		case mount.fsType == "cgroup2" && paths.unified != "" && m.unified == nil:
			m.unified = mount.locate(paths.unified)
		case mount.fsType == "cgroup" && mount.hasOption("memory") && paths.legacy != "" && m.legacy == nil:
			m.legacy = mount.locate(paths.legacy)
		}
	}
	return m, nil
}

// locate finds a group in a mounted tree. What is mounted may be only a branch
// of the tree, and a process moved in from outside may stand above that; then
// the root of the mount is the nearest that can be seen.
func (m mount) locate(groupPath string) *place {
	path := filepath.Clean("/" + groupPath)
	if m.root != "/" {
		below, ok := strings.CutPrefix(path, m.root)
		if !ok || (below != "" && below[0] != '/') {
			below = "/"
		}
		path = filepath.Clean("/" + below)
	}
	return &place{mountPoint: m.point, path: path}
}

// groups reads the process's groups and those above them, as far as they have
// anything to do with memory.
func (h host) groups() ([]group, error) {
	m, err := h.membership()
	if err != nil {
		return nil, err
	}
	var groups []group
	for _, tree := range []struct {
		place *place
		files groupFiles
	}{{m.unified, unifiedFiles}, {m.legacy, legacyFiles}} {
		if tree.place == nil {
			continue
		}
		for _, dir := range tree.place.upwards() {
			g, ok, err := h.group(dir, tree.files)
			if err != nil {
				return nil, err
			}
			if ok {
				groups = append(groups, g)
			}
		}
	}
	return groups, nil
}

// group reads one group; false if it has no limit (the root has no such files,
// and neither has a tree without the memory controller).
func (h host) group(dir string, files groupFiles) (group, bool, error) {
	g := group{limitBytes: math.MaxInt64}
	for _, name := range files.limits {
		limit, err := h.groupValue(dir, name)
		if notThere(err) {
			continue
		}
		if err != nil {
			return g, false, err
		}
		g.limitBytes = min(g.limitBytes, limit)
	}
	if err := h.addStat(&g, dir, files); err != nil && !notThere(err) {
		return g, false, err
	}
	if g.limitBytes == math.MaxInt64 {
		return g, false, nil
	}
	usage, err := h.groupValue(dir, files.usage)
	g.usageBytes = usage
	return g, true, err
}

// addStat adds what only memory.stat tells.
func (h host) addStat(g *group, dir string, files groupFiles) error {
	name := filepath.Join(dir, "memory.stat")
	data, err := h.read(name)
	if err != nil {
		return err
	}
	if g.reclaimableBytes, err = parseKeyed(data, files.reclaimable); err != nil {
		return inFile(name, err)
	}
	if files.above == "" {
		return nil
	}
	above, err := parseKeyed(data, files.above)
	g.limitBytes = min(g.limitBytes, above)
	return inFile(name, err)
}

func (h host) groupValue(dir, file string) (int64, error) {
	name := filepath.Join(dir, file)
	data, err := h.read(name)
	if err != nil {
		return 0, err
	}
	value, err := parseValue(data)
	return value, inFile(name, err)
}
