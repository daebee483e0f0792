package livebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// LogLostError says that archived log cannot be had from a commit on: an object
// is damaged, or there is none. What came before it was handed out whole.
type LogLostError struct {
	Lost   LogRange // what is lost; To is 0 if the archive ends here
	Object string   // the damaged one; "" if it is missing
	Cause  error    // nil if it is missing
}

func (e *LogLostError) Error() string {
	s := fmt.Sprintf("archived log is lost from commit %v on", e.Lost.From+1)
	if e.Lost.To != 0 {
		s = fmt.Sprintf("archived log of commits %v to %v is lost", e.Lost.From+1, e.Lost.To)
	}
	if e.Cause != nil {
		return s + ": " + e.Cause.Error()
	}
	return s + ": there is none"
}

// Is matches ErrLogGap where log is missing.
func (e *LogLostError) Is(target error) bool { return target == ErrLogGap && e.Object == "" }

// Unwrap yields the damage.
func (e *LogLostError) Unwrap() error { return e.Cause }

// readLog calls fn for every record of the commits (r.From, r.To] of a history, in
// order, out of the log objects in logs. fromSum is the checksum that ends commit
// r.From, 0 if it is not known (R18). Bodies are valid during the call; an error of
// fn ends it and is returned as it is.
//
// An object's SHA-256 is proven before the first of its records is handed out;
// chunks, order and completeness of its records on the way, and the sums where two
// objects meet. What fails that, or is not there, is a [LogLostError]; of a damaged
// object the commits before the first chunk that is damaged are handed out. The list may
// be old: what was merged since is found where it is now.
func (r *Repository) readLog(ctx context.Context, logs []LogObject, history lineage, want LogRange, fromSum uint32, fn func(mvcc.LogRecord) error) error {
	d, err := newDecoder()
	if err != nil {
		return err
	}
	defer d.close()
	at, sum := want.From, fromSum
	for parts := history.parts(logs); at < want.To; {
		for len(parts) > 0 && parts[0].To <= at {
			parts = parts[1:]
		}
		switch {
		case len(parts) == 0:
			return &LogLostError{Lost: LogRange{From: at}}
		case parts[0].From > at:
			return &LogLostError{Lost: LogRange{at, min(parts[0].From, want.To)}}
		}
		p := parts[0]
		part := logPart{LogRange{at, min(p.To, want.To)}, p.object, p.timeline}
		next, err := r.readPart(ctx, d, part, sum, fn)
		switch {
		case err == nil:
			at, sum = part.To, next
		case isGone(err):
			if parts, err = r.partsAgain(ctx, history, p.object, err); err != nil {
				return err
			}
		default:
			return err
		}
	}
	return nil
}

// isGone reports whether an object was not there when it was to be opened.
func isGone(err error) bool {
	var lost *LogLostError
	return errors.As(err, &lost) && errors.Is(lost.Cause, fs.ErrNotExist)
}

// partsAgain lists the log anew when an object of the list is gone: it was merged into a
// bigger one, see merge.go. One that is listed and not there is lost.
func (r *Repository) partsAgain(ctx context.Context, history lineage, gone LogObject, lost error) ([]logPart, error) {
	logs, err := r.logs(ctx)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(logs, func(o LogObject) bool { return o.Name() == gone.Name() }) {
		return nil, lost
	}
	return history.parts(logs), nil
}

// readPart reads what part is of its object. It takes and returns the checksum
// of the record at the border, 0 where it is not known.
func (r *Repository) readPart(ctx context.Context, d *decoder, part logPart, sum uint32, fn func(mvcc.LogRecord) error) (uint32, error) {
	wanted := part.LogRange
	lost := func(err error) error {
		if !logDamage(err) {
			return err // of fn, of ctx or of the medium: it may be there yet
		}
		return &LogLostError{Lost: wanted, Object: part.object.Name(), Cause: err}
	}
	in, err := r.openPart(ctx, part)
	if err != nil {
		return 0, lost(err)
	}
	defer in.close()
	if f := in.footer.fromSum; in.id.from == part.From && sum != 0 && f != 0 && f != sum {
		return 0, lost(damaged(in.name, -1, fmt.Sprintf("it goes on behind another commit %v than the one before it ends with", part.From), nil))
	}
	damage := in.prove(ctx)
	if damage != nil {
		if damage = lost(damage); !errors.As(damage, new(*LogLostError)) {
			return 0, damage
		}
		if sound, at := in.soundUntil(ctx, d); at != nil && sound >= part.To {
			damage = nil // it lies behind what is wanted
		} else if part.To = part.From; at != nil && sound > part.From {
			part.To = sound
			damage = &LogLostError{Lost: LogRange{sound, wanted.To}, Object: in.name, Cause: at}
		}
	}
	var failed error
	err = in.records(ctx, d, func(rec mvcc.LogRecord) error {
		if rec.LSN <= part.From {
			return nil
		}
		if rec.LSN > part.To {
			return errEnough
		}
		if failed = fn(rec); failed == nil && rec.Last && rec.LSN == part.To && part.To < in.id.to {
			return errEnough
		}
		return failed
	})
	switch {
	case failed != nil:
		return 0, failed
	case damage != nil:
		return 0, damage
	case errors.Is(err, errEnough):
		return 0, nil // inside the object: no sum is known
	case err != nil:
		return 0, lost(err)
	}
	return in.footer.toSum, nil
}

// logDamage reports whether err says that an object is not what it should be, as
// against a medium that cannot be read now.
func logDamage(err error) bool {
	return errors.Is(err, block.ErrCorrupt) || errors.Is(err, ErrVersion) || errors.Is(err, ErrLogForeign)
}

// openPart opens the object of part and proves whose log it is.
func (r *Repository) openPart(ctx context.Context, part logPart) (*logReader, error) {
	return r.openOwn(ctx, part.object, &part.timeline)
}

// openOwn opens a log object and proves that it is the database's, and of timeline t if
// that is given.
func (r *Repository) openOwn(ctx context.Context, o LogObject, t *block.TimelineID) (*logReader, error) {
	in, err := openLog(ctx, r.objects, o)
	if err != nil {
		return nil, err
	}
	owner, bound, err := r.Database(ctx)
	if err == nil && bound && (owner != in.id.database || t != nil && in.id.timeline != *t) {
		err = fmt.Errorf("%s: %w: it is of database %v, timeline %v", in.name, ErrLogForeign, in.id.database, in.id.timeline)
	}
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}
