package livebackup

import (
	"container/list"
	"fmt"
	"sync"

	"github.com/dgraph-io/ristretto/v2"
)

// imageKey names what an Image keeps decoded.
type imageKey struct {
	kind   uint8  // one of the constants below
	part   uint16 // of the chain
	number uint64 // of the section or group
}

const (
	keySection uint8 = 1 + iota
	keyGroup
	keyBitmap
	keyChunk
)

// word is the key as ristretto takes it: no two keys have the same.
func (k imageKey) word() uint64 {
	return uint64(k.kind)<<56 | uint64(k.part)<<40 | k.number&(1<<40-1)
}

// imageCacheMin is the least that keeps one who walks through a backup from decoding
// a group twice: half of it is the largest group, and as much of sections and bitmaps.
const imageCacheMin = 4 * groupBytesMax

// imageCache keeps what was decoded, up to a number of bytes. Most of it is
// ristretto's, which keeps what is asked for often, and may refuse what is new: to
// one who walks through a backup it would give each group to decode again for
// every block. So a part belongs to what was used last, whatever it is. Safe for
// concurrent use.
type imageCache struct {
	often *ristretto.Cache[uint64, imageItem]

	mu       sync.Mutex
	last     *list.List // of imageItem, the one used last in front
	at       map[imageKey]*list.Element
	bytes    int64 // of last
	bytesMax int64 // of last; one item may be larger
	loading  map[imageKey]*imageLoad
}

type imageItem struct {
	key   imageKey
	value any
	bytes int64
}

// imageLoad is an item on its way.
type imageLoad struct {
	done chan struct{}
	item imageItem
	err  error
}

func newImageCache(bytesMax int64) (*imageCache, error) {
	last := max(bytesMax/4, min(bytesMax, imageCacheMin)/2)
	most := max(bytesMax-last, 1)
	often, err := ristretto.NewCache(&ristretto.Config[uint64, imageItem]{
		NumCounters: max(most/(4<<10), 100), // groups and sections are much larger than 4 KiB: ten for each, and more
		MaxCost:     most, BufferItems: 64,
	})
	if err != nil {
		return nil, fmt.Errorf("make the cache of decoded blocks: %w", err)
	}
	return &imageCache{
		often: often, last: list.New(), at: map[imageKey]*list.Element{},
		bytesMax: last, loading: map[imageKey]*imageLoad{},
	}, nil
}

func (c *imageCache) close() { c.often.Close() }

// get returns the value of key, and loads it where it is not there: once, however
// many ask for it at the same time. What is returned is not changed by anyone.
func (c *imageCache) get(key imageKey, load func() (value any, bytes int64, err error)) (any, error) {
	c.mu.Lock()
	if e := c.at[key]; e != nil {
		c.last.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(imageItem).value, nil
	}
	l := c.loading[key]
	mine := l == nil
	if mine {
		l = &imageLoad{done: make(chan struct{})}
		c.loading[key] = l
	}
	c.mu.Unlock()
	if !mine {
		<-l.done
		return l.item.value, l.err
	}
	found := false
	if l.item, found = c.often.Get(key.word()); !found {
		l.item = imageItem{key: key}
		l.item.value, l.item.bytes, l.err = load()
		if l.err == nil && c.often.Set(key.word(), l.item, l.item.bytes) {
			c.often.Wait() // what waits to be taken in is in nobody's count (R17)
		}
	}
	c.loaded(l)
	return l.item.value, l.err
}

// loaded ends a load and remembers the item as the one used last.
func (c *imageCache) loaded(l *imageLoad) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := l.item.key
	delete(c.loading, key)
	close(l.done)
	if l.err != nil {
		return
	}
	c.at[key] = c.last.PushFront(l.item)
	for c.bytes += l.item.bytes; c.bytes > c.bytesMax && c.last.Len() > 1; {
		oldest := c.last.Remove(c.last.Back()).(imageItem)
		delete(c.at, oldest.key)
		c.bytes -= oldest.bytes
	}
}
