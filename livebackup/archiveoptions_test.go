package livebackup

import (
	"errors"
	"testing"
	"time"
)

func TestArchiveOptions(t *testing.T) {
	for _, o := range []ArchiveOptions{{Every: time.Millisecond}, {Every: -1}, {Every: 48 * time.Hour}, {ObjectBytes: -1}, {ObjectBytes: 2 << 30}, {Compression: "best"}} {
		if err := o.Validate(); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := (ArchiveOptions{}).Validate(); err != nil {
		t.Fatal(err)
	}
}
