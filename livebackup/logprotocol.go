package livebackup

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// Messages of the admin socket that have to do with log, heads, marks and quiets;
// protocol.go has the whole.

const (
	logFrameHead = 16
	// logFrameMax holds the longest record.
	logFrameMax = logFrameHead + recordHeadSize + logBodyBytesMax
	// logWaitMax is how long a server lets a client wait without a word.
	logWaitMax = 10 * time.Second
	logFlagEnd = 1
)

type logOpenRequest struct {
	Name  string    `json:"name"`
	After block.LSN `json:"after"`
}

type logOpenReply struct {
	Info LogInfo `json:"info"`
}

type logNextRequest struct {
	BytesMax int64 `json:"bytes_max"`
}

type waitReply struct {
	More bool `json:"more"`
}

type lsnMessage struct {
	LSN block.LSN `json:"lsn"`
}

type sumReply struct {
	Sum uint32 `json:"sum"`
}

type headRequest struct {
	Repository hexID     `json:"repository"`
	LSN        block.LSN `json:"lsn"`
	Sum        uint32    `json:"sum"`
}

type markRequest struct {
	Name string `json:"name"`
}

type quiesceRequest struct {
	TimeoutMillis int64 `json:"timeout_ms"`
}

// decodeRequest reads the payload of a request strictly.
func decodeRequest(payload []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: request does not decode: %v", ErrProtocol, err)
	}
	return nil
}

// logFrame is the payload of a frame of log that is being filled.
type logFrame struct {
	buf     []byte
	records uint32
}

func (f *logFrame) reset() {
	f.buf, f.records = append(f.buf[:0], make([]byte, logFrameHead)...), 0
}

// add appends a record if there is room. There is for the first one.
func (f *logFrame) add(r mvcc.LogRecord) bool {
	if len(f.buf)+recordHeadSize+len(r.Body) > logFrameMax {
		return false
	}
	f.buf = appendRecord(f.buf, r)
	f.records++
	return true
}

// seal enters what stands before the records, and returns the payload.
func (f *logFrame) seal(end bool, lsn block.LSN) []byte {
	le.PutUint32(f.buf, f.records)
	if end {
		le.PutUint32(f.buf[4:], logFlagEnd)
		le.PutUint64(f.buf[8:], uint64(lsn))
	}
	return f.buf
}

// logOrder proves that records from another process are whole commits, one after the
// other.
type logOrder struct {
	last block.LSN // commit whose last record was handed out
	open bool      // a part of the next one was
}

// hand hands out the records of a frame of log, and reports whether the frame is the last
// of what was asked for.
func (o *logOrder) hand(payload []byte, fn func(mvcc.LogRecord) error) (end bool, err error) {
	end, lsn, err := decodeLogFrame(payload, func(r mvcc.LogRecord) error {
		if r.LSN != o.last+1 {
			return fmt.Errorf("%w: a record of commit %v where %v was due", ErrProtocol, r.LSN, o.last+1)
		}
		if o.open = !r.Last; r.Last {
			o.last = r.LSN
		}
		return fn(r)
	})
	if err == nil && end && (lsn != o.last || o.open) {
		err = fmt.Errorf("%w: log ends at commit %v, it has come to %v", ErrProtocol, lsn, o.last)
	}
	return end, err
}

// decodeLogFrame calls fn for the records of a frame of log; end and lsn are what
// it says of the end.
func decodeLogFrame(payload []byte, fn func(mvcc.LogRecord) error) (end bool, lsn block.LSN, err error) {
	if len(payload) < logFrameHead || le.Uint32(payload[4:]) > logFlagEnd {
		return false, 0, fmt.Errorf("%w: log frame of %d bytes", ErrProtocol, len(payload))
	}
	n, rest := le.Uint32(payload), payload[logFrameHead:]
	end, lsn = le.Uint32(payload[4:]) == logFlagEnd, block.LSN(le.Uint64(payload[8:]))
	if n == 0 && !end {
		return false, 0, fmt.Errorf("%w: empty log frame", ErrProtocol)
	}
	for ; n > 0; n-- {
		r, more, ok := cutRecord(rest)
		if !ok {
			return false, 0, fmt.Errorf("%w: log frame ends within a record", ErrProtocol)
		}
		if err := fn(r); err != nil {
			return false, 0, err
		}
		rest = more
	}
	if len(rest) > 0 {
		return false, 0, fmt.Errorf("%w: log frame of %d bytes too many", ErrProtocol, len(rest))
	}
	return end, lsn, nil
}
