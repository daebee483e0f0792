package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// field returns the number behind name in a file of lines "name: number"; 0 if
// it is not there.
func field(file, name string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && key == name {
			if words := strings.Fields(value); len(words) > 0 {
				n, _ := strconv.ParseInt(words[0], 10, 64)
				return n
			}
		}
	}
	return 0
}

// writtenNow is what has been written until now.
func writtenNow(dir string) written {
	return written{
		dirtied: field("/proc/self/io", "write_bytes"),
		passed:  field("/proc/self/io", "wchar"),
		device:  deviceBytesWritten(dir),
	}
}

// readNow is what read calls of this process have returned, in bytes.
func readNow() int64 { return field("/proc/self/io", "rchar") }

// deviceBytesWritten is what the device below dir has written, for everybody; 0
// if that is no plain block device.
func deviceBytesWritten(dir string) int64 {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0
	}
	data, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	fields := strings.Fields(string(data))
	const sectorsWritten, sectorBytes = 6, 512
	if err != nil || len(fields) <= sectorsWritten {
		return 0
	}
	n, _ := strconv.ParseInt(fields[sectorsWritten], 10, 64)
	return n * sectorBytes
}

// peakResident is the most memory that this process had at once, in bytes.
func peakResident() int64 { return field("/proc/self/status", "VmHWM") << 10 }

// cpuModel is the name of the first processor.
func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func memoryBytes() int64 { return field("/proc/meminfo", "MemTotal") << 10 }

func kernelRelease() string {
	data, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return "Linux " + strings.TrimSpace(string(data))
}

// fileSystem is the type and the device of the file system that dir is on.
func fileSystem(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	data, _ := os.ReadFile("/proc/self/mountinfo")
	best, found := 0, ""
	for line := range strings.Lines(string(data)) {
		front, back, ok := strings.Cut(line, " - ")
		place, kind := strings.Fields(front), strings.Fields(back)
		if !ok || len(place) < 5 || len(kind) < 2 {
			continue
		}
		at := strings.TrimSuffix(place[4], "/") + "/"
		if strings.HasPrefix(dir+"/", at) && len(at) >= best {
			best, found = len(at), kind[0]+" on "+kind[1]
		}
	}
	return found
}
