package livebackup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// The protocol of the admin socket, version 1. Numbers are little-endian.
//
// Each side first sends a preamble; the server's names the version chosen as
// both lowest and highest, or its own range when there is none in common, and
// then closes:
//
//	offset  size  field
//	0       8     magic      "SPWADMIN"
//	8       4     lowest     version that the sender speaks
//	12      4     highest    version
//
// Then come frames. The server's first is a welcome, or an error:
//
//	offset  size  field
//	0       4     length     of the payload in bytes
//	4       1     kind
//	5       3     zero
//	8             payload
//
//	kind  from    payload
//	1     client  status     none
//	2     client  check      none
//	3     client  open       JSON of openRequest
//	4     client  next       none
//	5     client  renew      none; has no reply
//	6     client  close      none
//	7     client  release    JSON of releaseRequest
//	8     client  quiesce    JSON of quiesceRequest
//	9     client  resume     none
//	10    client  log open   JSON of logOpenRequest
//	11    client  log next   JSON of logNextRequest
//	12    client  log wait   none
//	13    client  log sum    JSON of lsnMessage
//	14    client  log done   JSON of lsnMessage
//	15    client  head check JSON of headRequest
//	16    client  remember   JSON of headRequest
//	17    client  mark       JSON of markRequest
//	18    client  changes    none
//	19    client  events     JSON of eventsRequest
//	20    client  pace       JSON of paceMessage
//	21    client  repair     see below
//	22    client  promote    none
//	23    client  redo       JSON of logNextRequest
//	0x80  server  welcome    JSON of welcome
//	0x81  server  reply      JSON: statusReply, mvcc.CheckResult, openReply, mvcc.Cost (of close of a
//	                         snapshot), logOpenReply, waitReply, sumReply, eventsReply, lsnMessage (of
//	                         mark and quiesce), mvcc.Changes, mvcc.BlockRepaired, Promoted, nothing
//	                         else: {}
//	0x82  server  data       blocks, see below; none are left when it holds none
//	0x83  server  progress   JSON of checkProgress, any number before the reply to check
//	0x84  server  log        records, see below; the reply to log next, and to redo
//	0x85  server  notice     JSON of paceMessage; see below
//	0x86  server  forward    JSON of forwardReply; a reply to next
//	0xff  server  error      JSON of wireError; the server then closes
//
// Payloads have at most 64 KiB, those of data at most what open agreed on:
//
//	offset  size  field
//	0       4     blocks     n, at most openReply.BatchBlocks
//	4       4     zero
//	8       120   cost       so far: 15 numbers, in the order of costFields
//	128     8     total      blocks that the session will have handed out, as far as known; else 0
//	136     n b   images     whole blocks of b bytes
//	        n 8   numbers    of the blocks
//
// Payloads of log have at most 1 MiB and 32 bytes. One log next gets as many of the
// records that it asked for as fit; the next one goes on, within a commit too, until
// a frame says that it is the end.
//
//	offset  size  field
//	0       4     records    how many
//	4       4     flags      bit 0: the end: all that was asked for, or all that is durable
//	8       8     LSN        with bit 0: last commit that was handed out; else 0
//	16            records    as in a chunk of a log object, see logformat.go
//
// The payload of repair, of at most 64 KiB and 24 bytes:
//
//	offset  size  field
//	0       8     block
//	8       8     LSN        that the image is as of; 0 without one
//	16      4     flags      bit 0: only find out what would be done; bit 1: an image follows
//	20      4     zero
//	24            image      whole block
//
// Replies come in the order of the requests. At most pipelineMax requests may
// be unanswered: two next, so that one batch travels while one is used, a redo, and a
// close. A connection has at most one session, opened once: a snapshot, a log
// that is followed, or a quiet. It ends with the
// connection, however that ends, and when no frame has come for the length of
// the lease; a client that has nothing to ask sends renew. A client reads what
// it asked for without delay, whatever its own sink does: a server that cannot
// write for the length of the lease gives up.
//
// A notice tells the taker of a snapshot what rate somebody asked of it, by pace on
// another connection. It comes before the reply to next, or after a renew, once for
// each change, and nothing is said to it. An error that ends a snapshot has with it
// what the snapshot had cost.
//
// A snapshot that falls forward (R12) says so in a forward frame, in the place of
// data, once; the data behind it is of the blocks as they are then. From then on redo
// asks for the log that comes with it, in frames as those of log next: the end is all
// that was asked for, or all that is durable, or the last commit of the backup. In the
// place of the data that says that there are none left comes a forward frame with what
// the backup is of in the end.
//
// Log wait is answered when there are durable commits that were not handed out,
// after logWaitMax, or when another request comes: so a client takes it back. A
// quiet ends with resume, or when its time has run out: then the server says so in
// an error, and closes.

const protocolVersion = 1

const (
	preambleSize     = 16
	frameHeaderSize  = 8
	dataHeaderSize   = 136
	controlBytesMax  = 64 << 10
	messageBytesMax  = 4 << 10 // of an error: JSON may write six bytes for one
	batchBytesMax    = groupBytesMax
	batchBytesWanted = 1 << 20
	nextInFlight     = 2
	pipelineMax      = nextInFlight + 2
)

var magicAdmin = magic([]byte("SPWADMIN"))

// frameKind is what a frame is.
type frameKind uint8

const (
	frameStatus   frameKind = 1
	frameCheck    frameKind = 2
	frameOpen     frameKind = 3
	frameNext     frameKind = 4
	frameRenew    frameKind = 5
	frameClose    frameKind = 6
	frameRelease  frameKind = 7
	frameQuiesce  frameKind = 8
	frameResume   frameKind = 9
	frameLogOpen  frameKind = 10
	frameLogNext  frameKind = 11
	frameLogWait  frameKind = 12
	frameLogSum   frameKind = 13
	frameLogDone  frameKind = 14
	frameHead     frameKind = 15
	frameRemember frameKind = 16
	frameMark     frameKind = 17
	frameChanges  frameKind = 18
	frameEvents   frameKind = 19
	framePace     frameKind = 20
	frameRepair   frameKind = 21
	framePromote  frameKind = 22
	frameRedo     frameKind = 23
	frameWelcome  frameKind = 0x80
	frameReply    frameKind = 0x81
	frameData     frameKind = 0x82
	frameProgress frameKind = 0x83
	frameLog      frameKind = 0x84
	frameNotice   frameKind = 0x85
	frameForward  frameKind = 0x86
	frameError    frameKind = 0xff
)

// welcome says what the client has to keep to.
type welcome struct {
	LeaseMillis int64 `json:"lease_ms"`
}

type openRequest struct {
	SessionOptions
	BatchBytes int `json:"batch_bytes"` // that the client has room for
}

type openReply struct {
	Info        mvcc.BackupInfo `json:"info"`
	BatchBlocks int             `json:"batch_blocks"`
}

// forwardReply says that the session fell forward at LSN, or, with End, that there are
// no blocks left.
type forwardReply struct {
	LSN block.LSN        `json:"lsn,omitempty"`
	End *mvcc.BackupInfo `json:"end,omitempty"`
}

// statusReply is a status that may have been cut to fit into a frame.
type statusReply struct {
	Status           mvcc.Status `json:"status"`
	SnapshotsLeftOut int         `json:"snapshots_left_out"`
}

type releaseRequest struct {
	ID uint64 `json:"id"`
}

type eventsRequest struct {
	After uint64 `json:"after"`
}

// eventsReply has the oldest events that were asked for, as many as fit into a frame.
type eventsReply struct {
	Events []mvcc.Event `json:"events"`
}

// paceMessage asks for a rate, as mvcc.Store.SetPace; in a notice without an id.
type paceMessage struct {
	ID             uint64 `json:"id,omitempty"`
	BytesPerSecond int64  `json:"bytes_per_second"`
}

type checkProgress struct {
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
}

func encodePreamble(lowest, highest uint32) []byte {
	b := append(make([]byte, 0, preambleSize), magicAdmin[:]...)
	return le.AppendUint32(le.AppendUint32(b, lowest), highest)
}

func readPreamble(r io.Reader) (lowest, highest uint32, err error) {
	var b [preambleSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	if magic(b[:8]) != magicAdmin {
		return 0, 0, fmt.Errorf("%w: it starts with %q", ErrProtocol, b[:8])
	}
	return le.Uint32(b[8:]), le.Uint32(b[12:]), nil
}

// appendFrame appends a whole frame to b.
func appendFrame(b []byte, k frameKind, payload []byte) []byte {
	b = le.AppendUint32(b, uint32(len(payload)))
	b = append(b, byte(k), 0, 0, 0)
	return append(b, payload...)
}

// readFrameHeader reads the start of a frame.
func readFrameHeader(r io.Reader) (k frameKind, length uint32, err error) {
	var b [frameHeaderSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	if b[5]|b[6]|b[7] != 0 {
		return 0, 0, fmt.Errorf("%w: reserved bytes are not zero", ErrProtocol)
	}
	return frameKind(b[4]), le.Uint32(b[0:]), nil
}

// readControl reads the payload of a frame that has neither blocks nor log.
func readControl(r io.Reader, length uint32) ([]byte, error) {
	return readPayload(r, length, controlBytesMax, nil)
}

// readPayload reads the payload of a frame, which has at most most bytes, into buf if
// that has room for it.
func readPayload(r io.Reader, length, most uint32, buf []byte) ([]byte, error) {
	if length > most {
		return nil, fmt.Errorf("%w: frame of %d bytes", ErrProtocol, length)
	}
	if cap(buf) < int(length) {
		buf = make([]byte, length)
	}
	if _, err := io.ReadFull(r, buf[:length]); err != nil {
		return nil, noEOF(err)
	}
	return buf[:length], nil
}

// noEOF tells an end within a frame from one between frames.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// costFields are the counts of a cost in the order of the protocol.
func costFields(c *mvcc.Cost) (first [4]*uint64, sizes [5]*int64, more [6]*uint64) {
	return [4]*uint64{&c.OriginalsMade, &c.OriginalsShared, &c.OriginalsSpilled, &c.OriginalsRead},
		[5]*int64{&c.HeldBytes, &c.HeldPeakBytes, &c.RAMPeakBytes, &c.SpillPeakBytes, &c.OverflowPeakBytes},
		[6]*uint64{&c.BlocksChanged, &c.OriginalsPruned, &c.OriginalsPeak, &c.OriginalsHeldPeak, &c.BlocksHot, &c.OriginalsOverflowed}
}

func appendCost(b []byte, c mvcc.Cost) []byte {
	first, sizes, more := costFields(&c)
	for _, n := range first {
		b = le.AppendUint64(b, *n)
	}
	for _, n := range sizes {
		b = le.AppendUint64(b, uint64(*n))
	}
	for _, n := range more {
		b = le.AppendUint64(b, *n)
	}
	return b
}

func decodeCost(b []byte) (c mvcc.Cost) {
	first, sizes, more := costFields(&c)
	for i, n := range first {
		*n = le.Uint64(b[i*8:])
	}
	for i, n := range sizes {
		*n = int64(le.Uint64(b[(len(first)+i)*8:]))
	}
	for i, n := range more {
		*n = le.Uint64(b[(len(first)+len(sizes)+i)*8:])
	}
	return c
}

// batch is the payload of a data frame, in a buffer that is used again.
type batch struct {
	buf  []byte
	size int // of a block
	n    int
	cost mvcc.Cost

	total uint64 // see Session.Total

	forward *forwardReply // what came in the place of blocks; nil: blocks
}

func newBatch(blocks, size int) *batch {
	return &batch{buf: make([]byte, dataHeaderSize+blocks*(size+8)), size: size}
}

// images is the room for, or what there is of, block images.
func (b *batch) images(n int) []byte { return b.buf[dataHeaderSize:][: n*b.size : n*b.size] }

// id is the number of the i-th block.
func (b *batch) id(i int) block.ID {
	return block.ID(le.Uint64(b.buf[dataHeaderSize+b.n*b.size+i*8:]))
}

// seal enters what stands before and behind the images, and returns the payload.
func (b *batch) seal(ids []block.ID, cost mvcc.Cost, total uint64) []byte {
	b.n = len(ids)
	head := le.AppendUint32(b.buf[:0], uint32(b.n))
	le.AppendUint64(appendCost(le.AppendUint32(head, 0), cost), total)
	tail := b.buf[:dataHeaderSize+b.n*b.size]
	for _, id := range ids {
		tail = le.AppendUint64(tail, uint64(id))
	}
	return tail
}

// read takes the payload of a data frame from r.
func (b *batch) read(r io.Reader, length uint32) error {
	if length < dataHeaderSize || uint64(length) > uint64(len(b.buf)) {
		return fmt.Errorf("%w: data frame of %d bytes", ErrProtocol, length)
	}
	if _, err := io.ReadFull(r, b.buf[:length]); err != nil {
		return noEOF(err)
	}
	n := uint64(le.Uint32(b.buf))
	if le.Uint32(b.buf[4:]) != 0 || dataHeaderSize+n*uint64(b.size+8) != uint64(length) {
		return fmt.Errorf("%w: data frame of %d bytes says %d blocks", ErrProtocol, length, n)
	}
	b.n, b.cost, b.total = int(n), decodeCost(b.buf[8:]), le.Uint64(b.buf[dataHeaderSize-8:])
	return nil
}

// wireError is an error on its way through the socket.
type wireError struct {
	Code    string   `json:"code"`
	Message string   `json:"message"`
	Path    string   `json:"path,omitempty"` // of a block.CorruptError, as the rest
	Offset  int64    `json:"offset,omitempty"`
	Block   block.ID `json:"block,omitempty"`
	Reason  string   `json:"reason,omitempty"`

	Cost  *mvcc.Cost       `json:"cost,omitempty"`  // of the snapshot that it ended
	Guard *mvcc.GuardError `json:"guard,omitempty"` // that ended or refused it
}

const codeCorrupt = "corrupt"

// wireCodes are the errors that keep their identity on the way. The codes are
// part of the protocol.
var wireCodes = []struct {
	code string
	err  error
}{
	{"guard", mvcc.ErrGuard},
	{"emergency", mvcc.ErrEmergency},
	{"no_snapshot", mvcc.ErrNoSnapshot},
	{"snapshot_broken", mvcc.ErrBroken},
	{"map_behind", mvcc.ErrMapBehind},
	{"too_many_backups", mvcc.ErrTooManyBackups},
	{"lease_expired", ErrLeaseExpired},
	{"server_closed", ErrServerClosed},
	{"busy", ErrBusy},
	{"protocol", ErrProtocol},
	{"peer_not_allowed", ErrPeerNotAllowed},
	{"store_closed", mvcc.ErrClosed},
	{"store_failed", mvcc.ErrPoisoned},
	{"no_base", mvcc.ErrBase},
	{"not_in_history", mvcc.ErrHistory},
	{"log_gone", mvcc.ErrLogGone},
	{"behind", mvcc.ErrBehind},
	{"standby", mvcc.ErrStandby},
	{"read_only", mvcc.ErrReadOnly},
	{"no_space", mvcc.ErrNoSpace},
	{"no_backup", mvcc.ErrNoBackup},
	{"no_quiet", ErrNoQuiet},
	{"quiet_over", ErrQuietOver},
	{"options", ErrOptions},
	{"store_options", mvcc.ErrOptions},
	{"no_image", mvcc.ErrNoImage},
	{"not_standby", mvcc.ErrNotStandby},
	{"unsupported", errors.ErrUnsupported},
	{"canceled", context.Canceled},
}

// encodeError shortens what does not fit into a frame: that something is damaged is told
// whatever its path is.
func encodeError(err error, cost *mvcc.Cost) []byte {
	for most := messageBytesMax; ; most /= 2 {
		if b := encodeErrorIn(err, cost, most); len(b) <= controlBytesMax || most == 0 {
			return b
		}
	}
}

// encodeErrorIn encodes an error with at most so many bytes of each of its texts.
func encodeErrorIn(err error, cost *mvcc.Cost, most int) []byte {
	clip := func(s string) string { return s[:min(len(s), most)] }
	w := wireError{Code: "failed", Message: clip(err.Error()), Cost: cost}
	var corrupt *block.CorruptError
	if errors.As(err, &corrupt) {
		w.Code, w.Path, w.Reason = codeCorrupt, clip(corrupt.Path), clip(corrupt.Reason)
		w.Offset, w.Block = corrupt.Offset, corrupt.Block
	}
	errors.As(err, &w.Guard)
	for _, c := range wireCodes {
		if w.Code != codeCorrupt && errors.Is(err, c.err) {
			w.Code = c.code
			break
		}
	}
	payload, err := json.Marshal(w)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return payload
}

func clip(s string) string { return s[:min(len(s), messageBytesMax)] }

// RemoteError is an error that happened in the serving process. It matches, by
// errors.Is, what it was there where both sides know it.
type RemoteError struct {
	Message string
	cause   error
}

func (e *RemoteError) Error() string { return "serving process: " + e.Message }

// Unwrap yields the error that this was in the serving process, as far as known.
func (e *RemoteError) Unwrap() error { return e.cause }

func decodeError(payload []byte) error {
	_, err := decodeErrorCost(payload)
	return err
}

// decodeErrorCost also returns what a snapshot that the error ended had cost, or nil.
func decodeErrorCost(payload []byte) (*mvcc.Cost, error) {
	var w wireError
	if err := json.Unmarshal(payload, &w); err != nil {
		return nil, fmt.Errorf("%w: error does not decode: %w", ErrProtocol, err)
	}
	e := &RemoteError{Message: w.Message}
	if w.Code == codeCorrupt {
		e.cause = &block.CorruptError{Path: w.Path, Offset: w.Offset, Block: w.Block, Reason: w.Reason}
	}
	for _, c := range wireCodes {
		if c.code == w.Code {
			e.cause = c.err
		}
	}
	if w.Guard != nil && e.cause == mvcc.ErrGuard {
		e.cause = w.Guard
	}
	return w.Cost, e
}
