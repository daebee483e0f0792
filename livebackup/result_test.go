package livebackup

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillwaydb/spillway/block"
	"github.com/spillwaydb/spillway/mvcc"
)

// metSource is a fake whose sessions have met something, and whose rate can be set.
type metSource struct {
	*fakeSource
	pace func() int64
}

func (s metSource) Open(ctx context.Context, o SessionOptions) (Session, error) {
	inner, err := s.fakeSource.Open(ctx, o)
	return metSession{inner, s.pace}, err
}

type metSession struct {
	Session
	pace func() int64
}

func (s metSession) Pace() int64 {
	if s.pace == nil {
		return 0
	}
	return s.pace()
}

func (s metSession) Cost() mvcc.Cost {
	return mvcc.Cost{
		OriginalsMade: 9, OriginalsSpilled: 5, RAMPeakBytes: 42, SpillPeakBytes: 43,
		Levels:           []mvcc.LevelPeak{{Name: "ram", Used: 42, Limit: 100}},
		Crossings:        []mvcc.Crossing{{Time: time.Unix(1_700_000_000, 0), Level: "ram", Was: "normal", State: "low", Used: 50, Limit: 100}},
		CrossingsLeftOut: 3,
	}
}

// The record that a backup returns is the one that is in the repository with it.
func TestRecord_IsStoredWithTheBackup(t *testing.T) {
	src, repo := metSource{newFake(1, 64, 4<<10), nil}, newRepo(t)
	res, err := Backup(t.Context(), src, repo, BackupOptions{Label: "nightly", BytesPerSecond: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	r := res.Record
	if r.Outcome != OutcomeDone || r.Error != nil || r.Label != "nightly" || r.LSN != 100 || r.EndLSN != 100 || r.ID != res.Manifest.ID {
		t.Fatalf("%+v", r)
	}
	if r.Rung != mvcc.RungSpill || r.Cost.OriginalsMade != 9 || r.Run.CrossingsLeftOut != 3 || len(r.Run.Crossings) != 1 ||
		!reflect.DeepEqual(r.Run.Levels, []LevelPeak{{"ram", 42, 100}}) {
		t.Fatalf("%+v", r)
	}
	if r.WhyFull == "" || r.Run.BytesPerSecond != 1<<40 || r.Run.BufferBytes != res.BufferBytes || r.Run.Sink <= 0 || r.RawBytesPerSecond <= 0 {
		t.Fatalf("%+v", r)
	}
	list, err := List(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	if back := list[0].Manifest.Record(); !reflect.DeepEqual(back, r) {
		t.Fatalf("stored %+v\nreturned %+v", back, r)
	}
}

// A backup that failed has a record, too: how far it came, what it had met, and why.
func TestRecord_OfAFailure(t *testing.T) {
	fake, repo := newFake(1, 64, 4<<10), newRepo(t)
	fake.batch = 16
	fake.onNext = func(n int) error {
		if n == 3 {
			return &mvcc.BrokenError{LSN: 100, Reason: "temporary storage and overflow are used up"}
		}
		return nil
	}
	res, err := Backup(t.Context(), metSource{fake, nil}, repo, BackupOptions{GroupBytes: 16 << 12})
	if !errors.Is(err, mvcc.ErrBroken) {
		t.Fatal(err)
	}
	r := res.Record
	if r.Outcome != OutcomeFailed || r.Error == nil || r.Error.Message != err.Error() || r.Rung != mvcc.RungBreak {
		t.Fatalf("%+v", r)
	}
	if r.Blocks != 32 || r.RawBytes != 32*4096 || r.Cost.OriginalsMade != 9 || len(r.Run.Crossings) != 1 || r.LSN != 100 {
		t.Fatalf("%+v", r)
	}
	if res, err = Backup(t.Context(), fake, repo, BackupOptions{Type: "nonsense"}); err == nil || res.Record.Outcome != OutcomeFailed || res.Record.Started.IsZero() {
		t.Fatalf("%v: %+v", err, res.Record)
	}
}

// Every field of the record is in docs/result.md, and no other.
func TestRecord_EveryFieldIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/result.md")
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 && strings.HasPrefix(line, "| `") {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				said = append(said, m[1])
			}
		}
	}
	is := jsonFields(reflect.TypeFor[Record](), "")
	slices.Sort(said)
	slices.Sort(is)
	for _, f := range is {
		if !slices.Contains(said, f) {
			t.Errorf("%s is not documented", f)
		}
	}
	for _, f := range said {
		if !slices.Contains(is, f) {
			t.Errorf("%s is documented and not there", f)
		}
	}
}

// jsonFields are the paths of what a type has in JSON.
func jsonFields(typ reflect.Type, path string) (list []string) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if typ.Kind() == reflect.Slice {
		return jsonFields(typ.Elem(), path+"[]")
	}
	text := reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()
	if typ.Kind() != reflect.Struct || typ.Implements(text) {
		return []string{path}
	}
	for f := range fieldsOf(typ) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || name == "why_full" && path == "run" { // of the manifest: the record has it above
			continue
		}
		if path != "" {
			name = path + "." + name
		}
		list = append(list, jsonFields(f.Type, name)...)
	}
	return list
}

func fieldsOf(typ reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range typ.NumField() {
			if !yield(typ.Field(i)) {
				return
			}
		}
	}
}

// A limit that is asked for while a backup runs holds from the next few bytes on,
// upwards and downwards, and the record tells of it.
func TestPace_ChangesWhileItRuns(t *testing.T) {
	fake, repo := newFake(1, 64, 4<<10), newRepo(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		src := metSource{fake, func() int64 {
			if time.Since(began) < 10*time.Second {
				return 0 // nobody asked
			}
			return 1 << 30
		}}
		res, err := Backup(t.Context(), src, repo, BackupOptions{BytesPerSecond: 1 << 10, GroupBytes: 16 << 10, Compression: CompressionNone})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 10*time.Second || took > 11*time.Second {
			t.Fatalf("256 KiB took %v, of which the first 10 s at 1 KiB/s", took)
		}
		if r := res.Record.Run; r.LimitChanges != 1 || r.BytesPerSecond != 1<<30 {
			t.Fatalf("%+v", r)
		}
	})
}

// A taker at the other end of the socket hears of a rate that another client asked
// for; and of what it met, also when the snapshot breaks.
func TestPace_ThroughTheSocket(t *testing.T) {
	asked := make(chan int64, 1)
	fake := newFake(1, 64, 4<<10)
	src := metSource{fake, func() int64 {
		select {
		case n := <-asked:
			asked <- n
			return n
		default:
			return 0
		}
	}}
	client := served(t, src, ServeOptions{BatchBytes: 8 * 4096})
	s, err := client.Open(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	asked <- 12345
	buf, ids := make([]byte, 8*4096), make([]block.ID, 8)
	for err == nil {
		_, err = s.Next(t.Context(), buf, ids)
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	if got := s.(pacedSession).Pace(); got != 12345 {
		t.Fatalf("the taker heard of %d", got)
	}
	if err := client.Pace(t.Context(), 7, 99); !errors.Is(err, mvcc.ErrNoBackup) {
		t.Fatalf("of no backup: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if c := s.Cost(); len(c.Crossings) != 1 || len(c.Levels) != 1 {
		t.Fatalf("%+v", c)
	}

	fake.onNext = func(int) error { return &mvcc.BrokenError{} }
	if s, err = client.Open(t.Context(), SessionOptions{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err = s.Next(t.Context(), buf, ids); !errors.Is(err, mvcc.ErrBroken) {
		t.Fatal(err)
	}
	if c := s.Cost(); len(c.Crossings) != 1 || c.OriginalsMade != 9 {
		t.Fatalf("of a broken one: %+v", c)
	}
}

// A manifest with a record reads back as it was written.
func TestRecord_IsCanonical(t *testing.T) {
	m := Manifest{ID: goldenID, Run: Run{WhyFull: "a\ufffdb", Sink: 3, Crossings: []Crossing{{Time: time.Unix(1, 5).UTC(), Level: "ram"}}}}
	first, err := json.Marshal(&m)
	if err != nil {
		t.Fatal(err)
	}
	var back Manifest
	if err := json.Unmarshal(first, &back); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(&back); err != nil || string(again) != string(first) {
		t.Fatalf("%v\n%s\n%s", err, first, again)
	}
}
