package hostmem

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const meminfo = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    500 kB\n"

// fake is a host made of the files given, beside a plain meminfo.
func fake(t *testing.T, files map[string]string) host {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{"proc/meminfo": meminfo}
	for name, content := range files {
		all[name] = content
	}
	for name, content := range all {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return host{root: root}
}

func TestLimitAndAvailable(t *testing.T) {
	const kib = 1024
	const v2mount = "30 1 0:27 / /cg rw - cgroup2 cgroup2 rw\n"
	const v1mount = "29 1 0:26 / /cg/cpu rw - cgroup cgroup rw,cpu\n30 1 0:27 / /cg/memory rw shared:3 - cgroup cgroup rw,memory\n"
	const v1stat = "inactive_file 1\ntotal_inactive_file 20480\nhierarchical_memory_limit 9223372036854771712\n"
	const v2stat = "anon 1\ninactive_file 10240\n"
	for _, test := range []struct {
		name             string
		files            map[string]string
		limit, available int64
	}{
		{"no control groups", nil, 1000 * kib, 500 * kib},
		{"version 2", map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": v2mount,
			"cg/a/b/memory.max": "409600\n", "cg/a/b/memory.current": "307200\n", "cg/a/b/memory.stat": v2stat,
		}, 400 * kib, 110 * kib},
		{"version 2, the parent is narrower", map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": v2mount,
			"cg/a/b/memory.max": "max\n", "cg/a/b/memory.current": "307200\n", "cg/a/b/memory.stat": v2stat,
			"cg/a/memory.max": "512000\n", "cg/a/memory.current": "491520\n", "cg/a/memory.stat": v2stat,
		}, 500 * kib, 30 * kib},
		{"version 2, memory.high", map[string]string{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": v2mount,
			"cg/a/memory.max": "max\n", "cg/a/memory.high": "102400", "cg/a/memory.current": "204800\n", "cg/a/memory.stat": v2stat,
		}, 100 * kib, 0},
		{"version 1", map[string]string{
			"proc/self/cgroup": "3:cpu:/x\n2:memory,hugetlb:/a\n", "proc/self/mountinfo": v1mount,
			"cg/memory/a/memory.limit_in_bytes": "204800\n", "cg/memory/a/memory.usage_in_bytes": "102400\n", "cg/memory/a/memory.stat": v1stat,
			"cg/memory/memory.limit_in_bytes": "9223372036854771712\n", "cg/memory/memory.usage_in_bytes": "1024000000\n", "cg/memory/memory.stat": v1stat,
		}, 200 * kib, 120 * kib},
		{"version 1, a limit above what is mounted", map[string]string{
			"proc/self/cgroup":                     "2:memory:/docker/id\n",
			"proc/self/mountinfo":                  "30 1 0:27 /docker/id /cg/memory\\040here rw - cgroup cgroup rw,memory\n",
			"cg/memory here/memory.stat":           "total_inactive_file 0\nhierarchical_memory_limit 307200\n",
			"cg/memory here/memory.usage_in_bytes": "102400\n",
		}, 300 * kib, 200 * kib},
		{"a group outside what is mounted", map[string]string{
			"proc/self/cgroup": "0::/../other\n", "proc/self/mountinfo": "30 1 0:27 /docker /cg rw - cgroup2 cgroup2 rw\n",
			"cg/memory.max": "409600\n", "cg/memory.current": "0\n", "cg/memory.stat": v2stat,
		}, 400 * kib, 400 * kib},
		{"both versions", map[string]string{
			"proc/self/cgroup": "2:memory:/a\n0::/b\n", "proc/self/mountinfo": v1mount + "31 1 0:28 / /cg/unified rw - cgroup2 cgroup2 rw\n",
			"cg/memory/a/memory.limit_in_bytes": "204800\n", "cg/memory/a/memory.usage_in_bytes": "0\n", "cg/memory/a/memory.stat": v1stat,
			"cg/unified/b/cgroup.procs": "",
		}, 200 * kib, 200 * kib},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := fake(t, test.files)
			if got, err := h.limit(); got != test.limit || err != nil {
				t.Errorf("limit is %d, %v; want %d", got, err, test.limit)
			}
			if got, err := h.available(); got != test.available || err != nil {
				t.Errorf("available is %d, %v; want %d", got, err, test.available)
			}
		})
	}
}

// A limit that is there and cannot be understood must not be left out.
func TestUnreadableLimitsAreErrors(t *testing.T) {
	good := map[string]string{
		"proc/self/cgroup":    "0::/a\n",
		"proc/self/mountinfo": "30 1 0:27 / /cg rw - cgroup2 cgroup2 rw\n",
		"cg/a/memory.max":     "409600\n", "cg/a/memory.current": "0\n", "cg/a/memory.stat": "inactive_file 0\n",
	}
	for name, bad := range map[string]string{
		"proc/meminfo":        "MemTotal: lots kB\nMemAvailable: -5 kB\n",
		"proc/self/cgroup":    "nonsense\n",
		"cg/a/memory.max":     "a lot\n",
		"cg/a/memory.stat":    "anon 0\n",
		"cg/a/memory.current": "",
	} {
		files := make(map[string]string)
		for name, content := range good {
			files[name] = content
		}
		files[name] = bad
		h := fake(t, files)
		for what, ask := range map[string]func() (int64, error){"limit": h.limit, "available": h.available} {
			if _, err := ask(); err == nil || !strings.Contains(err.Error(), filepath.Base(name)) {
				t.Errorf("bad %s: %s says %v", name, what, err)
			}
		}
	}
}

func TestStall(t *testing.T) {
	const both = "some avg10=99.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=%s avg60=0.00 avg300=0.00 total=0\n"
	at := func(percent string) string { return strings.ReplaceAll(both, "%s", percent) }
	h := fake(t, map[string]string{"proc/pressure/memory": at("12.50")})
	if got, err := h.stall(); got != 12.5 || err != nil {
		t.Errorf("of the host: %v, %v", got, err)
	}
	h = fake(t, map[string]string{
		"proc/pressure/memory": at("12.50"), "proc/self/cgroup": "0::/a\n",
		"proc/self/mountinfo": "30 1 0:27 / /cg rw - cgroup2 cgroup2 rw\n", "cg/a/memory.pressure": at("3.00"),
	})
	if got, err := h.stall(); got != 3 || err != nil {
		t.Errorf("of the group: %v, %v", got, err)
	}
	if _, err := fake(t, nil).stall(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of a kernel that does not count: %v", err)
	}
	if _, err := fake(t, map[string]string{"proc/pressure/memory": at("NaN")}).stall(); err == nil {
		t.Error("NaN was accepted")
	}
}

// TestSwapIn: the process's own group counts if it is counted there, not the host.
func TestSwapIn(t *testing.T) {
	const vmstat = "pgpgin 7\npswpin 3\npswpout 9\n"
	const v1, v2 = "30 1 0:27 / /cg rw - cgroup cgroup rw,memory\n", "30 1 0:27 / /cg rw - cgroup2 cgroup2 rw\n"
	for name, x := range map[string]struct {
		cgroup, mounts, stat string
		pages                int64
	}{
		"no group":                {"", "", "", 3},
		"version 1":               {"2:memory:/a\n", v1, "swap 4096\nworkingset_refault_anon 8\ntotal_workingset_refault_anon 9\n", 9},
		"version 1, says nothing": {"2:memory:/a\n", v1, "swap 4096\n", 3},
		"version 2":               {"0::/a\n", v2, "workingset_refault_anon 6\npswpin 5\n", 5},
		"version 2, older":        {"0::/a\n", v2, "workingset_refault_anon 6\n", 6},
		"no controller":           {"0::/b\n", v2, "pswpin 5\n", 3},
	} {
		files := map[string]string{"proc/vmstat": vmstat, "cg/a/memory.stat": x.stat}
		if x.cgroup != "" {
			files["proc/self/cgroup"], files["proc/self/mountinfo"] = x.cgroup, x.mounts
		}
		h := fake(t, files)
		if got, err := h.swapInBytes(); got != x.pages*int64(os.Getpagesize()) || err != nil {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	h := fake(t, map[string]string{"proc/vmstat": "pswpin 18446744073709551615\n"})
	if got, err := h.swapInBytes(); got <= math.MaxInt64/2 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := fake(t, map[string]string{"proc/vmstat": "pgpgin 7\n"}).swapInBytes(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of a kernel that does not count: %v", err)
	}
}

// This machine answers, and sensibly.
func TestThisHost(t *testing.T) {
	limit, err := Limit()
	if err != nil {
		t.Fatal(err)
	}
	available, err := Available()
	if err != nil {
		t.Fatal(err)
	}
	if limit < 1<<20 || available < 0 || available > limit {
		t.Errorf("limit %d, available %d", limit, available)
	}
	if percent, err := Stall(); err != nil && !errors.Is(err, errors.ErrUnsupported) || percent < 0 {
		t.Errorf("stall %v, %v", percent, err)
	}
	if bytes, err := SwapInBytes(); err != nil || bytes < 0 {
		t.Errorf("swapped in %d, %v", bytes, err)
	}
}

func BenchmarkAvailable(b *testing.B) {
	for b.Loop() {
		if _, err := Available(); err != nil {
			b.Fatal(err)
		}
	}
}
