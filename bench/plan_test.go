package bench

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestEnoughDescriptors(t *testing.T) {
	for _, row := range []struct {
		users, limit uint64
		want         string
	}{
		{10_000, 20_000, ""},
		{19_936, 20_000, ""},
		{19_937, 20_000, "19937 users need 20001 descriptors and this process may hold 20000: raise the limit (ulimit -n 20001, or LimitNOFILE= in a unit) or play with at most 19936 users"},
		{1, 10, "play with at most 0 users"},
	} {
		err := enoughDescriptors(row.users, row.limit)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%d of %d: %v, want %q", row.users, row.limit, err, row.want)
		}
	}
}

// Every player has an address of its own, inside the loopback's network and away from the server's.
func TestSources(t *testing.T) {
	for i, want := range map[int]string{0: "127.1.0.1", 1: "127.1.0.2", 254: "127.1.0.255", 255: "127.1.1.0", 65_535: "127.2.0.0", usersMax - 1: "127.245.36.0"} {
		if got := netip.AddrFrom4(source(i)); got.String() != want {
			t.Errorf("player %d: %s, want %s", i, got, want)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, row := range []struct {
		raw, host, path, address string
		loopback                 bool
	}{
		{"wss://127.0.0.1:8443/ws", "127.0.0.1:8443", "/ws", "127.0.0.1:8443", true},
		{"wss://127.9.9.9/ws", "127.9.9.9", "/ws", "127.9.9.9:443", true},
		{"ws://127.0.0.1:8080/ws", "127.0.0.1:8080", "/ws", "127.0.0.1:8080", true},
		{"ws://127.9.9.9/ws", "127.9.9.9", "/ws", "127.9.9.9:80", true},
		{"ws://localhost:8080/ws?a=b", "localhost:8080", "/ws?a=b", "127.0.0.1:8080", true},
		{"ws://[::1]:8080", "[::1]:8080", "/", "[::1]:8080", false},
		{"ws://192.0.2.1:8080/ws", "192.0.2.1:8080", "/ws", "192.0.2.1:8080", false},
	} {
		got, err := resolve(t.Context(), row.raw, nil, Trust{})
		if err != nil {
			t.Errorf("%s: %v", row.raw, err)
			continue
		}
		address := netip.AddrPortFrom(got.addresses[0], uint16(got.port)).String()
		if got.host != row.host || got.path != row.path || address != row.address || got.loopback != row.loopback ||
			(got.tls != nil) != strings.HasPrefix(row.raw, "wss") {
			t.Errorf("%s: %+v", row.raw, got)
		}
	}
}

// Addresses that are chosen for a target replace what its name stands for, and each source is used to each of them.
func TestThrough(t *testing.T) {
	ip := netip.MustParseAddr
	through, sources := []netip.Addr{ip("10.77.0.1"), ip("10.77.0.2")}, []netip.Addr{ip("10.77.0.7"), ip("10.77.0.8"), ip("10.77.0.9")}
	got, err := resolve(t.Context(), "ws://[::]:8080/ws", through, Trust{})
	if err != nil || got.loopback || !slices.Equal(got.urls(), []string{"ws://10.77.0.1:8080/ws", "ws://10.77.0.2:8080/ws"}) {
		t.Errorf("%+v, %v: %v", got, got.urls(), err)
	}
	w := &worker{plan: &Plan{Sources: sources}, target: got, doors: got.doors()}
	pairs := map[string]int{}
	for i := range 12 {
		from, _ := w.source(i)
		pairs[addressOf(from).String()+" "+addressOf(w.door(i)).String()]++
	}
	if len(pairs) != 6 {
		t.Errorf("6 pairs of addresses are possible, used are %v", pairs)
	}
	near, err := resolve(t.Context(), "ws://[::]:8080/ws", []netip.Addr{ip("127.0.0.2"), ip("127.0.0.3")}, Trust{})
	if err != nil || !near.loopback {
		t.Errorf("%+v: %v", near, err)
	}
	mixed := Plan{Users: 1, Through: through, Sources: []netip.Addr{ip("::1")}}.withDefaults()
	if err := mixed.check(); err == nil || !strings.Contains(err.Error(), "some addresses to connect from or to are IPv4, others IPv6") {
		t.Errorf("%v", err)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for i := range 3 * len(names) {
		if seen[nameOf(i)] {
			t.Fatalf("%s comes twice", nameOf(i))
		}
		seen[nameOf(i)] = true
	}
	if nameOf(0) != "Ada" || nameOf(len(names)) != "Ada 2" {
		t.Errorf("%s, %s", nameOf(0), nameOf(len(names)))
	}
}

// The heap wakes players in order, however they are set, set again and cancelled.
func TestTimers(t *testing.T) {
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 0))
	players := make([]player, 50)
	for i := range players {
		players[i].init(i, &Plan{Seed: seed})
	}
	var woken timers
	want := map[int]time.Duration{}
	for range 1000 {
		p := &players[dice.IntN(len(players))]
		if dice.IntN(3) == 0 {
			woken.cancel(p)
			delete(want, p.number)
			continue
		}
		p.due = time.Duration(dice.IntN(100))
		woken.set(p)
		want[p.number] = p.due
	}
	var order []time.Duration
	for len(woken) > 0 {
		p := heap.Pop(&woken).(*player)
		if want[p.number] != p.due {
			t.Fatalf("seed %d: player %d is woken at %d, want %d", seed, p.number, p.due, want[p.number])
		}
		delete(want, p.number)
		order = append(order, p.due)
	}
	if len(want) > 0 || !slices.IsSorted(order) {
		t.Fatalf("seed %d: left %v, order %v", seed, want, order)
	}
}

// The same seed plans the same amounts.
func TestDice(t *testing.T) {
	draw := func(seed uint64, number int) string {
		var p player
		p.init(number, &Plan{Seed: seed})
		text := ""
		for range 10 {
			n, d := p.below(10), p.between(3, 5)
			if n > 9 || d < 3 || d > 5 {
				t.Fatalf("drew %d and %d", n, d)
			}
			text += fmt.Sprint(n, d)
		}
		return text
	}
	first, again, otherSeed, otherNumber := draw(1, 2), draw(1, 2), draw(2, 2), draw(1, 3)
	if first != again || first == otherSeed || first == otherNumber {
		t.Error("draws do not follow seed and number")
	}
}
