package spill

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"

	"github.com/spillwaydb/spillway/block"
)

// A temporary file is an array of slots, each as large as a block (B bytes).
// Slot i is at offset i*B. The file has no header: no other process can open
// it, and it means nothing without the slots' numbers in this process's RAM.
//
// A plain slot is the block itself, sealed (block.Seal) with the slot's seed:
//
//	database's seed ^ low half of Slot ^ (high half of Slot * 0x9E3779B1)
//
// A CRC that starts from another seed always differs. So no two uses of one
// place (2^20 of them), and no two of 4096 neighbouring places, are ever taken
// for each other; places further apart share a seed once in 2^32.
//
// An encrypted slot:
//
//	offset  size  field
//	0       B-24  payload  encrypted
//	B-24    1     type     encrypted
//	B-23    16    tag      of AES-256-GCM
//	B-7     7     use      counter, little-endian, in clear
//
// The nonce is the use counter, 12 bytes little-endian; each slot ever written
// counts one up, so that no nonce is used twice with the key, which lives as
// long as the store. 2^56 uses last longer than the hardware. The additional
// data is ID, LSN and Slot, 8 bytes each, little-endian: number, version and
// place are proven without being stored.
//
// Why GCM and not a counter mode with the CRC: block number, LSN and CRC need
// no place of their own beside a tag, so a tag fits into the trailer, and then
// whoever can write to the temporary device cannot make us back up what he
// likes; it is as fast. XTS needs no place, but would show which 16 bytes of a
// place stayed the same from one use to the next.
//
// Torn writes: a torn slot fails its checksum or tag.

// typeOffset is where a block's trailer has its type, see block/format.go.
const typeOffset = 4

const (
	tagSize = 16
	useSize = 7 // bytes of the use counter in an encrypted slot
)

// The encrypted fields fill the trailer exactly.
var _ = [1]struct{}{}[block.TrailerSize-(1+tagSize+useSize)]

// codec turns blocks into slots and back, in place.
type codec struct {
	seed block.Seed
	aead cipher.AEAD // nil: plain
}

func newCodec(o Options) (codec, error) {
	c := codec{seed: o.Seed}
	if !o.Encrypt {
		return c, nil
	}
	var key [32]byte
	defer clear(key[:])
	rand.Read(key[:]) // never fails, see crypto/rand
	b, err := aes.NewCipher(key[:])
	if err != nil {
		return codec{}, err
	}
	c.aead, err = cipher.NewGCM(b)
	return c, err
}

// encode makes b, a whole block whose trailer holds at least the type, the
// content of slot.
func (c *codec) encode(b []byte, id block.ID, lsn block.LSN, slot Slot, use uint64) {
	at := len(b) - block.TrailerSize
	typ := b[at+typeOffset]
	if c.aead == nil {
		block.Seal(b, block.Trailer{Type: block.Type(typ), ID: id, LSN: lsn}, c.slotSeed(slot))
		return
	}
	b[at] = typ
	var counter [8]byte
	binary.LittleEndian.PutUint64(counter[:], use)
	nonce, data := gcmInput(counter[:useSize], id, lsn, slot)
	c.aead.Seal(b[:0], nonce, b[:at+1], data)
	copy(b[len(b)-useSize:], counter[:])
}

// decode turns the content of slot into block id as of lsn, sealed with the
// database's seed, or says why it is not that.
func (c *codec) decode(b []byte, id block.ID, lsn block.LSN, slot Slot) (reason string) {
	var t block.Trailer
	if c.aead == nil {
		t, reason = block.Verify(b, id, c.slotSeed(slot))
	} else {
		t, reason = c.decrypt(b, id, lsn, slot)
	}
	if reason != "" {
		return reason
	}
	if t.LSN != lsn {
		return "it is the version of LSN " + t.LSN.String() + ", not " + lsn.String()
	}
	block.Seal(b, t, c.seed)
	return ""
}

func (c *codec) decrypt(b []byte, id block.ID, lsn block.LSN, slot Slot) (t block.Trailer, reason string) {
	at := len(b) - block.TrailerSize
	nonce, data := gcmInput(b[len(b)-useSize:], id, lsn, slot)
	if _, err := c.aead.Open(b[:0], nonce, b[:len(b)-useSize], data); err != nil {
		return t, "authentication tag does not agree"
	}
	return block.Trailer{Type: block.Type(b[at]), ID: id, LSN: lsn}, ""
}

func (c *codec) slotSeed(slot Slot) block.Seed {
	return c.seed ^ block.Seed(slot) ^ block.Seed(slot>>32)*0x9E3779B1
}

const nonceSize = 12

// gcmInput is nonce and additional data, together because both are needed on
// the heap.
func gcmInput(use []byte, id block.ID, lsn block.LSN, slot Slot) (nonce, data []byte) {
	in := make([]byte, nonceSize+24)
	nonce, data = in[:nonceSize], in[nonceSize:]
	copy(nonce, use)
	binary.LittleEndian.PutUint64(data[0:], uint64(id))
	binary.LittleEndian.PutUint64(data[8:], uint64(lsn))
	binary.LittleEndian.PutUint64(data[16:], uint64(slot))
	return nonce, data
}
