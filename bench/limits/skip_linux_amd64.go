package main

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// debugRegisters is where the kernel shows a thread's, behind its other registers: struct
// user, u_debugreg.
const debugRegisters = 848

// returnsTo is where a function returns to that a thread stands at the beginning of.
func returnsTo(tid int, regs *unix.PtraceRegs) (uint64, error) {
	var b [8]byte
	_, err := unix.PtracePeekData(tid, uintptr(regs.Rsp), b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

// stopAt has a thread stop before the instruction at an address.
func stopAt(tid int, at uint64) error {
	if err := pokeDebug(tid, 0, at); err != nil {
		return err
	}
	return pokeDebug(tid, 7, 1) // the first address, of an instruction
}

// stopNowhere ends what stopAt began.
func stopNowhere(tid int) error { return pokeDebug(tid, 7, 0) }

func pokeDebug(tid, register int, v uint64) error {
	_, err := unix.PtracePokeUser(tid, uintptr(debugRegisters+8*register), binary.LittleEndian.AppendUint64(nil, v))
	return err
}
