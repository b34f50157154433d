package bench

import (
	"math/rand/v2"
	"testing"
	"time"
)

// However unlike the ways there and back are, and however long they take, the offset is never wrong by more than what is said.
func FuzzClockErrorHolds(f *testing.F) {
	f.Add(int64(90*time.Second), uint64(1))
	f.Add(int64(-3*time.Hour), uint64(2))
	f.Add(int64(0), uint64(3))
	f.Fuzz(func(t *testing.T, ahead int64, seed uint64) {
		ahead %= int64(100 * 24 * time.Hour)
		dice := rand.New(rand.NewPCG(seed, 0))
		way := func() int64 { return int64(dice.ExpFloat64() * float64(2*time.Millisecond)) }
		drift := (dice.Float64()*2 - 1) * clockDrift
		theirs := func(at int64) int64 { return at + ahead + int64(drift*float64(at)) }
		var c clock
		for second := range int64(120) {
			sent := second * int64(time.Second)
			received := sent + way()
			answered := received + way()
			back := answered + way()
			c.hear(sent, theirs(received), theirs(answered), back, time.Duration(back))
			wrong := (time.Duration(theirs(back)-back) - c.ahead).Abs()
			if most := c.error(time.Duration(back)); wrong > most+time.Microsecond { // of rounding
				t.Fatalf("second %d: %s ahead where it is %s: ± %s was said", second, c.ahead, time.Duration(theirs(back)-back), most)
			}
		}
		if c.worst < c.half || c.worst > 100*time.Millisecond {
			t.Errorf("worst error %s, the last exchange's %s", c.worst, c.half)
		}
	})
}

// The offset of an even way is exact, the fastest exchange counts, and an old one loses to a slower one after a while.
func TestClockTakesTheBestExchange(t *testing.T) {
	var c clock
	hear := func(ahead, there, back, at time.Duration) {
		sent := int64(at - there - back)
		c.hear(sent, sent+int64(there+ahead), sent+int64(there+ahead), int64(at), at)
	}
	hear(time.Minute, 5*time.Millisecond, 5*time.Millisecond, time.Second)
	if c.ahead != time.Minute || c.half != 5*time.Millisecond {
		t.Errorf("%+v", c)
	}
	hear(time.Minute, time.Millisecond, 3*time.Millisecond, 2*time.Second)
	if c.ahead != time.Minute-time.Millisecond || c.half != 2*time.Millisecond {
		t.Errorf("of a faster one: %+v", c)
	}
	hear(time.Minute, 3*time.Millisecond, 3*time.Millisecond, 3*time.Second)
	if c.half != 2*time.Millisecond {
		t.Errorf("of a slower one, at once: %+v", c)
	}
	hear(time.Minute, 3*time.Millisecond, 3*time.Millisecond, 30*time.Second)
	if c.half != 3*time.Millisecond || c.worst != 5*time.Millisecond {
		t.Errorf("of a slower one, much later: %+v", c)
	}
	hear(2*time.Minute, 4*time.Millisecond, 4*time.Millisecond, 31*time.Second)
	if c.ahead != 2*time.Minute {
		t.Errorf("a clock that was set stays where it was: %+v", c)
	}
	before := c
	c.hear(0, 10, 5, 20, 32*time.Second)
	if c.ahead != before.ahead || c.at != before.at {
		t.Errorf("an answer before its question counts: %+v", c)
	}
}

func TestStopwatch(t *testing.T) {
	w := stopwatch{from: time.Now(), skew: -time.Hour}
	shown := w.now()
	if at := w.at(shown); at.Before(w.from) || time.Since(at) < 0 || time.Until(time.Unix(0, shown)) > -59*time.Minute {
		t.Errorf("shows %s, which was at %s", time.Unix(0, shown), at)
	}
	if w.since(shown+5) != w.since(shown)+5 {
		t.Error("two instants are as far apart as their readings")
	}
}
