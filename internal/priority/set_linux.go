package priority

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Numbers of ioprio_set(2), which x/sys does not have.
const (
	ioprioWhoProcess  = 1 // a thread, really
	ioprioClassShift  = 13
	ioprioBestEffort  = 2
	ioprioIdle        = 3
	ioprioLevelLowest = 7
)

func (c IOClass) number() uintptr {
	if c == IOIdle {
		return ioprioIdle << ioprioClassShift
	}
	return ioprioBestEffort<<ioprioClassShift | ioprioLevelLowest
}

// Set gives this process a niceness, unless it is 0, and an I/O class, unless that is
// IODefault.
func Set(nice int, class IOClass) error {
	if err := Validate(nice, class); err != nil {
		return err
	}
	done := map[int]bool{}
	for {
		threads, err := threads()
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		found := false
		for _, id := range threads {
			if done[id] {
				continue
			}
			found, done[id] = true, true
			if err := set(id, nice, class); err != nil && !errors.Is(err, syscall.ESRCH) { // it has ended
				return err
			}
		}
		if !found {
			return nil
		}
	}
}

func threads() (ids []int, err error) {
	entries, err := os.ReadDir("/proc/self/task")
	for _, e := range entries {
		if id, err := strconv.Atoi(e.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, err
}

func set(thread, nice int, class IOClass) error {
	if nice > 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, thread, nice); err != nil {
			return fmt.Errorf("set niceness: %w", err)
		}
	}
	if class != IODefault {
		if _, _, no := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(thread), class.number()); no != 0 {
			return fmt.Errorf("set I/O class: %w", no)
		}
	}
	return nil
}
