package livebackup

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/internal/blindfuzz"
	"github.com/spillwaydb/spillway/internal/simfs"
	"github.com/spillwaydb/spillway/internal/vfs"
	"github.com/spillwaydb/spillway/mvcc"
)

// resealed returns data with the checksums of its envelope made right again,
// so that fuzzing gets behind them.
func resealed(data []byte) []byte {
	if len(data) < envelopeSize {
		return data
	}
	data = bytes.Clone(data)
	le.PutUint64(data[48:], uint64(len(data)-envelopeSize))
	sum := sha(data[envelopeSize:])
	copy(data[56:], sum[:])
	le.PutUint32(data[92:], checksum(data[:92]))
	return data
}

func FuzzManifest(f *testing.F) {
	repo, err := OpenRepository(f.Context(), "/repo", RepositoryOptions{FS: simfs.New(), Create: true})
	if err != nil {
		f.Fatal(err)
	}
	var res Result
	for range 2 {
		if res, err = Backup(f.Context(), newFake(1, 20, 4<<10), repo, sweepOptions); err != nil {
			f.Fatal(err)
		}
	}
	id := res.Manifest.ID
	data, err := readSmall(f.Context(), repo.objects, objectName(id, kindManifest, 0), manifestBytesMax)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, false)
	f.Add(bytes.Replace(data, []byte(`"full"`), []byte(`"part"`), 1), true)
	f.Add(bytes.Replace(data, []byte(`"blocks":20`), []byte(`"blocks":99`), 1), true)
	f.Add(append(bytes.Clone(data), ' '), true)
	m := res.Manifest
	m.Kind, m.Base, m.BaseLSN, m.BaseManifest, m.BlocksInUse, m.Audit = KindIncremental, BackupID{1, 2}, 50, Digest{1}, m.Blocks, Audit{16, 3}
	m.History, m.RecordSum = []block.Fork{{Timeline: block.TimelineID{1}, LSN: 7}}, 1
	if data, err = m.encode(repo.id); err != nil {
		f.Fatal(err)
	}
	f.Add(data, false)
	f.Add(bytes.Replace(data, []byte(`"base":"0000000001`), []byte(`"base":"0000000002`), 1), true)
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, data []byte, reseal bool) {
		if reseal {
			data = resealed(data)
		}
		m, err := decodeManifest(data, id, repo.id)
		if err != nil {
			return
		}
		again, err := m.encode(repo.id)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%v: accepted what it would not write:\n%q\n%q", err, data, again)
		}
	}))
}

// FuzzIndex feeds sections with right checksums and wrong contents.
func FuzzIndex(f *testing.F) {
	groups := groupEntry{object: 1, blocks: 2, offset: 64, stored: 8192}.append(nil)
	runs := runEntry{first: 4, blocks: 2}.append(nil)
	f.Add(uint32(1), uint32(1), uint64(4), uint64(5), append(bytes.Clone(groups), runs...))
	f.Add(uint32(1), uint32(2), uint64(4), uint64(4), append(groups, append(bytes.Clone(runs), runs...)...))
	header := encodeObjectHeader(magicIndex, block.DatabaseID{}, BackupID{1, 1}, 1)
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, groups, runs uint32, lowest, highest uint64, body []byte) {
		h := sectionHeader{groups: groups, runs: runs, lowest: block.ID(lowest), highest: block.ID(highest)}
		h.crc = checksum(body[:min(uint64(len(body)), uint64(groups)*groupEntrySize+uint64(runs)*runEntrySize)])
		head := h.encode()
		s, err := readSections(t, append(append(bytes.Clone(header), head[:]...), body...))
		if err != nil {
			return
		}
		// What is accepted tiles its groups: exactly what a reader relies on.
		blocks := uint64(0)
		for _, g := range s.groups {
			blocks += uint64(g.blocks)
		}
		for _, r := range s.runs {
			blocks -= uint64(r.blocks)
		}
		if blocks != 0 || s.untiled() != "" {
			t.Fatalf("accepted %+v", s)
		}
		s.byBlock()
		for _, r := range s.runs {
			if found, ok := s.find(r.end() - 1); !ok || found != r {
				t.Fatalf("block %v is in %+v, found %+v", r.end()-1, r, found)
			}
		}
	}))
}

// FuzzJournal: whatever the file says, what is read is what was written by this plan
// or nothing, and it is gone on with.
func FuzzJournal(f *testing.F) {
	f.Add([]byte{}, []byte("SPWYJRNL"))
	f.Add([]byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}, []byte{})
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, entries, raw []byte) {
		entries = entries[:min(len(entries), 12*100)] // more of them only take longer
		file := &fileInMemory{}
		j := openedJournal(t, file)
		n := 0
		for e := entries; len(e) >= 12; e = e[12:] {
			if err := j.write(journalEntry{le.Uint32(e), le.Uint32(e[4:]), le.Uint32(e[8:])}); err != nil {
				t.Fatal(err)
			}
			n++
		}
		j.f.WriteAt(raw, j.end)
		written := j.entries
		j = openedJournal(t, file)
		if len(raw) < journalEntrySize && len(j.entries) != len(written) || j.end < int64(journalHeaderSize+n*journalEntrySize) {
			t.Fatalf("%d entries, wrote %d", len(j.entries), len(written))
		}
		if err := j.add(77, 78); err != nil {
			t.Fatal(err)
		}
		if j = openedJournal(t, file); !j.has(77, 78) {
			t.Fatal("what was added is not there")
		}
	}))
}

// openedJournal is the journal of one plan in a file.
func openedJournal(t *testing.T, f *fileInMemory) *journal {
	j := &journal{f: f, end: journalHeaderSize, entries: map[journalEntry]bool{}}
	if err := j.read(Digest{1}); err != nil {
		t.Fatal(err)
	}
	return j
}

// fileInMemory is a file that costs next to nothing. Of what it cannot do nothing is
// asked.
type fileInMemory struct {
	vfs.File
	data []byte
}

func (f *fileInMemory) Size() (int64, error) { return int64(len(f.data)), nil }
func (f *fileInMemory) Truncate(n int64) error {
	f.data = append(f.data[:min(n, int64(len(f.data)))], make([]byte, max(0, n-int64(len(f.data))))...)
	return nil
}

func (f *fileInMemory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(f.data).ReadAt(p, off)
}

func (f *fileInMemory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(f.data)) {
		_ = f.Truncate(end)
	}
	return copy(f.data[off:], p), nil
}

// inMemory is objects of which one is in memory, and the others elsewhere, if there are
// any.
type inMemory struct {
	Objects
	name string
	data []byte
}

func (o inMemory) Open(ctx context.Context, name string) (ObjectReader, error) {
	if name == o.name {
		return objectInMemory{bytes.NewReader(o.data)}, nil
	}
	return o.Objects.Open(ctx, name)
}

type objectInMemory struct{ *bytes.Reader }

func (objectInMemory) Close() error { return nil }

// readSections reads an index object that holds one section.
func readSections(t *testing.T, data []byte) (*section, error) {
	r := openSections(data)
	defer r.in.close()
	s, err := r.read(t.Context())
	if err != nil {
		return nil, err
	}
	kept := *s
	if _, err := r.read(t.Context()); err != io.EOF {
		return nil, errStopped
	}
	return &kept, nil
}

// FuzzNames: what parses as a name is a name that we make, and safe to join.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"0000000001-0000000a.manifest", "0000000001-0000000a.blocks-00000001.0badcafe.tmp", "../x", "1-1.run"} {
		f.Add(name)
	}
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, name string) {
		id, k, number, temp, ok := parseObjectName(name)
		if !ok {
			return
		}
		if !temp && objectName(id, k, number) != name {
			t.Fatalf("%q parses, and is %q", name, objectName(id, k, number))
		}
		if !validName(objectName(id, k, number)) {
			t.Fatalf("%q is no name", name)
		}
	}))
}

// FuzzFrames reads anything as either side of the admin socket does, but for what they do
// with it, which is FuzzServer's and FuzzClient's: what is accepted is what we would write.
func FuzzFrames(f *testing.F) {
	hello := encodePreamble(1, 1)
	data, log := newBatch(2, 4096), logFrame{}
	log.reset()
	log.add(mvcc.LogRecord{LSN: 5, Last: true, Body: []byte("b")})
	frames := appendFrame(bytes.Clone(hello), frameOpen, []byte(`{"owner":"o","label":"l","batch_bytes":8192}`))
	frames = appendFrame(frames, frameLogNext, []byte(`{"bytes_max":1}`))
	f.Add(appendFrame(frames, frameRelease, []byte(`{"id":7}`)))
	f.Add(appendFrame(bytes.Clone(hello), frameData, data.seal([]block.ID{7}, costOfNothing, 1)))
	f.Add(appendFrame(bytes.Clone(hello), frameLog, log.seal(true, 5)))
	f.Add(appendFrame(bytes.Clone(hello), frameError, encodeError(&block.CorruptError{Path: "p", Offset: 1, Block: 2, Reason: "r"}, nil)))
	f.Add(appendFrame(bytes.Clone(hello), frameRepair, encodeRepair(mvcc.BlockRepair{Block: 1, AsOf: 2, Image: []byte("image")})))
	f.Add(append(bytes.Clone(hello), 0xff, 0xff, 0xff, 0xff, byte(frameData), 0, 0, 0))
	f.Fuzz(blindfuzz.Each(f, func(t *testing.T, input []byte) {
		r := bytes.NewReader(input)
		if lowest, highest, err := readPreamble(r); err != nil || !bytes.Equal(encodePreamble(lowest, highest), input[:preambleSize]) {
			if err == nil {
				t.Fatalf("took %x for a preamble", input[:preambleSize])
			}
			return
		}
		for {
			k, length, err := readFrameHeader(r)
			if err != nil {
				return
			}
			if whole, ok := readAnyFrame(t, r, k, length, data); !ok {
				return
			} else if at := len(input) - r.Len(); !bytes.HasSuffix(input[:at], whole) {
				t.Fatalf("took %x for %x", input[:at], whole)
			}
		}
	}))
}

// readAnyFrame reads the payload of a frame, and returns what we would write of what was
// understood of it.
func readAnyFrame(t *testing.T, r *bytes.Reader, k frameKind, length uint32, data *batch) (whole []byte, ok bool) {
	if k == frameData {
		if data.read(r, length) != nil {
			return nil, false
		}
		ids := make([]block.ID, data.n)
		for i := range ids {
			ids[i] = data.id(i)
		}
		return appendFrame(nil, k, data.seal(ids, data.cost, data.total)), true
	}
	payload, err := readRequest(r, k, length)
	if err != nil {
		return nil, false
	}
	switch k {
	case frameRepair:
		request, err := decodeRepair(payload)
		return appendFrame(nil, k, encodeRepair(request)), err == nil
	case frameError:
		if err := decodeError(payload); err == nil || err.Error() == "" {
			t.Fatalf("%q is no error", payload)
		}
	default:
		for _, v := range []any{&openRequest{}, &logOpenRequest{}, &logNextRequest{}, &headRequest{}, &paceMessage{}} {
			_ = decodeRequest(payload, v)
		}
		for _, v := range []any{&openReply{}, &forwardReply{}, &welcome{}} {
			_ = decodeReply(payload, v)
		}
	}
	return appendFrame(nil, k, payload), true
}

// FuzzServer sends anything to a server: it ends the connection, closes the
// session and takes no more memory than it may.
func FuzzServer(f *testing.F) {
	open := appendFrame(nil, frameOpen, []byte(`{"owner":"o","label":"l","batch_bytes":8192}`))
	hello := encodePreamble(1, 1)
	f.Add(append(bytes.Clone(hello), open...))
	f.Add(appendFrame(appendFrame(append(bytes.Clone(hello), open...), frameNext, nil), frameClose, nil))
	f.Add(appendFrame(appendFrame(bytes.Clone(hello), frameStatus, nil), frameCheck, nil))
	f.Add(encodePreamble(3, 4))
	logOpen := appendFrame(bytes.Clone(hello), frameLogOpen, []byte(`{"name":"n","after":1}`))
	f.Add(appendFrame(appendFrame(logOpen, frameLogNext, []byte(`{"bytes_max":1}`)), frameLogWait, nil))
	f.Add(appendFrame(appendFrame(bytes.Clone(hello), frameQuiesce, []byte(`{"timeout_ms":9}`)), frameResume, nil))
	f.Add(appendFrame(bytes.Clone(hello), frameMark, []byte(`{"name":"n"}`)))
	f.Add(appendFrame(bytes.Clone(hello), frameHead, []byte(`{"repository":"00000000000000000000000000000001","lsn":1,"sum":2}`)))
	f.Fuzz(func(t *testing.T, input []byte) {
		fake := newLogSource(newFakeHistory(1).grow(3))
		o, err := ServeOptions{Lease: time.Minute}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		s := newServer(fake, o)
		ours, theirs := net.Pipe()
		s.wg.Go(func() { s.serveConn(theirs) })
		drained := make(chan struct{})
		go func() { io.Copy(io.Discard, ours); close(drained) }()
		ours.Write(input)
		ours.Close()
		s.wg.Wait()
		<-drained
		if fake.openSessions() != 0 || fake.log.open() != 0 || fake.log.quiet() != 0 {
			t.Fatal("session left open")
		}
	})
}

// FuzzClient answers a client with anything: it reports an error or blocks that
// fit, and ends.
func FuzzClient(f *testing.F) {
	welcome := appendFrame(encodePreamble(1, 1), frameWelcome, []byte(`{"lease_ms":60000}`))
	opened := appendFrame(welcome, frameReply, []byte(`{"info":{"BlockSize":4096,"Blocks":1},"batch_blocks":1}`))
	b := newBatch(1, 4096)
	f.Add(appendFrame(bytes.Clone(opened), frameData, b.seal([]block.ID{7}, costOfNothing, 1)))
	f.Add(appendFrame(bytes.Clone(opened), frameError, encodeError(ErrBusy, nil)))
	f.Add(append(bytes.Clone(opened), 0xff, 0xff, 0xff, 0xff, byte(frameData), 0, 0, 0))
	f.Fuzz(func(t *testing.T, input []byte) {
		ours, theirs := net.Pipe()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			go io.Copy(io.Discard, theirs)
			theirs.Write(input)
			theirs.Close()
		}()
		useSession(ours)
		ours.Close()
		<-answered
	})
}

// useSession does what a backup does with a session.
func useSession(nc net.Conn) {
	conn, err := greet(nc)
	if err != nil {
		return
	}
	s, err := openRemote(conn, SessionOptions{})
	if err != nil {
		return
	}
	buf, ids := make([]byte, 64<<10), make([]block.ID, 3)
	for err == nil {
		_, err = s.Next(context.Background(), buf, ids)
	}
	s.Close()
}

// openSections is a reader of an index of one object.
func openSections(data []byte) *indexReader {
	id := BackupID{1, 1}
	objects := inMemory{name: objectName(id, kindIndex, 1), data: data}
	m := &Manifest{ID: id, Objects: []Object{{Kind: string(kindIndex), Number: 1, Size: int64(len(data)), SHA256: sha(data)}}}
	return &indexReader{in: newSeriesReader(objects, m, m.parts()[0].index, kindIndex, magicIndex), blockSize: 4096}
}
