package bench

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childVariable makes the test program do one task: see Child.
const childVariable = "SPILLWAY_BENCH_TASK"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := Serve(context.Background(), []Engine{Spillway{}}, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func testChild() Child { return Child{Env: []string{childVariable + "=1"}} }
