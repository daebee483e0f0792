package prove

import (
	"context"
	"flag"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	flagSeed     = flag.Uint64("seed", 0, "seed of the sweeps; 0: a new one")
	flagStates   = flag.Int("states", 0, "distinct crash states for each workload; 0: few")
	flagFor      = flag.Duration("for", 0, "how long sweeps go on; 0: one run of each workload")
	flagRecovery = flag.Int("recovery", 0, "how many of 1000 crash states are cut again within recovery; 0: as by default")
	flagKinds    = flag.Int("kinds", 1, "kinds of fault that each call site gets; 0: all")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seeded gives a test its source of chance and prints how to repeat it.
func seeded(t testing.TB) uint64 {
	seed := *flagSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("repeat with -run '^%s$' -seed %d", t.Name(), seed)
	return seed
}

// TestCrash_D1_D2_D3_D9_EveryState cuts the power at events of every workload, and
// again within the recovery from some of the states that this leaves: a sample by
// default, the slice of CI with -for 210s -states 3000 -recovery 60.
func TestCrash_D1_D2_D3_D9_EveryState(t *testing.T) {
	o := CrashOptions{Seed: seeded(t), States: 150, Recovery: 40, RecoveryStates: 2, Duration: *flagFor, Workers: runtime.GOMAXPROCS(0)}
	if testing.Short() {
		o.States, o.Recovery = 25, 60
	}
	if *flagStates > 0 {
		o.States = *flagStates
	}
	if *flagRecovery > 0 {
		o.Recovery, o.RecoveryStates = *flagRecovery, 8
	}
	began := time.Now()
	counts, err := Crash(context.Background(), o)
	t.Logf("%v; %.0f states/s", counts, float64(counts.Distinct+counts.InRecovery)/time.Since(began).Seconds())
	if err != nil {
		t.Fatal(err)
	}
}

// TestFault_D6_D7_D8_D9_EverySite fails operations of every place that calls the file
// system: data, log, second copies, temporary storage, repository. One kind of fault
// each by default, all of them with -kinds 0.
func TestFault_D6_D7_D8_D9_EverySite(t *testing.T) {
	o := FaultOptions{Seed: seeded(t), Kinds: *flagKinds, Duration: *flagFor}
	counts, err := Fault(context.Background(), o)
	t.Logf("%v; %v", counts, counts.Kinds)
	for _, s := range counts.Missed {
		t.Logf("never hit: %s", s)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCorrupt_D5_D11_EveryFile damages every kind of file of a database and its
// repository, and reads everything.
func TestCorrupt_D5_D11_EveryFile(t *testing.T) {
	o := CorruptOptions{Seed: seeded(t), Damages: 400, Duration: *flagFor}
	if testing.Short() {
		o.Damages = 120
	}
	counts, err := Corrupt(context.Background(), o)
	t.Log(counts)
	if err != nil {
		t.Fatal(err)
	}
}
