package hostmem

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Limit is the machine's physical memory in bytes. Limits of a job object are
// not seen.
func Limit() (int64, error) {
	status, err := memoryStatus()
	return int64(status.totalPhys), err
}

// Available is the physical memory, in bytes, that can be had without writing
// anything out first.
func Available() (int64, error) {
	status, err := memoryStatus()
	return int64(status.availPhys), err
}

// Stall is errors.ErrUnsupported on this system.
func Stall() (float64, error) { return 0, errors.ErrUnsupported }

// SwapInBytes is errors.ErrUnsupported on this system.
func SwapInBytes() (int64, error) { return 0, errors.ErrUnsupported }

// memoryStatusEx is MEMORYSTATUSEX.
type memoryStatusEx struct {
	length               uint32
	memoryLoad           uint32
	totalPhys            uint64
	availPhys            uint64
	totalPageFile        uint64
	availPageFile        uint64
	totalVirtual         uint64
	availVirtual         uint64
	availExtendedVirtual uint64
}

func memoryStatus() (memoryStatusEx, error) {
	status := memoryStatusEx{length: uint32(unsafe.Sizeof(memoryStatusEx{}))}
	call := windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")
	if err := call.Find(); err != nil {
		return memoryStatusEx{}, err
	}
	if ok, _, err := call.Call(uintptr(unsafe.Pointer(&status))); ok == 0 {
		return memoryStatusEx{}, fmt.Errorf("GlobalMemoryStatusEx: %w", err)
	}
	return status, nil
}
