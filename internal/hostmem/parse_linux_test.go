package hostmem

import (
	"math"
	"reflect"
	"testing"

	"github.com/spillwaydb/spillway/internal/blindfuzz"
)

func TestParseValue(t *testing.T) {
	for text, want := range map[string]int64{
		"0\n": 0, "123": 123, "max\n": math.MaxInt64,
		"9223372036854775808": math.MaxInt64, "99999999999999999999999": math.MaxInt64,
	} {
		if got, err := parseValue([]byte(text)); got != want || err != nil {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1", "1 2", "0x10", "maximum"} {
		if got, err := parseValue([]byte(text)); err == nil {
			t.Errorf("%q was read as %d", text, got)
		}
	}
}

func TestParseMountinfo(t *testing.T) {
	const text = `36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue
30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
short line
`
	want := []mount{
		{"/mnt1", "/mnt 2", "ext3", "rw,errors=continue"},
		{"/", "/sys/fs/cgroup", "cgroup2", "rw,nsdelegate"},
	}
	if got := parseMountinfo([]byte(text)); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestLocateStaysWithinTheMount(t *testing.T) {
	for _, test := range []struct{ root, group, want string }{
		{"/", "/a/b", "/a/b"}, {"/", "/../x", "/x"}, {"/docker/id", "/docker/id/sub", "/sub"},
		{"/docker/id", "/docker/id", "/"}, {"/docker/id", "/docker/id2", "/"}, {"/a", "/../b", "/"},
	} {
		if got := (mount{root: test.root}).locate(test.group).path; got != test.want {
			t.Errorf("%s in %s is %s, want %s", test.group, test.root, got, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"MemTotal:       24684092 kB\n", "pswpin 12\n", "max\n", "0::/a/b\n4:memory:/x\n",
		"30 25 0:26 / /sys/fs\\040x rw - cgroup2 cgroup2 rw,memory\n", "some avg10=0.12 avg60=0.00\n", "\\04", "- - - - - - -",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, data []byte) {
		for _, parse := range []func() (int64, error){
			func() (int64, error) { return parseMeminfo(data, "MemTotal") },
			func() (int64, error) { return parseKeyed(data, "pswpin") },
			func() (int64, error) { return parseValue(data) },
		} {
			if n, err := parse(); n < 0 || err != nil && n != 0 {
				t.Errorf("%d, %v", n, err)
			}
		}
		if percent, err := parseStall(data); !(percent >= 0 && percent <= 100) {
			t.Errorf("%v, %v", percent, err)
		}
		paths, _ := parseCgroup(data)
		for _, m := range parseMountinfo(data) {
			m.hasOption("memory")
			for _, group := range []string{paths.unified, paths.legacy} {
				if p := m.locate(group); p.path == "" || p.path[0] != '/' || len(p.upwards()) == 0 {
					t.Errorf("%q is located at %+v", group, p)
				}
			}
		}
	}))
}
