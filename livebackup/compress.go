package livebackup

import (
	"bytes"
	"fmt"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// Compression is how hard a backup tries to be small.
type Compression string

// The ways to compress; docs/compression.md says why the default is what it is.
const (
	CompressionNone    Compression = "none"
	CompressionFastest Compression = "fastest" // zstd at its fastest level; the default
	CompressionSmaller Compression = "smaller" // zstd at the level that it calls its default
)

func (c Compression) valid() bool {
	return c == CompressionNone || c == CompressionFastest || c == CompressionSmaller
}

// encoder compresses groups. Not safe for concurrent use.
type encoder struct{ z *zstd.Encoder } // z is nil for CompressionNone

// sliceBytes is how much is compressed before others get their turn on this
// processor: a fraction of a millisecond. A writer that returns from each of its
// reads to a processor that compresses a whole group would commit as slowly as
// the disk were a hundred times slower.
const sliceBytes = 128 << 10

func newEncoder(c Compression, rawBytesMax int) (*encoder, error) {
	if c == CompressionNone {
		return &encoder{}, nil
	}
	// Blocks and objects carry checksums; a third one inside the frame would
	// only cost time.
	level := zstd.SpeedFastest
	if c == CompressionSmaller {
		level = zstd.SpeedDefault
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(windowFor(rawBytesMax)))
	if err != nil {
		return nil, fmt.Errorf("start compressor: %w", err)
	}
	return &encoder{z: z}, nil
}

// windowFor is the least window, a power of two, that sees a whole group.
func windowFor(bytes int) int {
	w := zstd.MinWindowSize
	for w < bytes {
		w <<= 1
	}
	return w
}

// outputMax is the room that encode wants for raw bytes.
func (e *encoder) outputMax(raw int) int {
	if e.z == nil {
		return 0
	}
	return e.z.MaxEncodedSize(raw)
}

// encode returns the stored form of raw: in out, or raw itself where
// compressing does not help.
func (e *encoder) encode(raw, out []byte) ([]byte, codec) {
	if e.z == nil {
		return raw, codecNone
	}
	packed := bytes.NewBuffer(out[:0])
	e.z.ResetContentSize(packed, int64(len(raw)))
	for rest := raw; len(rest) > 0; runtime.Gosched() {
		n := min(len(rest), sliceBytes)
		if _, err := e.z.Write(rest[:n]); err != nil {
			return raw, codecNone
		}
		rest = rest[n:]
	}
	if err := e.z.Close(); err != nil || packed.Len() >= len(raw) {
		return raw, codecNone
	}
	return packed.Bytes(), codecZstd
}

func (e *encoder) close() {
	if e.z != nil {
		e.z.Reset(nil) // nothing is left in it, also after an error
	}
}

// decoder expands groups. Not safe for concurrent use.
type decoder struct{ z *zstd.Decoder }

func newDecoder() (*decoder, error) {
	// The output may fill what the caller gives and no more, whatever the
	// frame declares: a stored group may come from a hostile hand.
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(groupBytesMax), zstd.WithDecoderMaxWindow(2*groupBytesMax))
	if err != nil {
		return nil, fmt.Errorf("start decompressor: %w", err)
	}
	return &decoder{z: z}, nil
}

// decode expands stored into raw, which it must fill exactly, and returns the
// raw bytes: in raw, or stored itself.
func (d *decoder) decode(c codec, stored, raw []byte) ([]byte, error) {
	switch c {
	case codecNone:
		if len(stored) != len(raw) {
			return nil, fmt.Errorf("%d bytes where %d were due", len(stored), len(raw))
		}
		return stored, nil
	case codecZstd:
		out, err := d.z.DecodeAll(stored, raw[:0:len(raw)])
		if err == nil && len(out) != len(raw) {
			err = fmt.Errorf("%d bytes where %d were due", len(out), len(raw))
		}
		return out, err
	}
	return nil, fmt.Errorf("codec %d is unknown", c)
}

func (d *decoder) close() { d.z.Close() }
