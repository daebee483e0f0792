//go:build !unix

package spill

const childDirVar = "SPILL_TEST_CHILD_DIR"

func childMain(string) { panic("there is no such child here") }
