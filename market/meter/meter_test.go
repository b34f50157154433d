package meter

import (
	"math"
	"math/rand/v2"
	"testing"
)

// twin finds the bucket by the definition.
func twin(n uint64) int {
	if n == 0 {
		return 0
	}
	for i := 0; ; i++ {
		if float64(n) <= math.Exp2(float64(i)/4) {
			return 1 + i
		}
	}
}

func TestPlaces(t *testing.T) {
	for n := range uint64(1 << 16) {
		if got, want := place(n), twin(n); got != want {
			t.Fatalf("%d is in bucket %d, want %d", n, got, want)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		n := random.Uint64N(numberMax) + 1
		if got, want := place(n), twin(n); got != want {
			t.Fatalf("%d is in bucket %d, want %d", n, got, want)
		}
	}
	if place(numberMax) != buckets-1 {
		t.Errorf("the greatest number is in bucket %d of %d", place(numberMax), buckets)
	}
}

func TestSums(t *testing.T) {
	var h, other Histogram
	h.AddTime(-5)
	h.AddTime(1_000_000)
	other.Add(7)
	other.Add(math.MaxUint64)
	h.Merge(&other)
	if h.Count() != 4 || h.Sum != 1<<TimeShift+7+numberMax || h.Buckets[place(1<<TimeShift)] != 1 {
		t.Errorf("%d numbers, sum %d", h.Count(), h.Sum)
	}
	h.AddTime(math.MaxInt64)
	if h.Buckets[buckets-1] != 2 {
		t.Error("the longest time is not in the last bucket")
	}
}

func BenchmarkAddTime(b *testing.B) {
	var times [1 << 10]int64 // as they come: no branch is foreseen
	random := rand.New(rand.NewPCG(1, 2))
	for i := range times {
		times[i] = int64(1) << random.IntN(20)
		times[i] += random.Int64N(times[i])
	}
	var h Histogram
	for i := 0; b.Loop(); i++ {
		h.AddTime(times[i%len(times)])
	}
}
