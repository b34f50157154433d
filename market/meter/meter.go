// Package meter counts how long things take and how many come at once, at the price of an increment.
//
// Loops and shards each have histograms of their own and show copies of them, as they do with their other counts; who is asked
// adds the copies up. It reads no clock: it is told times that its callers have anyway.
package meter

import "math/bits"

// Histogram counts numbers in buckets, four to an octave: bucket 0 is for 0, bucket 1+i for numbers above 2^((i-1)/4) up to 2^(i/4).
// Those are the buckets of Prometheus' native histograms of schema 2. Owner: one goroutine; a copy is a value.
type Histogram struct {
	Buckets [buckets]uint64
	Sum     uint64 // of the numbers
}

// Schema of native histograms: 2^Schema buckets to an octave.
const Schema = 2

// Times are counted in units of 2^-20 s, a bit less than a microsecond, so that bounds of seconds are bounds of native histograms.
const TimeShift = 20

const (
	numberMax = 1 << 32                // greater ones count as this; of times it is more than an hour
	buckets   = 1 + 32*(1<<Schema) + 1 // 0; 1; and those of 32 octaves
)

// quarters are 2^(1/4), 2^(2/4) and 2^(3/4), of 2^63.
var quarters = [...]uint64{0x9837f0518db8a96f, 0xb504f333f9de6484, 0xd744fccad69d6af4}

// Add counts a number.
func (h *Histogram) Add(n uint64) {
	if !counting {
		return
	}
	n = min(n, numberMax)
	h.Buckets[place(n)]++
	h.Sum += n
}

// AddTime counts a time in µs. A clock that went back is counted as 0.
func (h *Histogram) AddTime(micros int64) {
	if !counting {
		return
	}
	h.Add(uint64(max(0, min(micros, numberMax))) << TimeShift / 1e6)
}

// Merge adds what another histogram has counted.
func (h *Histogram) Merge(o *Histogram) {
	if !counting {
		return
	}
	for i, n := range &o.Buckets {
		h.Buckets[i] += n
	}
	h.Sum += o.Sum
}

// Count is how many numbers were counted.
func (h *Histogram) Count() (n uint64) {
	for _, in := range &h.Buckets {
		n += in
	}
	return n
}

// place is the bucket of n: 4 for each whole octave below it, and as many as quarters of its own lie below.
func place(n uint64) int {
	if n < 2 {
		return int(n)
	}
	octave := bits.Len64(n) - 1
	mantissa := n << (63 - octave)
	at := 1 + octave<<Schema
	if mantissa == 1<<63 {
		return at // a power of two is the upper bound of its bucket
	}
	// Which quarter it is in, no processor foresees: borrows instead of branches.
	_, first := bits.Sub64(quarters[0], mantissa, 0)
	_, second := bits.Sub64(quarters[1], mantissa, 0)
	_, third := bits.Sub64(quarters[2], mantissa, 0)
	return at + 1 + int(first+second+third)
}
