package vfs

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockOffset is where the one locked byte lies. Locks are mandatory on this
// system, so it must be where nobody ever reads or writes.
const lockOffset = 1 << 62

func lockedByte() *windows.Overlapped {
	return &windows.Overlapped{
		Offset:     lockOffset & 0xffffffff,
		OffsetHigh: lockOffset >> 32,
	}
}

func systemLock(f *os.File) error {
	err := control(f, func(fd uintptr) error {
		const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
		return windows.LockFileEx(windows.Handle(fd), flags, 0, 1, 0, lockedByte())
	})
	if err == windows.ERROR_LOCK_VIOLATION || err == windows.ERROR_IO_PENDING {
		return ErrLocked
	}
	return err
}

// systemUnlock gives the lock up now: the system promises no moment for that of a handle
// which is closed.
func systemUnlock(f *os.File) {
	_ = control(f, func(fd uintptr) error {
		return windows.UnlockFileEx(windows.Handle(fd), 0, 1, 0, lockedByte())
	})
}

func identify(f *os.File) (fileID, error) {
	info, err := handleInfo(f)
	return fileID{
		volume: uint64(info.VolumeSerialNumber),
		index:  uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
	}, err
}

func handleInfo(f *os.File) (info windows.ByHandleFileInformation, err error) {
	err = control(f, func(fd uintptr) error {
		return windows.GetFileInformationByHandle(windows.Handle(fd), &info)
	})
	return info, err
}
