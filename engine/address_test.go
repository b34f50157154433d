package engine

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// header is a PROXY header with addresses and, behind them, TLVs that nobody asked for.
func header(command, protocol byte, addresses ...byte) []byte {
	b := append([]byte(signature), command, protocol)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)))
	return append(b, addresses...)
}

// over4 is the header of a client at an IPv4 address.
func over4(client string) []byte {
	a := netip.MustParseAddr(client).As4()
	return header(0x21, 0x11, slices.Concat(a[:], []byte{192, 0, 2, 80, 0x30, 0x39, 0, 80, 0x04, 0, 1, 0})...)
}

func networks(s ...string) (all []netip.Prefix) {
	for _, n := range s {
		all = append(all, netip.MustParsePrefix(n))
	}
	return all
}

// Homes are told apart, and none is nobody.
func TestHomes(t *testing.T) {
	seen := map[home]string{}
	for _, row := range []struct {
		address  string
		loopback bool
	}{
		{"192.0.2.1", false}, {"192.0.2.2", false}, {"0.0.0.0", false}, {"126.255.255.255", false}, {"128.0.0.0", false},
		{"127.0.0.2", true}, {"127.255.255.255", true}, {"::1", true}, {"2001:db8::1", false}, {"2001:db8:0:1::1", false}, {"::5", false},
	} {
		h := homeOf(netip.MustParseAddr(row.address))
		if seen[h] != "" || h == 0 {
			t.Errorf("%s is home %x, as is %q", row.address, h, seen[h])
		}
		if seen[h] = row.address; h.isLoopback() != row.loopback {
			t.Errorf("%s: loopback is %v", row.address, h.isLoopback())
		}
	}
	for address, want := range map[string]string{"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "::1": "127.0.0.1", "::2": "::/64",
		"2001:db8:0:7::9": "2001:db8:0:7::/64"} {
		if got := homeOf(netip.MustParseAddr(address)).String(); got != want {
			t.Errorf("%s lives at %s, want %s", address, got, want)
		}
	}
	if homeOf(netip.MustParseAddr("fe80::1%eth0")) != homeOf(netip.MustParseAddr("fe80::2")) {
		t.Error("a zone makes another home")
	}
}

// What proxies say of a client, byte by byte.
func TestReadProxy(t *testing.T) {
	six := netip.MustParseAddr("2001:db8::7").As16()
	long := header(0x21, 0x21, append(six[:], make([]byte, 20)...)...)
	for _, row := range []struct {
		name   string
		bytes  []byte
		n      int
		source string
		wrong  bool
	}{
		{"IPv4 with TLVs", over4("198.51.100.9"), 32, "198.51.100.9", false},
		{"IPv6", long, 52, "2001:db8::7", false},
		{"HTTP behind it", append(slices.Clone(long), "GET"...), 52, "2001:db8::7", false},
		{"LOCAL", header(0x20, 0), 16, "", false},
		{"of a Unix socket", header(0x21, 0x31, make([]byte, 216)...), 232, "", false},
		{"unspecified", header(0x21, 0), 16, "", false},
		{"nothing yet", nil, 0, "", false},
		{"half a signature", []byte(signature[:7]), 0, "", false},
		{"half an address", over4("198.51.100.9")[:20], 0, "", false},
		{"no header", []byte("GET / HTTP/1.1\r\n"), 0, "", true},
		{"version 1", []byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), 0, "", true},
		{"version 3", header(0x31, 0x11, make([]byte, 12)...), 0, "", true},
		{"no command", header(0x22, 0x11, make([]byte, 12)...), 0, "", true},
		{"IPv4 cut", header(0x21, 0x11, make([]byte, 11)...), 0, "", true},
		{"IPv6 cut", header(0x21, 0x21, make([]byte, 35)...), 0, "", true},
		{"longer than a handshake", header(0x21, 0x11, make([]byte, 8<<10)...), 0, "", true},
	} {
		n, source, err := readProxy(row.bytes, 8<<10)
		var want netip.Addr // none
		if row.source != "" {
			want = netip.MustParseAddr(row.source)
		}
		if source != want {
			t.Errorf("%s: the source is %v", row.name, source)
		}
		if n != row.n || (err != nil) != row.wrong {
			t.Errorf("%s: %d bytes, %v", row.name, n, err)
		}
	}
}

// No bytes read as a header that is longer than they are.
func FuzzReadProxy(f *testing.F) {
	f.Add(over4("198.51.100.9"))
	f.Add(header(0x20, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, _, err := readProxy(b, 8<<10); n > len(b) || n > 8<<10 || err != nil && n != 0 {
			t.Fatalf("%d bytes of %d, %v", n, len(b), err)
		}
	})
}

// The client is the last address that no trusted proxy has.
func TestReadForwarded(t *testing.T) {
	p := Proxies{Forwarded: networks("10.0.0.0/8", "2001:db8:1::/48")}
	for _, row := range []struct {
		lines  []string
		client string // "": nobody is named
		ok     bool
	}{
		{nil, "", true},
		{[]string{"X-Forwarded-For: 198.51.100.9"}, "198.51.100.9", true},
		{[]string{"x-forwarded-for:198.51.100.9:4711"}, "198.51.100.9", true},
		{[]string{"X-Forwarded-For: [2001:db8::7]:4711"}, "2001:db8::7", true},
		{[]string{"X-Forwarded-For: 2001:db8::7, 10.1.2.3"}, "2001:db8::7", true},
		{[]string{"X-Forwarded-For: 203.0.113.1, 198.51.100.9, 10.1.2.3, 2001:db8:1::2"}, "198.51.100.9", true}, // the first one is the client's own word
		{[]string{"X-Forwarded-For: 203.0.113.1", "X-Forwarded-For: 198.51.100.9"}, "198.51.100.9", true},
		{[]string{"X-Forwarded-For: nonsense, 198.51.100.9"}, "198.51.100.9", true},
		{[]string{"X-Forwarded-For: 198.51.100.9, unknown"}, "", false},
		{[]string{"X-Forwarded-For:"}, "", false},
	} {
		head := "GET /ws HTTP/1.1\r\n" + strings.Join(append(row.lines, "Host: tote"), "\r\n") + "\r\n\r\n"
		client, ok := p.readForwarded(head)
		if ok != row.ok || ok && client.IsValid() != (row.client != "") || ok && client.IsValid() && client.String() != row.client {
			t.Errorf("%q: the client is %v, %v", row.lines, client, ok)
		}
	}
}

// through sends what a proxy would, and returns the status of the answer.
func through(t *testing.T, e *Engine, before []byte, line string) int {
	t.Helper()
	c := dial(t, e)
	c.write(append(slices.Clone(before), strings.Replace(upgradeRequest, "Host: tote\r\n", "Host: tote\r\n"+line, 1)...))
	response, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		c.sync()
	}
	return response.StatusCode
}

// Clients behind proxies are limited by their own address, which nobody but a trusted proxy can tell.
func TestProxies(t *testing.T) {
	type step struct {
		before []byte
		line   string
		status int
	}
	for _, row := range []struct {
		name    string
		proxies Proxies
		steps   []step
	}{
		{"nobody is trusted", Proxies{}, []step{
			{nil, "X-Forwarded-For: 198.51.100.9\r\n", 101},
			{nil, "X-Forwarded-For: 198.51.100.8\r\n", 429},
			{over4("198.51.100.7"), "", 429},
		}},
		{"a header", Proxies{Header: networks("127.0.0.0/8")}, []step{
			{over4("198.51.100.9"), "", 101},
			{over4("198.51.100.9"), "", 429},
			{over4("198.51.100.9"), "X-Forwarded-For: 198.51.100.8\r\n", 429}, // the client's own word
			{over4("198.51.100.8"), "", 101},
			{nil, "", 400},
			{header(0x20, 0), "", 101}, {header(0x20, 0), "", 101}, // the proxy itself
		}},
		{"X-Forwarded-For", Proxies{Forwarded: networks("127.0.0.0/8")}, []step{
			{nil, "X-Forwarded-For: 198.51.100.9\r\n", 101},
			{nil, "X-Forwarded-For: 198.51.100.8, 198.51.100.9\r\n", 429},
			{nil, "X-Forwarded-For: 198.51.100.8\r\n", 101},
			{nil, "X-Forwarded-For: somebody\r\n", 400},
			{over4("198.51.100.7"), "", 400},
			{nil, "", 101}, {nil, "", 101},
		}},
		{"a balancer before proxies", Proxies{Header: networks("127.0.0.0/8"), Forwarded: networks("10.0.0.0/8")}, []step{
			{over4("10.1.2.3"), "X-Forwarded-For: 198.51.100.9\r\n", 101},
			{over4("10.1.2.3"), "X-Forwarded-For: 198.51.100.9, 10.4.5.6\r\n", 429},
			{over4("198.51.100.9"), "", 429},
			{over4("198.51.100.8"), "X-Forwarded-For: 198.51.100.7\r\n", 101},
			{over4("198.51.100.7"), "", 101},
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			e, _ := serve(t, Config{Proxies: row.proxies, Limits: Limits{PerAddress: 1, ConnectRate: 1000}})
			for i, s := range row.steps {
				if got := through(t, e, s.before, s.line); got != s.status {
					t.Errorf("number %d is answered %d, want %d", i, got, s.status)
				}
			}
		})
	}
}

// A proxy's header may be cut anywhere, and frames follow in the same read.
func TestProxyCut(t *testing.T) {
	e, _ := serve(t, Config{Loops: 1, Proxies: Proxies{Header: networks("127.0.0.0/8")}})
	head := over4("198.51.100.9")
	all := slices.Concat(head, []byte(upgradeRequest), text(`{"type":"time","id":1}`))
	total := uint64(0)
	for cut := 1; cut < len(head)+3; cut++ {
		c := dial(t, e)
		c.write(all[:cut])
		settled(t, e, total+uint64(cut))
		c.write(all[cut:])
		c.readUpgrade()
		c.expect("time", 1)
		c.conn.Close()
		total += uint64(len(all))
	}
	eventually(t, "all have left their address", func() bool {
		e.door.mu.Lock()
		defer e.door.mu.Unlock()
		return len(e.door.addresses) == 0
	})
}

// Who comes behind the last of a second is told to come later, whoever he is.
func TestHandshakes(t *testing.T) {
	var d door
	d.open(Limits{Connections: 100, Handshakes: 3})
	let := func(second int64) (n int) {
		for i := range 5 {
			if d.enter(homeOf(netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i))), second) == "" {
				n++
			}
		}
		return n
	}
	if first, next := let(1), let(2); first != 3 || next != 3 || d.rushed.Load() != 4 {
		t.Errorf("%d and %d were let in, %d were counted", first, next, d.rushed.Load())
	}
}

// Pages from elsewhere may not connect; programs may, which name no origin.
func TestOrigins(t *testing.T) {
	e, _ := serve(t, Config{Origins: []string{"https://tote.example", "http://Localhost:8080"}})
	for _, row := range []struct {
		line   string
		status int
	}{
		{"", 101},
		{"Origin: https://tote.example\r\n", 101},
		{"origin: HTTPS://TOTE.example\r\n", 101},
		{"Origin: http://localhost:8080\r\n", 101},
		{"Origin: http://tote.example\r\n", 403},
		{"Origin: https://tote.example.evil.example\r\n", 403},
		{"Origin: https://tote.example:444\r\n", 403},
		{"Origin: null\r\n", 403},
		{"Origin: \r\n", 403},
		{"Origin: https://tote.example\r\nOrigin: https://evil.example\r\n", 403},
	} {
		if got := through(t, e, nil, row.line); got != row.status {
			t.Errorf("%q is answered %d, want %d", row.line, got, row.status)
		}
	}
	eventually(t, "they are counted", func() bool { s := e.Stats(); return s.HandshakesForeign == 6 && s.HandshakesFailed == 6 })
	for _, origin := range []string{"tote.example", "https://tote.example/", "https://", "*", "https://a b"} {
		if _, err := New(Config{Listen: "127.0.0.1:0", Secret: secret, Origins: []string{origin}}, newTestMarket()); err == nil {
			t.Errorf("%q is taken", origin)
		}
	}
}
