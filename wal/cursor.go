package wal

import (
	"errors"
	"slices"

	"github.com/spillwaydb/spillway/block"
)

// Cursor reads a log commit by commit and remembers where it stopped: to follow
// a log costs what is new in it. It holds nothing back: keep a [Holder]. For one
// goroutine at a time.
type Cursor struct {
	l    *Log
	next block.LSN // first commit that was not read
	sum  uint32    // of the record that ends the commit before it; 0: not read yet

	// Where the record behind that one is due; seg is nil until a commit was
	// read.
	seg *segment
	off int64
}

// Cursor begins at commit from.
func (l *Log) Cursor(from block.LSN) *Cursor { return &Cursor{l: l, next: from} }

// Next is the first commit that Read has not handed out whole.
func (c *Cursor) Next() block.LSN { return c.next }

// Sum is the checksum of the record that ends the commit before Next, 0 if the
// cursor has not read it.
func (c *Cursor) Sum() uint32 { return c.sum }

// errEnough ends a pass.
var errEnough = errors.New("enough was read")

// Read calls fn as [Log.Read] does, from Next on, and stops behind the commit
// with which bytesMax bytes of bodies were handed out. After an error the next
// call begins again with the commit in which it occurred. It opens files for
// the length of the call.
func (c *Cursor) Read(bytesMax int64, fn func(lsn block.LSN, body []byte, last bool) error) error {
	to := c.l.Durable()
	if c.next > to {
		return nil
	}
	segs, p, err := c.begin(to)
	if err != nil {
		return err
	}
	bytes := int64(0)
	p.fn = func(r *record) error {
		last := r.is(flagLast)
		if err := fn(r.lsn, r.body, last); err != nil {
			return err
		}
		bytes += int64(len(r.body))
		if !last {
			return nil
		}
		c.next, c.sum = r.lsn+1, r.sum
		c.seg, c.off = p.seg, p.off
		if bytes >= bytesMax {
			return errEnough
		}
		return nil
	}
	if err := p.run(segs); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}

// begin is a pass from where the cursor stopped, if that segment is still live,
// and the segments of the pass.
func (c *Cursor) begin(to block.LSN) ([]*segment, *readPass, error) {
	segs, err := c.l.segmentsFrom(c.next)
	if err != nil {
		return nil, nil, err
	}
	p := c.l.passFrom(segs[0], c.next, to)
	if i := slices.Index(segs, c.seg); i >= 0 {
		p.off, p.lsn, p.sum, p.open = c.off, c.next-1, c.sum, false
		return segs[i:], p, nil
	}
	return segs, p, nil
}
