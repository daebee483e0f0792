package livebackup

import (
	"reflect"
	"testing"

	"github.com/spillwaydb/spillway/mvcc"
)

// TestCostGoesThroughTheSocket: all counts of it do, each in its own place.
func TestCostGoesThroughTheSocket(t *testing.T) {
	var c mvcc.Cost
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Uint64:
			f.SetUint(uint64(100 + i))
		case reflect.Int64:
			f.SetInt(int64(100 + i))
		}
	}
	b := appendCost(make([]byte, 8), c)
	if len(b) != dataHeaderSize-8 {
		t.Fatalf("%d bytes, want %d", len(b), dataHeaderSize-8)
	}
	if got := decodeCost(b[8:]); !reflect.DeepEqual(got, c) {
		t.Fatalf("%+v\nwant %+v", got, c)
	}
}
