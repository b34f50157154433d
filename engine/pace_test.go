package engine

import (
	"maps"
	"math/rand/v2"
	"testing"

	"tote/server/proto"
)

// The small ones get what they ask for, the great ones share what is left, and no more than there is.
func TestFit(t *testing.T) {
	for _, row := range []struct {
		name    string
		demands []float64
		want    float64 // what the demands are cut to
	}{
		{"all fit", []float64{0.1, 0.2, 0.25}, 0.6},
		{"one is too great", []float64{0.9}, 0.6},
		{"the greatest is cut", []float64{0.1, 0.2, 0.7}, 0.3},
		{"two are cut alike", []float64{0.1, 0.5, 0.9}, 0.25},
		{"many small ones and a hot one", append(make([]float64, 50), 3), 0.6},
	} {
		if got := fit(row.demands, 0.6); got < row.want-1e-9 || got > row.want+1e-9 {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		demands := make([]float64, 1+random.IntN(30))
		var all, cut float64
		for i := range demands {
			demands[i] = random.ExpFloat64() / 10
			all += demands[i]
		}
		level := fit(demands, 0.6)
		for _, d := range demands {
			cut += min(d, level)
		}
		if all <= 0.6 && cut < all-1e-9 || all > 0.6 && (cut > 0.6+1e-9 || cut < 0.6-1e-9) {
			t.Fatalf("%v of %v is used at level %v", cut, all, level)
		}
	}
}

// What a room costs includes what came between its slices.
func TestWeighCountsBetween(t *testing.T) {
	for _, row := range []struct {
		name                string
		hot, small, between proto.Time
		wantHot, wantSmall  float64 // µs in an interval, of which a tenth is believed at the first look
	}{
		{"nothing came between", 900_000, 100_000, 0, 90_000, 10_000},
		{"as much came between", 900_000, 100_000, 1_000_000, 180_000, 20_000},
		{"nothing was distributed", 0, 0, 0, 0, 0},
	} {
		hot, small := &room{game: proto.Game{Interval: paceEvery}, spent: row.hot}, &room{game: proto.Game{Interval: paceEvery}, spent: row.small}
		l := &loop{now: paceEvery, catalogue: []*room{hot, small}, between: row.between}
		l.weigh()
		if hot.cost < row.wantHot-1 || hot.cost > row.wantHot+1 || small.cost < row.wantSmall-1 || small.cost > row.wantSmall+1 {
			t.Errorf("%s: %.0f and %.0f, want %.0f and %.0f", row.name, hot.cost, small.cost, row.wantHot, row.wantSmall)
		}
		if hot.spent != 0 || l.between != 0 {
			t.Errorf("%s: %d and %d are counted again", row.name, hot.spent, l.between)
		}
	}
}

// A hot game is stretched, once; small ones are left alone; and when it cools down, it gets its interval back.
func TestPacer(t *testing.T) {
	var p pacer
	hot := func(cost float64, interval proto.Time) []load {
		return []load{{game: 1, interval: interval, cost: cost}, {game: 2, interval: 3 * proto.Second, cost: 150_000}}
	}
	for _, row := range []struct {
		name  string
		loops [][]load
		want  map[proto.GameID]proto.Time
	}{
		{"all fit", [][]load{hot(1_000_000, 3*proto.Second)}, nil},
		{"five seconds of writing in three", [][]load{hot(5_000_000, 3*proto.Second)}, map[proto.GameID]proto.Time{1: 9_090_909}},
		{"stretched, it costs the same", [][]load{hot(5_000_000, 9_090_909)}, nil},
		{"a little more is not worth a word", [][]load{hot(5_200_000, 9_090_909)}, nil},
		{"the busiest loop decides", [][]load{hot(5_000_000, 9_090_909), hot(10_000_000, 9_090_909)}, map[proto.GameID]proto.Time{1: 18_181_818}},
		{"it has cooled down", [][]load{hot(100_000, 18_181_818)}, map[proto.GameID]proto.Time{1: 0}},
		{"and stays so", [][]load{hot(100_000, 3*proto.Second)}, nil},
	} {
		if got := p.decide(row.loops); !maps.Equal(got, row.want) {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
	if p.decide(nil); len(p.games) != 0 {
		t.Errorf("games that are over are remembered: %v", p.games)
	}
}
