package bench

import (
	"bufio"
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"tote/server/proto"
)

// sent is a tally as it arrives on the other side of a line.
func sent(t *testing.T, one *tally, tails []*tail, behind time.Duration) (*tally, []*tail) {
	t.Helper()
	text, err := json.Marshal(word{Tally: lineOf(one, tails, 0)})
	if err != nil {
		t.Fatal(err)
	}
	var w word
	if err := json.Unmarshal(text, &w); err != nil {
		t.Fatal(err)
	}
	got, gotTails, err := w.Tally.tally(one.worker, len(one.classes), behind)
	if err != nil {
		t.Fatal(err)
	}
	return got, gotTails
}

// fill sets every number and text to something of its own.
func fill(v reflect.Value, next *int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(reflect.NewAt(v.Field(i).Type(), v.Field(i).Addr().UnsafePointer()).Elem(), next)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), next)
		}
	case reflect.Int, reflect.Int64:
		*next++
		v.SetInt(int64(*next))
	case reflect.Uint64, reflect.Uint32:
		*next++
		v.SetUint(uint64(*next))
	case reflect.String:
		*next++
		v.SetString(grouped(*next))
	}
}

// Whatever a tally counts, also what is added to it one day, is on the line.
func TestTallyArrivesWhole(t *testing.T) {
	one, next := newTally(0, 2), 0
	fill(reflect.ValueOf(one).Elem(), &next)
	one.worker = 3
	one.fault("a kind", "an example")
	for m := range one.times {
		if one.times[m] != nil {
			one.record(meter(m), time.Duration(m+1)*time.Millisecond)
		}
	}
	one.measure(1, meterSeen, time.Second)
	one.deliver(distribution{course{6, 7}, 8}, time.Second, 9)
	held := standing{seq: 4, over: true, odds: []proto.Odd{{Staked: 5, Backers: 2, Multiplier: 1500}}}
	held.held[63] = proto.Odd{Staked: 6, Backers: 1}
	tails := []*tail{{seqs: map[course]map[uint64]int{{6, 7}: {8: 9}}, pools: map[proto.PoolID]standing{10: held}}}
	got, gotTails := sent(t, one, tails, 0)
	one.newest, one.delivery = distribution{}, nil // for quick finding only
	if !reflect.DeepEqual(got, one) {
		t.Errorf("sent %+v\ncame %+v", one, got)
	}
	if !reflect.DeepEqual(gotTails, tails) {
		t.Errorf("sent %+v\ncame %+v", tails[0], gotTails[0])
	}
}

func TestInstantsBecomeOurs(t *testing.T) {
	one := newTally(0, 0)
	one.gauge.at = time.Second
	one.deliver(distribution{course{6, 7}, 8}, time.Second, 9)
	got, _ := sent(t, one, nil, -time.Millisecond)
	d := got.deliveries[distribution{course{6, 7}, 8}]
	if want := 999 * time.Millisecond; got.gauge.at != want || d.first != want || d.last != want {
		t.Errorf("%s, %+v", got.gauge.at, d)
	}
}

// Histograms of several agents, in pieces of a second, make the one that a single generator would have had, and its standard deviation.
func TestHistogramsMergeAsCounts(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 2))
	whole, sum := newHistogram(), newResults(0)
	for agent := range 3 {
		for range 5 {
			piece := newTally(agent, 0)
			for range 1000 {
				d := time.Duration(dice.ExpFloat64() * float64(time.Duration(agent+1)*5*time.Millisecond))
				piece.record(meterReceipt, d)
				recordIn(whole, d)
			}
			came, _ := sent(t, piece, nil, 0)
			sum.add(came, 0)
		}
	}
	if got := sum.times[meterReceipt]; !got.Equals(whole) || timesOf(got) != timesOf(whole) {
		t.Errorf("merged %+v\nwhole %+v", timesOf(got), timesOf(whole))
	}
}

func TestCountsThatCannotBe(t *testing.T) {
	for _, row := range []counts{{1}, {-5, 1}, {5, -1}, {timeMax.Microseconds() * 1000, 1}} {
		if err := row.recordIn(newHistogram()); err == nil {
			t.Errorf("%v was taken", row)
		}
	}
	if (counts{1, 1}).recordIn(nil) == nil {
		t.Error("counts of no histogram were taken")
	}
}

// pair is both ends of a line.
func pair(t *testing.T) (ours, theirs *line) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return newLine(a), newLine(b)
}

func TestSecret(t *testing.T) {
	for _, row := range []struct {
		name           string
		coordinator    string
		agent          string
		refused, taken bool
	}{
		{"the same", "s3cret", "s3cret", false, true},
		{"none", "", "", false, true},
		{"another", "guess", "s3cret", true, false},
		{"none where one is wanted", "", "s3cret", true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			ours, theirs := pair(t)
			taken := make(chan error, 1)
			go func() { taken <- theirs.receive(row.agent, facts{Host: "h", Workers: 2}) }()
			f, err := ours.introduce(row.coordinator)
			if (err != nil) != row.refused || err != nil && err.Error() != errSecret.Error() || err == nil && f.Workers != 2 {
				t.Errorf("the coordinator got %+v, %v", f, err)
			}
			if err := <-taken; (err == nil) != row.taken {
				t.Errorf("the agent got %v", err)
			}
		})
	}
}

// An agent that does not know the secret is found out, and what one agent was shown opens no other.
func TestProofsAreOfOneConversation(t *testing.T) {
	ours, theirs := pair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		theirs.say(word{Greeting: &greeting{Protocol: lineProtocol, Version: lineVersion, Nonce: newNonce()}})
		w, err := theirs.hear()
		if err != nil || w.Proof == nil {
			t.Errorf("%+v, %v", w, err)
			return
		}
		// The coordinator's own proof, sent back, is none of the agent's.
		theirs.say(word{Proof: &proof{Sum: w.Proof.Sum, Facts: &facts{Workers: 1}}})
	}()
	if _, err := ours.introduce("s3cret"); err != errSecret {
		t.Errorf("an impostor was taken: %v", err)
	}
	<-done
	if a, b := prove("s", "coordinator", []byte("1"), []byte("2")), prove("s", "coordinator", []byte("3"), []byte("2")); string(a) == string(b) {
		t.Error("a proof serves for another nonce")
	}
}

func TestLineRefusesWhatIsTooLong(t *testing.T) {
	ours, theirs := pair(t)
	go theirs.conn.Write([]byte(strings.Repeat("x", 3*lineStranger)))
	if _, err := ours.hear(); err == nil || !strings.Contains(err.Error(), "more than 4096 bytes") {
		t.Error(err)
	}
	ours, theirs = pair(t)
	go theirs.conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n"))
	if _, err := ours.introduce(""); err == nil || !strings.Contains(err.Error(), "no word of ours") {
		t.Error(err)
	}
	ours, theirs = pair(t)
	ours.max, theirs.in = lineMax, bufio.NewReader(theirs.conn)
	long := strings.Repeat("long ", 50_000)
	go theirs.say(word{Refused: long})
	if w, err := ours.hear(); err != nil || w.Refused != long {
		t.Errorf("%d bytes, %v", len(w.Refused), err)
	}
}

// Whatever a scenario plans is on the line; what is each host's own is not.
func TestPlanArrivesWhole(t *testing.T) {
	for _, s := range Scenarios() {
		for _, variant := range append([]string{""}, s.Names...) {
			s, err := ReadScenario(s.Name, variant)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := s.plan([]Venue{{Game: 7, Weight: 0.5, Class: 1}, {Game: 8, Weight: 0.5}})
			if err != nil {
				t.Fatal(err)
			}
			plan.Target, plan.Through, plan.Game, plan.Alone, plan.Workers = "ws://10.0.0.1/ws", []netip.Addr{netip.MustParseAddr("10.0.0.1")}, 9, true, 3
			local := plan
			local.Secret, local.Agents, local.Sources, local.Server = "s3cret", []string{"a:1"}, plan.Through, []int{1}
			text, err := json.Marshal(word{Task: &task{Plan: local, Deal: deal{1, 2}}})
			if err != nil {
				t.Fatal(err)
			}
			var w word
			if err := json.Unmarshal(text, &w); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(w.Task.Plan, plan) || w.Task.Deal != (deal{1, 2}) || strings.Contains(string(text), "s3cret") {
				t.Errorf("%s %s: sent %+v\ncame %+v", s.Name, variant, plan, w.Task.Plan)
			}
		}
	}
}
