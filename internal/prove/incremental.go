package prove

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// images are a state that was taken from a store: whole blocks by number, the bitmaps and
// the meta block among them. Nobody changes one.
type images map[block.ID][]byte

// taking is a backup, full or incremental, that is taken block by block and may fall
// forward. Each block is held against the model when it comes: it must be the version that
// its own LSN names, of a block that was in use, and of an incremental one that is newer
// than the base. In the end the base, with what was carried laid over it and without what
// was freed, with the redo of a backup that fell forward, must be the model's state at the
// backup's last LSN: every block, and which are in use. For one goroutine.
type taking struct {
	m      *blockModel
	b      *mvcc.Backup
	info   mvcc.BackupInfo
	exact  bool   // an incremental that carries nothing at or below its base: it audits nothing
	base   images // nil: of an incremental only the LSN of its base is known
	layout mvcc.Layout
	seed   block.Seed

	buf  []byte
	ids  []block.ID
	held images            // what was handed out
	now  map[block.ID]bool // of that, in this phase
	fell *mvcc.FellForwardError
	redo []mvcc.LogRecord
	isAt bool // Next has said io.EOF

	blocks int // how many were compared
}

// take opens a backup. With o.Base it is an incremental: base is the state at that LSN as it
// was taken, or nil, and then the model tells what the base has. An incremental that may fall
// forward needs it, because redo changes blocks that are in the base.
func (w *world) take(ctx context.Context, o mvcc.BackupOptions, base images, blocksAtOnce int) (*taking, error) {
	b, err := w.s.OpenBackup(ctx, o)
	if err != nil {
		return nil, err
	}
	size := w.s.BlockSize()
	t := &taking{
		m: w.m, b: b, info: b.Info(), base: base, exact: o.AuditBlocks == 0, layout: mvcc.LayoutOf(size), held: images{}, now: map[block.ID]bool{},
		buf: make([]byte, blocksAtOnce*size), ids: make([]block.ID, blocksAtOnce),
	}
	t.seed = block.SeedOf(t.info.Database)
	if _, known := w.m.image(t.info.LSN); !known {
		return nil, errors.Join(fmt.Errorf("a backup is of LSN %v, which was never given", t.info.LSN), b.Close())
	}
	return t, nil
}

// close ends the backup.
func (t *taking) close() error { return t.b.Close() }

// next takes some blocks, and of a backup that fell forward some redo; true when there are no
// more. A snapshot that was broken is an error.
func (t *taking) next(ctx context.Context) (done bool, err error) {
	n, err := t.b.Next(ctx, t.buf, t.ids)
	var fell *mvcc.FellForwardError
	switch {
	case errors.As(err, &fell):
		if t.fell != nil || fell.LSN < t.info.LSN {
			return false, fmt.Errorf("the backup at LSN %v fell forward at %v, and had before: %v", t.info.LSN, fell.LSN, t.fell != nil)
		}
		t.fell = fell
		clear(t.now)
		return false, nil
	case errors.Is(err, io.EOF):
		t.isAt = true
		return true, nil
	case err != nil:
		return false, err
	}
	size := len(t.buf) / len(t.ids)
	for i, id := range t.ids[:n] {
		if err := t.got(id, t.buf[i*size:(i+1)*size]); err != nil {
			return false, err
		}
	}
	if t.fell != nil {
		_, err = t.moreRedo()
	}
	return false, err
}

// got compares a block that was handed out, and keeps it.
func (t *taking) got(id block.ID, data []byte) error {
	trailer, reason := block.Verify(data, id, t.seed)
	lsn := trailer.LSN
	switch {
	case reason != "":
		return fmt.Errorf("block %v of the backup at LSN %v: %s", id, t.info.LSN, reason)
	case t.now[id]:
		return fmt.Errorf("the backup at LSN %v hands out block %v twice", t.info.LSN, id)
	case t.fell == nil && lsn > t.info.LSN:
		return fmt.Errorf("block %v of the backup at LSN %v is of LSN %v", id, t.info.LSN, lsn)
	case t.exact && lsn <= t.info.Base:
		return fmt.Errorf("block %v of the backup at LSN %v is of LSN %v, which base %v has", id, t.info.LSN, lsn, t.info.Base)
	}
	t.now[id] = true
	t.held[id] = slices.Clone(data)
	if t.isOwn(id) {
		return nil
	}
	t.blocks++
	of := lsn
	if t.fell == nil {
		of = t.info.LSN // which no version between the two replaced
	}
	im, _ := t.m.image(of)
	want, inUse := im.blocks[id]
	switch {
	case !inUse:
		return fmt.Errorf("block %v of LSN %v is in the backup at LSN %v, and was not in use at %v", id, lsn, t.info.LSN, of)
	case contentOfBytes(data) != want:
		return fmt.Errorf("block %v of the backup at LSN %v is another version, of LSN %v", id, t.info.LSN, lsn)
	}
	return nil
}

// isOwn reports whether a block is one of the store's own.
func (t *taking) isOwn(id block.ID) bool {
	return id == metaBlock || id == t.layout.Bitmap(t.layout.GroupOf(id))
}

// moreRedo takes the redo that there is; io.EOF behind the last.
func (t *taking) moreRedo() (end bool, err error) {
	_, err = t.b.Redo(1<<16, func(r mvcc.LogRecord) error {
		r.Body = slices.Clone(r.Body)
		t.redo = append(t.redo, r)
		return nil
	})
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// finish holds what was taken against the model, when next has said that all was, and
// returns the state.
func (t *taking) finish() (images, error) {
	for end := t.fell == nil; !end; {
		var err error
		if end, err = t.moreRedo(); err != nil {
			return nil, err
		}
	}
	final := t.b.Final()
	im, known := t.m.image(final.LSN)
	if !known || !t.isAt {
		return nil, fmt.Errorf("the backup at LSN %v ends at %v, which was never given or is not reached", t.info.LSN, final.LSN)
	}
	if err := t.follow(final, im); err != nil {
		return nil, fmt.Errorf("redo of the backup of LSN %v to %v: %w", t.info.LSN, final.LSN, err)
	}
	state := images{}
	for id, want := range im.blocks {
		data, got := t.state(id)
		if got != want {
			return nil, fmt.Errorf("block %v of the backup of LSN %v to %v, on base %v, is another version (handed out: %v)", id, t.info.LSN, final.LSN, t.info.Base, t.held[id] != nil)
		}
		state[id] = data
	}
	if err := t.compareBitmaps(final, im, state); err != nil {
		return nil, fmt.Errorf("the backup of LSN %v to %v, on base %v: %w", t.info.LSN, final.LSN, t.info.Base, err)
	}
	return state, nil
}

// state is what base and backup have of a block. What only the model knows of the base has
// no data.
func (t *taking) state(id block.ID) ([]byte, content) {
	if data := t.find(id); data != nil {
		return data, contentOfBytes(data)
	}
	if t.base != nil || t.info.Base == 0 {
		return nil, content{}
	}
	im, _ := t.m.image(t.info.Base)
	return nil, im.blocks[id]
}

// find is a block's image, or nil.
func (t *taking) find(id block.ID) []byte {
	if data := t.held[id]; data != nil {
		return data
	}
	return t.base[id]
}

// follow applies the redo.
func (t *taking) follow(final mvcc.BackupInfo, im image) error {
	if t.fell == nil {
		return nil
	}
	if final.LSN < t.fell.LSN {
		return fmt.Errorf("it fell forward at LSN %v", t.fell.LSN)
	}
	redo := mvcc.NewRedo(final.BlockSize, t.fell.LSN, final.LSN)
	for _, r := range t.redo {
		if err := redo.Survey(r); err != nil {
			return err
		}
	}
	if err := redo.Surveyed(); err != nil {
		return err
	}
	for _, r := range t.redo {
		err := redo.Changes(r, func(c *mvcc.Change) error {
			if _, inUse := im.blocks[c.ID]; !inUse && !t.isOwn(c.ID) {
				return nil
			}
			return t.change(c)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *taking) change(c *mvcc.Change) error {
	old := t.find(c.ID)
	var have block.LSN
	if old != nil {
		trailer, reason := block.Verify(old, c.ID, t.seed)
		if reason != "" {
			return fmt.Errorf("block %v: %s", c.ID, reason)
		}
		have = trailer.LSN
	}
	due, err := c.Due(have, old != nil)
	if err != nil || !due {
		return err
	}
	now := make([]byte, t.info.BlockSize)
	if err := c.Make(now, old, t.seed); err != nil {
		return err
	}
	t.held[c.ID] = now
	return nil
}

// compareBitmaps proves that the model's blocks and no others are in use, and adds the
// store's own blocks to the state. Bitmaps that only the base has, which is known by its
// LSN alone, say what the model says of the base.
func (t *taking) compareBitmaps(final mvcc.BackupInfo, im image, state images) error {
	inGroup := map[uint64]int{}
	for id := range im.blocks {
		inGroup[t.layout.GroupOf(id)]++
	}
	if meta := t.find(metaBlock); meta != nil {
		state[metaBlock] = meta
		hw, n := block.ID(binary.LittleEndian.Uint64(meta)), binary.LittleEndian.Uint64(meta[8:])
		if hw != final.HighWater || int(n) != len(im.blocks) {
			return fmt.Errorf("%d blocks are in use below %v, want %d below %v", n, hw, len(im.blocks), final.HighWater)
		}
	} else if t.base != nil || t.info.Base == 0 {
		return errors.New("there is no meta block")
	}
	for group := range t.layout.Groups(final.HighWater) {
		id := t.layout.Bitmap(group)
		bits := t.find(id)
		state[id] = bits
		if bits == nil && (t.base != nil || t.info.Base == 0) {
			return fmt.Errorf("there is no bitmap of group %d", group)
		}
		found, err := t.inUse(group, bits, im)
		if err != nil {
			return err
		}
		if found != inGroup[group] {
			return fmt.Errorf("%d blocks of group %d are in use, want %d", found, group, inGroup[group])
		}
	}
	return nil
}

// inUse counts the blocks of a group that a bitmap names, or, without one, those of the
// base. Each must be the model's.
func (t *taking) inUse(group uint64, bits []byte, im image) (n int, err error) {
	there := func(id block.ID) {
		if _, isOurs := im.blocks[id]; !isOurs {
			err = fmt.Errorf("block %v is in use and should not be", id)
		}
		n++
	}
	if bits == nil {
		base, _ := t.m.image(t.info.Base)
		for id := range base.blocks {
			if t.layout.GroupOf(id) == group {
				there(id)
			}
		}
		return n, err
	}
	for id := t.layout.Bitmap(group) + 1; t.layout.GroupOf(id) == group; id++ {
		if !t.isOwn(id) && t.layout.InUse(id, block.Payload(bits)) {
			there(id)
		}
	}
	return n, err
}
