package spill

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkWrite stores and frees batches on the disk of TMPDIR.
func BenchmarkWrite(b *testing.B) {
	for _, batch := range []int{8, 64, 512} {
		for _, encrypt := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch=%d/encrypt=%v", batch, encrypt), func(b *testing.B) {
				s := mustOpen(b, Options{Dirs: []Dir{{Path: b.TempDir(), BytesMax: 512 << 20}}, Encrypt: encrypt, AllowMemoryFS: true})
				in, slots := items(versions(batch), 4096), make([]Slot, batch)
				b.SetBytes(int64(batch) * 4096)
				b.ReportAllocs()
				held := []Slot{}
				for b.Loop() {
					if _, err := s.Write(in, slots); err != nil {
						b.Fatal(err)
					}
					if held = append(held, slots...); len(held) > 64<<10 {
						s.Free(held...)
						held = held[:0]
					}
				}
			})
		}
	}
}

// BenchmarkWriteFragmented frees every second slot of a full directory first:
// what the limit costs when there is nothing but short runs.
func BenchmarkWriteFragmented(b *testing.B) {
	s := mustOpen(b, Options{Dirs: []Dir{{Path: b.TempDir(), BytesMax: 64 << 20}}, AllowMemoryFS: true})
	slots := mustWrite(b, s, versions(64<<20/4096))
	var odd []Slot
	for i := 1; i < len(slots); i += 2 {
		odd = append(odd, slots[i])
	}
	s.Free(odd...)
	in, out := items(versions(512), 4096), make([]Slot, 512)
	b.SetBytes(512 * 4096)
	for b.Loop() {
		if _, err := s.Write(in, out); err != nil {
			b.Fatal(err)
		}
		s.Free(out...)
	}
}

func BenchmarkRead(b *testing.B) {
	for _, encrypt := range []bool{false, true} {
		b.Run(fmt.Sprintf("encrypt=%v", encrypt), func(b *testing.B) {
			s := mustOpen(b, Options{Dirs: []Dir{{Path: b.TempDir(), BytesMax: 64 << 20}}, Encrypt: encrypt, AllowMemoryFS: true})
			vs := versions(1024)
			slots := mustWrite(b, s, vs)
			dst := make([]byte, 4096)
			b.SetBytes(4096)
			b.ReportAllocs()
			for b.Loop() {
				i := rand.IntN(len(vs))
				if err := s.Read(slots[i], vs[i].id, vs[i].lsn, dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSpace is the map alone, with 1 TiB of slots, nearly full: what a
// search costs must not depend on that size.
func BenchmarkSpace(b *testing.B) {
	for _, gib := range []int64{1, 1024} {
		b.Run(fmt.Sprintf("%dGiB", gib), func(b *testing.B) {
			s := space{slots: gib << 30 / 4096}
			s.reservedNow(s.growth(s.extentsMax()))
			for _, ok := s.take(extentSlots); ok; _, ok = s.take(extentSlots) {
			}
			for b.Loop() {
				s.free(rand.Int64N(s.slots))
				if _, ok := s.takeShort(1); !ok {
					b.Fatal("full")
				}
			}
		})
	}
}
