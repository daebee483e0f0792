package livebackup

import (
	"context"
	"fmt"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// wanted tells which blocks of a backup belong to the state that a chain leads to.
// It keeps a bit for each block number, and the set of those that newer backups of
// the chain have given.
type wanted struct {
	layout    mvcc.Layout
	highWater block.ID
	bitmaps   [][]byte // of each group the payload, as of the newest backup
	taken     *blockSet
}

// wantedOf reads the bitmaps of the state that a chain leads to. Of a chain of one
// backup, without parts, nil is returned: everything is wanted, and whether that is too
// much the proof tells.
//
// What is read here is proven by its own checksums only. It decides what is
// written, not what is right: all of it comes again with the replay, to whoever
// proves the result.
func wantedOf(ctx context.Context, repo *Repository, members []Entry, windows []redoWindow) (*wanted, error) {
	if len(members) == 1 && len(members[0].Manifest.Parts) == 0 {
		return nil, nil
	}
	img, err := openBitmaps(ctx, repo, members, windows)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	w := &wanted{layout: img.layout, highWater: img.info.HighWater, taken: newBlockSet()}
	b := make([]byte, img.info.BlockSize)
	for g := range img.layout.Groups(img.info.HighWater) {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if err := img.read(img.layout.Bitmap(g), b); err != nil {
			return nil, fmt.Errorf("read allocation bitmap: %w", err)
		}
		w.bitmaps = append(w.bitmaps, append([]byte(nil), block.Payload(b)...))
	}
	return w, nil
}

// inUse reports whether a block is part of the state.
func (w *wanted) inUse(id block.ID) bool {
	return id < w.highWater && w.layout.InUse(id, w.bitmaps[w.layout.GroupOf(id)])
}

func (w *wanted) has(id block.ID) bool { return w.inUse(id) && !w.taken.has(id) }

// parts adds to list the parts of runs that are wanted.
func (w *wanted) parts(list, runs []runEntry) []runEntry {
	if w == nil {
		return append(list, runs...)
	}
	for _, run := range runs {
		open := false
		for i := range run.blocks {
			id := run.first + block.ID(i)
			switch {
			case !w.has(id):
				open = false
			case open:
				list[len(list)-1].blocks++
			default:
				list = append(list, runEntry{first: id, blocks: 1, group: run.group, slot: run.slot + i})
				open = true
			}
		}
	}
	return list
}
