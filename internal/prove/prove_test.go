package prove

import (
	"context"
	"flag"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/spillwaydb/spillway/internal/chance"
)

var (
	flagStates   = flag.Int("states", 0, "distinct crash states for each workload; 0: few")
	flagFor      = flag.Duration("for", 0, "how long sweeps go on; 0: one run of each workload")
	flagEnough   = flag.Int64("enough", 0, "distinct crash states behind which the sweep ends, and a fifth as many within recovery; 0: it takes its time")
	flagRecovery = flag.Int("recovery", 0, "how many of 1000 crash states are cut again within recovery; 0: as by default")
	flagBits     = flag.Int("bits", 0, "bits that are flipped in each kind of file; 0: few, negative: every one")
	flagReads    = flag.Int64("reads", 0, "reads of snapshots that are compared; 0: few")
	flagPairs    = flag.Int("pairs", 6, "runs in which two faults are injected")
	flagSchedule = flag.String("schedule", "", "one schedule, as a failure names it")
	flagOnly     = flag.String("only", "", "scripts of schedules whose name has this in it")
	flagKinds    = flag.Int("kinds", 1, "kinds of fault that each call site gets; 0: all")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCrash_D1_D2_D3_D9_EveryState cuts the power at events of every workload, and
// again within the recovery from some of the states that this leaves: a sample by
// default, the slice of CI with -for 75s -enough 100000 -states 3000 -recovery 8.
func TestCrash_D1_D2_D3_D9_EveryState(t *testing.T) {
	o := CrashOptions{Seed: chance.Seed(t), States: 150, Recovery: 40, RecoveryStates: 2, Duration: *flagFor, Workers: runtime.GOMAXPROCS(0)}
	if testing.Short() {
		o.States, o.Recovery = 25, 60
	}
	if *flagStates > 0 {
		o.States = *flagStates
	}
	if *flagRecovery > 0 {
		o.Recovery, o.RecoveryStates = *flagRecovery, 8
	}
	o.Enough, o.EnoughInRecovery = *flagEnough, *flagEnough/5
	began := time.Now()
	counts, err := Crash(context.Background(), o)
	t.Logf("%v; %.0f states/s", counts, float64(counts.Distinct+counts.InRecovery)/time.Since(began).Seconds())
	if o.Enough > 0 {
		t.Logf("REACHED in %v: %d of %d distinct states, and %d of %d within recovery", counts.Elapsed.Round(time.Second), counts.Distinct, o.Enough, counts.InRecovery, o.EnoughInRecovery)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestFault_D6_D7_D8_D9_EverySite fails operations of every place that calls the file
// system: data, log, second copies, temporary storage, repository. One kind of fault
// each by default, all of them with -kinds 0.
func TestFault_D6_D7_D8_D9_EverySite(t *testing.T) {
	o := FaultOptions{Seed: chance.Seed(t), Kinds: *flagKinds, Pairs: *flagPairs, Duration: *flagFor}
	counts, err := Fault(context.Background(), o)
	t.Logf("%v; %v", counts, counts.Kinds)
	for _, s := range counts.Missed {
		t.Logf("NOT HIT: %s", s)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCorrupt_D5_D11_EveryFile damages every kind of file of a database and its
// repository, and reads everything.
func TestCorrupt_D5_D11_EveryFile(t *testing.T) {
	o := CorruptOptions{Seed: chance.Seed(t), Damages: 400, Duration: *flagFor}
	if testing.Short() {
		o.Damages = 120
	}
	counts, err := Corrupt(context.Background(), o)
	t.Log(counts)
	if err != nil {
		t.Fatal(err)
	}
}

// TestMatrix_D5_D11_EveryKindOfFile flips bits of every kind of file that is written,
// one at a time: some of each by default, all of them with -bits -1; -for bounds the time
// of each kind.
func TestMatrix_D5_D11_EveryKindOfFile(t *testing.T) {
	o := MatrixOptions{Seed: chance.Seed(t), Bits: 200, Duration: 300 * time.Millisecond}
	if *flagBits != 0 {
		o.Bits, o.Duration = max(*flagBits, 0), *flagFor
	}
	counts, err := Matrix(context.Background(), o)
	t.Log(counts)
	if err != nil {
		t.Fatal(err)
	}
}

// TestSnapshots_L1_EveryRead compares what many live snapshots and backups, full ones and
// incrementals, read with the model, while they and writers push originals out of memory in
// every way: a sample by default, the slice of CI with -reads 2000000.
func TestSnapshots_L1_EveryRead(t *testing.T) {
	o := SnapshotOptions{Seed: chance.Seed(t), Duration: *flagFor, Reads: *flagReads, Opened: *flagReads / 40}
	counts, err := Snapshots(context.Background(), o)
	t.Log(counts)
	if err != nil {
		t.Fatal(err)
	}
}

// TestSchedules_L1_R4_R8 explores in which order actors on one store get on: some
// schedules by default, more with -for.
func TestSchedules_L1_R4_R8(t *testing.T) {
	o := ScheduleOptions{Seed: chance.Seed(t), Duration: *flagFor, Schedules: 600, Only: *flagOnly, Repeat: *flagSchedule}
	if testing.Short() {
		o.Schedules = 150
	}
	counts, err := Schedules(context.Background(), o)
	t.Log(counts)
	if err != nil {
		t.Fatal(err)
	}
}

// TestSchedules_Again: a schedule that is played again by its name goes the same way. Now
// and then something happens because time has passed, and it may go another one: of those
// that take long only orders of steps are asked for.
func TestSchedules_Again(t *testing.T) {
	const tries = 20
	rng := rand.New(rand.NewPCG(chance.Seed(t), 72))
	x, err := newExplorer(context.Background(), ScheduleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.close()
	for _, sc := range scripts() {
		first := &performance{script: sc, fine: !sc.large && rng.IntN(4) > 0, seed: rng.Uint64(), cutAt: -1}
		if err := x.play(first, strategy(rng, 60)); err != nil {
			t.Fatal(err)
		}
		same := slices.ContainsFunc(make([]int, tries), func(int) bool {
			again, choose, err := parsePerformance(first.String())
			if err == nil {
				err = x.play(again, choose)
			}
			if err != nil {
				t.Fatal(err)
			}
			return slices.Equal(again.trace, first.trace)
		})
		if !same {
			t.Errorf("%v went another way %d times", first, tries)
		}
	}
}
