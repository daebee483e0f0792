package block

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestCorruptErrorMatches(t *testing.T) {
	damage := &CorruptError{Path: "data", Offset: 8192, Block: 2, Reason: "checksum does not agree", Cause: io.ErrUnexpectedEOF}
	err := fmt.Errorf("read block: %w", damage)
	if !errors.Is(err, ErrCorrupt) {
		t.Error("it is not ErrCorrupt")
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("it is not its cause")
	}
	var got *CorruptError
	if !errors.As(err, &got) || got != damage {
		t.Error("the place of the damage is lost")
	}
	if errors.Is(&CorruptError{}, io.ErrUnexpectedEOF) {
		t.Error("without a cause it matches one")
	}
	if !errors.Is(&CorruptError{}, ErrCorrupt) {
		t.Error("without a cause it is not ErrCorrupt")
	}
}

func TestCorruptErrorSaysWhere(t *testing.T) {
	for _, test := range []struct {
		err  CorruptError
		want string
	}{
		{CorruptError{Path: "data", Offset: 8192, Block: 2, Reason: "checksum does not agree"},
			"data: corrupt data at offset 8192 in block 0x2: checksum does not agree"},
		{CorruptError{Path: "log/1", Offset: 0, Block: NoBlock, Reason: "no magic"},
			"log/1: corrupt data at offset 0: no magic"},
		{CorruptError{Path: "m", Offset: -1, Block: NoBlock, Reason: "manifest does not decode", Cause: io.ErrUnexpectedEOF},
			"m: corrupt data: manifest does not decode: unexpected EOF"},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got  %q\nwant %q", got, test.want)
		}
	}
}
