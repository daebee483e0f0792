package livebackup

import (
	"context"
	"errors"
	"fmt"

	"github.com/spillwaydb/spillway/mvcc"
)

// promote has the owner of the standby promote it, once. That goes on when the client
// does not wait for it: half of it would help nobody.
func (c *serverConn) promote(ctx context.Context) error {
	st, err := c.s.src.Status(ctx)
	switch {
	case err != nil:
		return err
	case st.Mode != "standby":
		return mvcc.ErrNotStandby
	case c.s.o.Promote == nil:
		return fmt.Errorf("the serving process does not promote, end it first: %w", errors.ErrUnsupported)
	}
	c.s.promoting.Lock() // Close waits, so that the answer gets there
	defer c.s.promoting.Unlock()
	if err := context.Cause(ctx); err != nil { // nobody would hear that it was done
		return err
	}
	if c.s.promoted { // while this one waited
		return mvcc.ErrNotStandby
	}
	out, err := c.s.o.Promote(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	c.s.promoted = true
	return c.reply(frameReply, out)
}

// Promote asks the process that serves a standby, and perhaps rolls it forward, to make it
// a database that can be written: on a new timeline, whose LSNs go on (L14). It returns
// when that is durable; the database is closed then. mvcc.ErrNotStandby;
// errors.ErrUnsupported if that process has no ServeOptions.Promote.
func (c *Client) Promote(ctx context.Context) (out Promoted, err error) {
	if err := c.call(ctx, framePromote, nil, &out, nil); err != nil {
		return out, fmt.Errorf("promote: %w", err)
	}
	return out, nil
}
