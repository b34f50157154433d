package store

import (
	"bytes"
	"fmt"
	"testing"
)

// pack makes the block of the records, which start at first.
func pack(first uint64, records ...string) []byte {
	var raw []byte
	for _, r := range records {
		raw = append(raw, byte(len(r)), byte(len(r)>>8), 0, 0)
		raw = append(raw, r...)
	}
	b, rest := appendBlock(nil, first, raw, len(records))
	assert(len(rest) == 0, "pack: records left")
	return b
}

// unpack reads one block wholly, the way every reader does.
func unpack(b []byte) (first uint64, records []string, rest []byte, err error) {
	blk, rest, err := readBlock(b)
	if err != nil {
		return 0, nil, nil, err
	}
	err = blk.each(func(seq uint64, record []byte) error {
		if seq != blk.first+uint64(len(records)) {
			return fmt.Errorf("record %d has number %d", len(records), seq)
		}
		records = append(records, string(record))
		return nil
	})
	return blk.first, records, rest, err
}

func TestBlockLayout(t *testing.T) {
	got := pack(0x0102030405060708, "ab", "", "c")
	want := []byte{
		8, 7, 6, 5, 4, 3, 2, 1, // first
		3, 0, 0, 0, // records
		0, 0, 0, 0, // crc
		2, 0, 0, 0, 0, 0, 0, 0, // length, crc
		0, 0, 0, 0, 0, 0, 0, 0,
		1, 0, 0, 0, 0, 0, 0, 0,
		'a', 'b', 'c',
	}
	for _, sum := range []int{12, 20, 28, 36} { // checksums are the fuzz test's
		copy(want[sum:sum+4], got[sum:sum+4])
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		name            string
		records, filler int
		want            int
	}{
		{"one record", 1, 80, 1},
		{"as many as a block takes", blockRecords, 80, blockRecords},
		{"one more than that", blockRecords + 1, 80, blockRecords},
		{"long ones, up to the bytes of a block", 64, 1000 - recordHead, blockBytes / 1000},
		{"one longer than a block", 3, blockBytes + 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := cut(appendCall(nil, 1, 1, c.records, c.filler)); got != c.want {
				t.Errorf("%d records in the block, want %d", got, c.want)
			}
		})
	}
}

// Whatever the bytes, reading does not panic, and what it accepts is exactly
// what packing the same records gives. No flipped bit and no lost end of a block
// is accepted, nor a block under another number.
func FuzzBlock(f *testing.F) {
	f.Add(pack(1, "a"), uint64(1), uint32(0))
	f.Add(pack(1<<40, "stake", "", "settle"), uint64(99), uint32(70))
	f.Add([]byte("no block at all, yet longer than its header"), uint64(7), uint32(1000))
	f.Add([]byte{}, uint64(1<<63), uint32(9))
	f.Fuzz(func(t *testing.T, b []byte, first uint64, flip uint32) {
		if first, records, rest, err := unpack(b); err == nil {
			if again := pack(first, records...); !bytes.Equal(again, b[:len(b)-len(rest)]) {
				t.Fatalf("accepted %x, which packs as %x", b, again)
			}
		}

		if len(b) > 1<<12 || first == 0 {
			return
		}
		half := len(b) / 2
		block := pack(first, string(b[:half]), string(b[half:]))
		gotFirst, got, rest, err := unpack(block)
		if err != nil || gotFirst != first || len(rest) != 0 || len(got) != 2 || got[0]+got[1] != string(b) {
			t.Fatalf("packed %q at %d, read %q at %d, %d left, %v", b, first, got, gotFirst, len(rest), err)
		}
		bit := int(flip) % (8 * len(block))
		block[bit/8] ^= 1 << (bit % 8)
		if _, _, _, err := unpack(block); err == nil {
			t.Fatalf("bit %d of block %x is flipped, and it was accepted", bit, block)
		}
		block[bit/8] ^= 1 << (bit % 8)
		if _, _, _, err := unpack(block[:bit/8]); err == nil {
			t.Fatalf("%d bytes of block %x were accepted", bit/8, block)
		}
		blk, _, _ := readBlock(block)
		blk.first ^= 1 << (flip % 32)
		if blk.whole() {
			t.Fatalf("records of block %d were accepted as those of %d", first, blk.first)
		}
	})
}
