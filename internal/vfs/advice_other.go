//go:build !linux

package vfs

import "os"

func dropCache(*os.File, int64, int64) {}

func noReadAhead(*os.File) {}

func willRead(*os.File, int64, int64) {}

func writeOut(*os.File, int64, int64) {}
