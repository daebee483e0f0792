//go:build !linux

package bench

import "runtime"

func writtenNow(string) written { return written{} }

func readNow() int64 { return 0 }

func peakResident() int64 { return 0 }

func cpuModel() string { return "" }

func memoryBytes() int64 { return 0 }

func kernelRelease() string { return runtime.GOOS }

func fileSystem(string) string { return "" }
