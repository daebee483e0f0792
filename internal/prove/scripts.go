package prove

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/mvcc"
	"github.com/spillwaydb/spillway/snapshot"
)

// script is what meets in a schedule.
type script struct {
	name   string
	large  bool // the store has more blocks than fit into memory
	set    func(*mvcc.Options)
	actors [][]move
	end    func(*stage) error // behind all actors; nil: nothing
	uncut  bool               // what a power cut leaves of it is no promise: a place rotted
}

// orders is how many orders of its actors' steps there are.
func (sc script) orders() int {
	n, all := 0, 1
	for _, moves := range sc.actors {
		for i := range moves {
			n++
			all = all * n / (i + 1)
		}
	}
	return all
}

// move is a step of an actor: what is done between two of its places to yield.
type move struct {
	name string
	do   func(*stage) error
}

// stage is a store that a script plays on, as one of the actors has it.
type stage struct {
	*world
	sched  *scheduler
	start  *opening
	broken *atomic.Int64
	fell   *atomic.Int64 // backups, forward
	rotten *atomic.Int64 // block of which the place was damaged

	view view    // what this actor reads
	take *taking // what it takes
}

// act runs an actor's moves. A snapshot that is broken ends it.
func (s *stage) act(moves []move) (err error) {
	defer func() { err = errors.Join(err, s.leave()) }()
	for _, m := range moves {
		s.sched.park("step "+m.name, 0)
		err := m.do(s)
		if errors.Is(err, snapshot.ErrBroken) {
			s.broken.Add(1)
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// leave closes what the actor has open.
func (s *stage) leave() (err error) {
	if s.view.tx != nil {
		s.view.tx.Close()
		s.view.tx = nil
	}
	if s.take != nil {
		err = s.take.close()
		s.take = nil
	}
	return err
}

// few is how many blocks at the start and at the end of the file have most of the changes.
const few = 3

func scripts() []script {
	return append(smallScripts(), largeScripts()...)
}

// smallScripts play on few blocks: nothing leaves memory unless it is done with.
func smallScripts() []script {
	incremental, full := []move{openIncremental, takeSome, takeRest}, []move{openFull, takeSome, takeRest}
	reader := []move{openReader, read, read}
	return []script{
		{name: "commit, read", actors: [][]move{{change(2), change(2)}, {openReader, read, closeReader}}},
		{name: "commit, checkpoint", actors: [][]move{{change(2), change(2)}, {checkpoint}}},
		{name: "commit, checkpoint, read", actors: [][]move{{change(3), change(3)}, {checkpoint}, reader}},
		{name: "commit, commit, read", actors: [][]move{{change(2), change(2)}, {change(2), change(2)}, reader}},
		{name: "commit, full", actors: [][]move{{change(3)}, full}},
		{name: "free and allocate, read", actors: [][]move{{free, allocate}, reader}},
		{name: "free and allocate, full, checkpoint", actors: [][]move{{free, allocate}, full, {checkpoint}}},
		{name: "wear and free, incremental, read", actors: [][]move{{wear, changeLast, free}, {openIncremental, takeRest}, {openAndRead, read}}},
		{name: "wear and free, incremental, full", actors: [][]move{{wear, changeLast, free}, {openIncremental, takeRest}, {openFull, takeRest}}},
		{name: "wear, free and allocate, incremental, read", actors: [][]move{{wear, free, allocate}, incremental, {openAndRead, read}}},
		{name: "free and allocate, incremental, read, checkpoint", actors: [][]move{{changeLast, free, allocate}, {openIncremental, takeRest}, {openAndRead, read}, {checkpoint}}},
		{name: "free, incremental, full, checkpoint", actors: [][]move{{changeLast, free}, {openIncremental, takeRest}, {openFull, takeRest}, {checkpoint}}},
		{name: "log switch, checkpoint, commit", actors: [][]move{{rewrite, rewrite}, {checkpoint, checkpoint}, {change(1), change(1)}}},
		{name: "log switch, full, read", actors: [][]move{{rewrite, rewrite}, {openFull, takeRest}, {openAndRead, read}}},
		{name: "damage and repair, commit, read", uncut: true, end: repair.do,
			actors: [][]move{{damage, repair}, {orDamage(changeLast), checkpoint, orDamage(free)}, {openReader, orDamage(read), orDamage(read)}}},
	}
}

// largeScripts play on so many blocks that originals have to leave memory.
func largeScripts() []script {
	a, b, c, d := change(90), changeFrom(0), changeFrom(160), changeFrom(320)
	all := both(b, both(c, d))
	little := func(o *mvcc.Options) { o.Temp, o.OverflowMax = []mvcc.TempDir{{Path: dbDir, BytesMax: 128 << 10}}, -1 }
	none := func(o *mvcc.Options) { o.Temp, o.OverflowMax = []mvcc.TempDir{}, -1 }
	return []script{
		{name: "commit a lot, read", large: true, actors: [][]move{{a, a}, {openReader, read, read}}},
		{name: "commit a lot, read, full", large: true, actors: [][]move{{a, a}, {openReader, read, read}, {openFull, takeSome, takeRest}}},
		{name: "commit a lot, read, read, checkpoint", large: true, actors: [][]move{{a, a}, {openReader, read}, {openReader, read, read}, {checkpoint}}},
		{name: "spill, read, close", large: true, actors: [][]move{{b, checkpoint, c, d}, {openReader, read, closeReader}, {openReader, read, read}}},
		{name: "spill, incremental, close", large: true, actors: [][]move{{b, c, d, free}, {openReader, closeReader}, {openIncremental, takeSome, takeRest}}},
		{name: "break, read", large: true, set: none, actors: [][]move{{b, c, d}, {openReader, read, read}, {openReader, read, read}}},
		{name: "fall forward, read", large: true, set: little, actors: [][]move{{all, b}, {both(openFull, takeSome), takeRest}, {openAndRead, read}}},
		{name: "fall forward, free and allocate", large: true, set: none, actors: [][]move{{all, free, both(b, allocate)}, {both(openIncremental, takeSome), takeSome, takeRest}}},
		{name: "fall forward, incremental, checkpoint", large: true, set: little, actors: [][]move{{all, both(changeLast, free)}, {both(openFull, takeSome), takeRest}, {both(openIncremental, takeSome), takeRest}, {checkpoint}}},
		{name: "large transaction, read, checkpoint", large: true, actors: [][]move{{change(400)}, {openReader, read, read}, {checkpoint}}},
	}
}

// both is two moves as one.
func both(a, b move) move {
	return move{a.name + ", " + b.name, func(s *stage) error { return inOrder(func() error { return a.do(s) }, func() error { return b.do(s) }) }}
}

// change commits changes of the first n blocks; changeFrom those of a third of the blocks of
// a large store, by forties.
func change(n int) move {
	return move{"change", func(s *stage) error { return s.commit(func(e *edit) error { return e.sweepAll(n) }) }}
}

func changeFrom(from int) move {
	return move{"change", func(s *stage) error {
		for at := from; at < from+160; at += 40 {
			err := s.commit(func(e *edit) error { return e.changeEach(e.held[min(at, len(e.held)):min(at+40, len(e.held))]) })
			if err != nil {
				return err
			}
		}
		return nil
	}}
}

func (e *edit) changeEach(ids []block.ID) error {
	for _, id := range ids {
		if err := e.change(id); err != nil {
			return err
		}
	}
	return nil
}

// last are those of the store's first blocks at the end of the file that are in use.
func (e *edit) last(s *stage) []block.ID {
	return slices.DeleteFunc(slices.Clone(s.start.last), func(id block.ID) bool { return !slices.Contains(e.held, id) })
}

func (s *stage) changeLast() error {
	return s.commit(func(e *edit) error { return e.changeEach(e.last(s)) })
}

var (
	changeLast = move{"change last", (*stage).changeLast}
	// wear changes blocks that free will free, and brings them into place.
	wear = both(changeLast, checkpoint)
	free = move{"free last", func(s *stage) error {
		return s.commit(func(e *edit) error {
			for _, id := range e.last(s) {
				if err := e.free(id); err != nil {
					return err
				}
			}
			return nil
		})
	}}
	allocate   = move{"allocate", func(s *stage) error { return s.grow(few) }}
	rewrite    = move{"rewrite", (*stage).rewrite}
	checkpoint = move{"checkpoint", func(s *stage) error { return s.checkpoint() }}
)

// rewrite commits so many whole blocks that the log goes on in its next segment.
func (s *stage) rewrite() error {
	return s.commit(func(e *edit) error {
		for _, id := range e.held {
			b, err := e.tx.Edit(id)
			if err != nil {
				return err
			}
			for p := b.Payload(); len(p) >= 8; p = p[8:] {
				binary.LittleEndian.PutUint64(p, e.rng.Uint64())
			}
			e.next.blocks[id] = contentOf(b)
			b.Release()
		}
		return nil
	})
}

var (
	openReader  = move{"open", (*stage).openReader}
	read        = move{"read", (*stage).readSome}
	openAndRead = both(openReader, read)
	closeReader = move{"close", (*stage).leave}
)

func (s *stage) openReader() error {
	r := readers{w: s.world}
	v, err := r.open()
	if err != nil {
		return err
	}
	if v.tx == nil {
		return snapshot.ErrBroken
	}
	s.view = v
	raise(&s.m.seen, v.tx.LSN())
	return nil
}

// readSome reads blocks that others change and free, and some between.
func (s *stage) readSome() error {
	v := s.view
	for i, id := range v.ids {
		if i >= few && i < len(v.ids)-2*few && i%40 != 0 {
			continue
		}
		if err := s.readBlock(id); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) readBlock(id block.ID) error {
	v := s.view
	b, err := v.tx.Block(id)
	if err != nil {
		if _, again := v.tx.Block(id); errors.Is(err, snapshot.ErrBroken) && !errors.Is(again, snapshot.ErrBroken) {
			return fmt.Errorf("a snapshot was broken once, and then: %v (L10)", again)
		}
		return fmt.Errorf("block %v at LSN %v: %w", id, v.tx.LSN(), err)
	}
	defer b.Release()
	if contentOf(b) != v.im.blocks[id] {
		return fmt.Errorf("block %v at LSN %v is another version than that of the commit", id, v.tx.LSN())
	}
	return nil
}

var (
	openFull        = move{"open full", func(s *stage) error { return s.openBackup(mvcc.BackupOptions{}, nil) }}
	openIncremental = move{"open incremental", func(s *stage) error {
		return s.openBackup(mvcc.BackupOptions{Base: s.start.base}, s.start.images)
	}}
	takeSome = move{"take some", func(s *stage) error { _, err := s.take.next(s.ctx); return err }}
	takeRest = move{"take the rest", (*stage).takeRest}
)

func (s *stage) openBackup(o mvcc.BackupOptions, base images) (err error) {
	o.FullSpeed = true
	s.take, err = s.world.take(s.ctx, o, base, 16)
	return err
}

func (s *stage) takeRest() error {
	for done := false; !done; {
		var err error
		if done, err = s.take.next(s.ctx); err != nil {
			return err
		}
	}
	if s.take.fell != nil {
		s.fell.Add(1)
	}
	_, err := s.take.finish()
	return err
}

// A place of the data file rots, and is repaired. The newest version may be in memory.
var (
	damage = move{"damage", func(s *stage) error {
		id := s.start.last[0]
		s.rotten.Store(int64(id))
		return s.fs.FlipBits(dbDir+"/data", int64(id)*int64(s.s.BlockSize())+7, 1)
	}}
	repair = move{"repair", func(s *stage) error {
		id := s.start.last[0]
		_, err := s.s.RepairBlock(s.ctx, mvcc.BlockRepair{Block: id, Image: s.start.images[id], AsOf: s.start.base})
		return err
	}}
)

// orDamage is a move that may meet damage, which is an answer.
func orDamage(m move) move {
	return move{m.name, func(s *stage) error {
		err := m.do(s)
		var damage *block.CorruptError
		if errors.As(err, &damage) && damage.Block == block.ID(s.rotten.Load()) {
			return nil
		}
		return err
	}}
}

// opening is a store to begin with.
type opening struct {
	disk   *simfs.FS
	m      *blockModel
	last   []block.ID // at the end of the file
	base   block.LSN  // what incrementals begin at
	images images     // the state there
}

// newOpening makes a store of so many blocks. Of each extent one block was changed since
// the base: so an incremental has to look at all.
func newOpening(x *explorer, blocks int) (*opening, error) {
	disk, err := newDisk()
	if err != nil {
		return nil, err
	}
	w := &world{ctx: x.ctx, rng: rand.New(rand.NewPCG(1, 62)), fs: disk, o: smallOptions(disk), m: newBlockModel(), cover: &Coverage{}}
	third := func() error { return w.grow(blocks / 3) }
	o := &opening{m: w.m}
	err = inOrder(w.open, third, third, third, w.checkpoint,
		func() (err error) {
			o.images, o.base, err = w.takeAll(x)
			return err
		},
		func() error {
			return w.commit(func(e *edit) error {
				for _, id := range e.held {
					if id%8 == 3 {
						if err := e.change(id); err != nil {
							return err
						}
					}
				}
				o.last = slices.Clone(e.held[len(e.held)-2*few:])
				o.last = slices.DeleteFunc(o.last, func(id block.ID) bool { return id%8 == 3 })
				return nil
			})
		},
		w.checkpoint, func() error { return w.s.Close() })
	o.disk = disk.Crash(nil, simfs.DropAll)
	return o, err
}

func (w *world) takeAll(x *explorer) (images, block.LSN, error) {
	t, err := w.take(x.ctx, mvcc.BackupOptions{FullSpeed: true}, nil, 16)
	if err != nil {
		return nil, 0, err
	}
	for done := false; !done && err == nil; {
		done, err = t.next(x.ctx)
	}
	if err != nil {
		return nil, 0, errors.Join(err, t.close())
	}
	state, err := t.finish()
	return state, t.info.LSN, errors.Join(err, t.close())
}
