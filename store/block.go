package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A block is a run of records as one value: bbolt's cost is per key, and one
// key per record is 2 to 4 times slower. Little-endian but for the key:
//
//	key    first: u64, big-endian so that bbolt's order is ours
//
//	       0             8         12         16
//	value  ┌─────────────┬──────────┬──────────┐
//	       │ first: u64  │ n: u32   │ crc: u32 │ crc of all from 0 to the payloads, without itself
//	       ├──────────┬──┴───────┬──┴──────────┘
//	       │ len: u32 │ crc: u32 │ … n times     crc of the payload, started from its number
//	       ├──────────┴─┬────────┴───┬───
//	       │ payload    │ payload    │ … n times, up to the end of the value
//	       └────────────┴────────────┴───
//
// Record i has sequence number first+i. It is not written again, but the
// record's checksum starts from it, so that a record under a wrong number is
// found. The overhead is 8 bytes a record and 16 a block. Sums are CRC-32C.
//
// A block is one unit in bbolt as in tail.log, where blocks follow each other
// with nothing between them.
type block struct {
	first    uint64
	index    []byte // n × [len][crc]
	payloads []byte
}

const (
	blockHeader = 16
	indexEntry  = 8

	// 64 records of 80 bytes, two blocks to a leaf of bbolt, fill three pages to
	// 92 %; measured best over batches of 64 to 4096. The byte bound keeps
	// long records from making leaves that the next small commit must rewrite.
	blockRecords = 64
	blockBytes   = 8 << 10

	// A record is one decision of the market, some hundred bytes. The bound
	// makes a caller's mistake visible before it is in the file for ever.
	recordMax = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// nextRecord splits the first record off n × [u32 LE length][payload].
func nextRecord(records []byte) (record, rest []byte) {
	n := binary.LittleEndian.Uint32(records)
	return records[4 : 4+n], records[4+n:]
}

// wellFormed says whether records is exactly n × [u32 LE length][payload].
func wellFormed(records []byte, n int) bool {
	for ; n > 0; n-- {
		if len(records) < 4 {
			return false
		}
		size := binary.LittleEndian.Uint32(records)
		if size > recordMax || int(size) > len(records)-4 {
			return false
		}
		records = records[4+size:]
	}
	return len(records) == 0
}

// cut says how many of the records go into the next block of the journal: at
// least one, and only whole ones.
func cut(records []byte) (n int) {
	for size := 0; n < blockRecords && len(records) > 0; n++ {
		var record []byte
		record, records = nextRecord(records)
		size += len(record)
		if n > 0 && size > blockBytes {
			break
		}
	}
	return n
}

// appendBlock appends the block of the first n records to dst, and returns the
// records after them.
func appendBlock(dst []byte, first uint64, records []byte, n int) (out, rest []byte) {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint64(dst, first)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	dst = binary.LittleEndian.AppendUint32(dst, 0) // the header's crc, when the index is known
	rest = records
	for i := range uint64(n) {
		var record []byte
		record, rest = nextRecord(rest)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(record)))
		dst = binary.LittleEndian.AppendUint32(dst, recordSum(first+i, record))
	}
	head := dst[start:]
	binary.LittleEndian.PutUint32(head[12:], headSum(head))
	for from := records; len(from) > len(rest); {
		var record []byte
		record, from = nextRecord(from)
		dst = append(dst, record...)
	}
	return dst, rest
}

// readBlock reads the block at the front of b and returns what follows it.
// It checks the header and the index; each checks the records.
func readBlock(b []byte) (blk block, rest []byte, err error) {
	if len(b) < blockHeader {
		return block{}, nil, fmt.Errorf("block header is cut off after %d bytes", len(b))
	}
	first := binary.LittleEndian.Uint64(b)
	n := uint64(binary.LittleEndian.Uint32(b[8:]))
	if n > uint64(len(b)-blockHeader)/indexEntry {
		return block{}, nil, fmt.Errorf("index of block %d is cut off", first)
	}
	body := blockHeader + int(n)*indexEntry
	if binary.LittleEndian.Uint32(b[12:]) != headSum(b[:body]) {
		return block{}, nil, fmt.Errorf("checksum of block %d does not match", first)
	}
	if first == 0 || n == 0 {
		return block{}, nil, fmt.Errorf("block %d has %d records", first, n)
	}
	blk = block{first: first, index: b[blockHeader:body]}
	size := uint64(0)
	for i := range int(n) {
		size += uint64(blk.size(i))
	}
	if size > uint64(len(b)-body) {
		return block{}, nil, fmt.Errorf("payload of block %d is cut off", first)
	}
	end := body + int(size)
	blk.payloads = b[body:end]
	return blk, b[end:], nil
}

// last returns the sequence number of the block's last record.
func (b block) last() uint64 { return b.first + uint64(len(b.index)/indexEntry) - 1 }

func (b block) size(i int) uint32 { return binary.LittleEndian.Uint32(b.index[i*indexEntry:]) }
func (b block) sum(i int) uint32  { return binary.LittleEndian.Uint32(b.index[i*indexEntry+4:]) }

// each calls f with each record, in order, after its checksum was found right.
func (b block) each(f func(seq uint64, record []byte) error) error {
	payloads := b.payloads
	for i := range len(b.index) / indexEntry {
		seq := b.first + uint64(i)
		record := payloads[:b.size(i):b.size(i)]
		payloads = payloads[b.size(i):]
		if recordSum(seq, record) != b.sum(i) {
			return damaged("checksum of record %d in block %d does not match", seq, b.first)
		}
		if err := f(seq, record); err != nil {
			return err
		}
	}
	return nil
}

func headSum(head []byte) uint32 {
	return crc32.Update(crc32.Checksum(head[:12], castagnoli), castagnoli, head[blockHeader:])
}

func recordSum(seq uint64, record []byte) uint32 {
	return crc32.Update(seqSum(seq), castagnoli, record)
}

// seqSum is where a checksum starts. For the same bytes, different starts give
// different sums, so two numbers are confused only if they are 2^32 apart.
func seqSum(seq uint64) uint32 { return uint32(seq) ^ uint32(seq>>32) }

func journalKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }
func keySeq(key []byte) uint64     { return binary.BigEndian.Uint64(key) }
