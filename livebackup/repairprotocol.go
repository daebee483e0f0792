package livebackup

import (
	"context"
	"fmt"
	"io"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// The request for a repair, which is in no JSON because an image travels with it.

const (
	repairHead      = 24
	repairFrameMax  = repairHead + block.SizeMax
	repairFlagDry   = 1 << 0
	repairFlagImage = 1 << 1
)

// readRequest reads the payload of a request.
func readRequest(r io.Reader, k frameKind, length uint32) ([]byte, error) {
	if k == frameRepair {
		return readPayload(r, length, repairFrameMax, nil)
	}
	return readControl(r, length)
}

func encodeRepair(r mvcc.BlockRepair) []byte {
	flags := uint32(0)
	if r.DryRun {
		flags |= repairFlagDry
	}
	if r.Image != nil {
		flags |= repairFlagImage
	}
	b := le.AppendUint64(nil, uint64(r.Block))
	b = le.AppendUint64(b, uint64(r.AsOf))
	b = le.AppendUint32(b, flags)
	return append(le.AppendUint32(b, 0), r.Image...)
}

func decodeRepair(b []byte) (r mvcc.BlockRepair, err error) {
	if len(b) < repairHead {
		return r, fmt.Errorf("%w: repair of %d bytes", ErrProtocol, len(b))
	}
	flags := le.Uint32(b[16:])
	r = mvcc.BlockRepair{Block: block.ID(le.Uint64(b)), AsOf: block.LSN(le.Uint64(b[8:])), DryRun: flags&repairFlagDry != 0}
	image := b[repairHead:]
	if flags&repairFlagImage != 0 {
		r.Image = image
	}
	if flags&^(repairFlagDry|repairFlagImage) != 0 || le.Uint32(b[20:]) != 0 || (r.Image == nil) != (len(image) == 0) {
		return r, fmt.Errorf("%w: repair has flags %#x and an image of %d bytes", ErrProtocol, flags, len(image))
	}
	return r, nil
}

// repair repairs one block. What the image is good for the store proves.
func (c *serverConn) repair(ctx context.Context, payload []byte) error {
	r, err := decodeRepair(payload)
	if err != nil {
		return err
	}
	out, err := c.s.src.RepairBlock(ctx, r)
	if err != nil {
		return err
	}
	out.Found = clip(out.Found)
	return c.reply(frameReply, out)
}

// RepairBlock has the serving process repair a block: it alone writes to the database.
func (c *Client) RepairBlock(ctx context.Context, r mvcc.BlockRepair) (out mvcc.BlockRepaired, err error) {
	if len(r.Image) > block.SizeMax {
		return out, fmt.Errorf("repair block %v: image of %d bytes", r.Block, len(r.Image))
	}
	if err := c.send(ctx, frameRepair, encodeRepair(r), &out, nil); err != nil {
		return out, fmt.Errorf("repair block %v: %w", r.Block, err)
	}
	return out, nil
}
