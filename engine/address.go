package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// home is what the limits by address count: an IPv4 address, or of IPv6, where every household has 2^64 addresses, its
// /64. It is 8 bytes in each session; 0: not known yet.
//
//	IPv4   0x00000001_aabbccdd
//	IPv6   the upper half of the address: 0x00000001 and less lies in ::/31, which nobody has
type home uint64

const (
	homeIPv4     home = 1 << 32
	homeLoopback home = homeIPv4 | 127<<24 // 127.0.0.0/8, and ::1
	homeNone     home = 1 << 33            // the rest of ::/64
)

func homeOf(a netip.Addr) home {
	a = a.Unmap()
	switch {
	case a.Is4():
		b := a.As4()
		return homeIPv4 | home(binary.BigEndian.Uint32(b[:]))
	case a.IsLoopback():
		return homeLoopback | 1
	}
	b := a.As16()
	if h := home(binary.BigEndian.Uint64(b[:])); h != 0 {
		return h
	}
	return homeNone
}

// String is the address, or of IPv6 the network.
func (h home) String() string {
	if h == 0 {
		return "unknown"
	}
	if h < homeNone {
		return netip.AddrFrom4([4]byte{byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}).String()
	}
	if h == homeNone {
		return "::/64"
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(h))
	return netip.PrefixFrom(netip.AddrFrom16(b), 64).String()
}

func (h home) isLoopback() bool { return h&^(1<<24-1) == homeLoopback }

// Proxies are the networks whose word about where a client comes from is taken. Nobody else's is: a client may write what
// he likes. A proxy's own address is not limited.
type Proxies struct {
	// Header are those of proxies whose connections begin with a PROXY protocol header, version 2. Without one they are
	// refused: "the receiver MUST not try to guess" (section 2 of the specification), or a client behind a proxy that
	// adds none could write his own.
	Header []netip.Prefix
	// Forwarded are those of proxies that add to X-Forwarded-For. The client is the last address in it that is in none
	// of them. If a header has told an address before, that address must be in one.
	Forwarded []netip.Prefix
}

// owed is what a proxy has yet to say of a client.
type owed uint8

const (
	owesNothing owed = iota
	owesHeader
	owesForwarded
)

// introduces returns what a peer has to say, or that it is the client itself.
func (p *Proxies) introduces(peer netip.Addr) owed {
	switch {
	case within(p.Header, peer):
		return owesHeader
	case within(p.Forwarded, peer):
		return owesForwarded
	}
	return owesNothing
}

func within(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a.Unmap().WithZone("")) })
}

// signature begins every PROXY header of version 2; nothing else begins so.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

var errHeader = errors.New("no PROXY header")

// readProxy reads the PROXY header at the beginning of b, and returns its length; 0: it is not whole. The source is not
// valid where the proxy speaks for itself (LOCAL: its own look whether we live), or says nothing of it.
//
//	0          12           13         14      16
//	┌──────────┬────────────┬──────────┬───────┬────────┬─────────────┬───────┬──────┬──────┐
//	│signature │ 2, command │ protocol │ bytes │ source │ destination │ ports │ TLVs │ HTTP │
//	└──────────┴────────────┴──────────┴───────┴────────┴─────────────┴───────┴──────┴──────┘
//	           0 LOCAL        0x11 TCP over IPv4: 4 + 4 + 2 + 2 bytes
//	           1 PROXY        0x21 TCP over IPv6: 16 + 16 + 2 + 2
func readProxy(b []byte, most int) (n int, source netip.Addr, err error) {
	const fixed = len(signature) + 4
	if !bytes.HasPrefix(b, []byte(signature[:min(len(b), len(signature))])) {
		return 0, source, errHeader
	}
	if len(b) < fixed {
		return 0, source, nil
	}
	command, protocol, length := b[12], b[13], int(binary.BigEndian.Uint16(b[14:]))
	if command>>4 != 2 || command&0xf > 1 || fixed+length > most {
		return 0, source, errHeader
	}
	if len(b) < fixed+length {
		return 0, source, nil
	}
	addresses := b[fixed : fixed+length]
	switch {
	case command&0xf == 0: // "the receiver MUST accept this connection as valid and MUST use the real connection endpoints"
	case protocol == 0x11 && length >= 12:
		source = netip.AddrFrom4([4]byte(addresses))
	case protocol == 0x21 && length >= 36:
		source = netip.AddrFrom16([16]byte(addresses)).Unmap()
	case protocol == 0x11 || protocol == 0x21:
		return 0, source, errHeader
	}
	return fixed + length, source, nil
}

// readForwarded returns the client of a request that came through trusted proxies. It is not valid where they say nothing,
// as when a proxy looks whether we live; ok is false for what is no address.
func (p *Proxies) readForwarded(head string) (client netip.Addr, ok bool) {
	var said []string
	for line := range strings.SplitSeq(head, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "X-Forwarded-For") {
			said = append(said, strings.Split(value, ",")...)
		}
	}
	for _, hop := range slices.Backward(said) {
		if client, ok = readHop(strings.TrimSpace(hop)); !ok {
			return client, false
		}
		if !within(p.Forwarded, client) {
			break
		}
	}
	return client, true
}

// readHop reads an address, with a port or without.
func readHop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return a, true
	}
	a, err := netip.ParseAddrPort(s)
	return a.Addr(), err == nil
}
