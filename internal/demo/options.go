package demo

import (
	"fmt"
	"io"
	"time"
)

// Options of Run. The zero value is good: half a minute on two cores.
type Options struct {
	// Dir is where the temporary directory is made; "": os.TempDir.
	Dir string
	// Keep leaves the database, the repository and the restored copy there.
	Keep bool
	// Tree is the directory whose files are loaded; "": the sources of the Go
	// toolchain, and generated files where there are none.
	Tree string
	// LoadBytesMax bounds how much is loaded; 0: all of it.
	LoadBytesMax int64
	// BackupTakes is how long the sink makes the backup take; 0: 10 s.
	BackupTakes time.Duration
	// Calm is how long writers are measured before and after; 0: 2 s.
	Calm time.Duration
	// Writers is how many goroutines write; 0: 4. One of them only counts.
	Writers int

	MaxRAM      int64 // bytes; 0: 16 MiB
	TempMax     int64 // bytes of temporary storage; 0: 16 MiB
	OverflowMax int64 // bytes; 0: 256 MiB
	// HotBytes is how much of the files the writers change; 0: 48 MiB. It
	// bounds the originals of one snapshot.
	HotBytes int64

	Out   io.Writer // the story; nil: nobody listens
	Live  io.Writer // a terminal for the line that is drawn again and again; nil: none
	ASCII bool      // draw with ASCII only
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// validate fills in defaults and names the first rule that is broken.
func (o *Options) validate() error {
	setDefault(&o.BackupTakes, 10*time.Second)
	setDefault(&o.Calm, 2*time.Second)
	setDefault(&o.Writers, 4)
	setDefault(&o.MaxRAM, 16<<20)
	setDefault(&o.TempMax, 16<<20)
	setDefault(&o.OverflowMax, 256<<20)
	setDefault(&o.HotBytes, 48<<20)
	if o.Out == nil {
		o.Out = io.Discard
	}
	switch {
	case o.BackupTakes < 500*time.Millisecond || o.BackupTakes > time.Hour:
		return fmt.Errorf("%w: the backup may take half a second to an hour, not %v", ErrOptions, o.BackupTakes)
	case o.Calm < 100*time.Millisecond || o.Calm > time.Hour:
		return fmt.Errorf("%w: the time before and after may be 100 ms to an hour, not %v", ErrOptions, o.Calm)
	case o.Writers < 2 || o.Writers > 64:
		return fmt.Errorf("%w: 2 to 64 writers, not %d", ErrOptions, o.Writers)
	case o.LoadBytesMax < 0 || o.LoadBytesMax > 0 && o.LoadBytesMax < loadBytesLeast:
		return fmt.Errorf("%w: at least %d bytes must be loaded", ErrOptions, loadBytesLeast)
	case o.MaxRAM < 0 || o.TempMax < 1<<20 || o.OverflowMax < 0 || o.HotBytes < 0:
		return fmt.Errorf("%w: a size is negative or too small", ErrOptions)
	case o.HotBytes <= o.MaxRAM+o.TempMax:
		return fmt.Errorf("%w: %d bytes that change cannot overflow %d of memory and %d of temporary storage",
			ErrOptions, o.HotBytes, o.MaxRAM, o.TempMax)
	}
	return nil
}

// loadBytesLeast is what has to be there to be changed.
const loadBytesLeast = 8 << 20
