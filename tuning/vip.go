package tuning

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Range is a run of addresses, both ends included.
type Range struct {
	From netip.Addr `json:"from"`
	To   netip.Addr `json:"to"`
}

// addressesMax is the most addresses of one range: the kernel walks an interface's list for each that is added (254 take 7 ms, 65,534
// took 400 s), and 264 million connections are enough.
const addressesMax = 1 << 12

// ParseRange reads 10.77.0.1, 10.77.0.1-10.77.0.254 or 10.77.0.0/24, which means its hosts: without the network's own address and the
// broadcast.
func ParseRange(text string) (Range, error) {
	r, err := parseRange(text)
	if err != nil {
		return Range{}, fmt.Errorf("addresses %q: %w; give 10.77.0.1-10.77.0.254 or 10.77.0.0/24", text, err)
	}
	switch {
	case r.From.Is4() != r.To.Is4():
		err = errors.New("one end is IPv4, the other IPv6")
	case r.To.Less(r.From):
		err = fmt.Errorf("%s comes after %s", r.From, r.To)
	case r.Count() > addressesMax:
		err = fmt.Errorf("%s addresses; %s at most, which is room for %s connections to one server address and port",
			count(r.Count()), count(addressesMax), count(addressesMax*portsPerAddress))
	default:
		for _, a := range []netip.Addr{r.From, r.To} {
			if a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.Zone() != "" || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
				err = fmt.Errorf("%s is no address to give to an interface; all of 127.0.0.0/8 is there without asking", a)
			}
		}
	}
	if err != nil {
		return Range{}, fmt.Errorf("addresses %q: %w", text, err)
	}
	return r, nil
}

func parseRange(text string) (r Range, err error) {
	if first, last, ok := strings.Cut(text, "-"); ok {
		if r.From, err = netip.ParseAddr(first); err == nil {
			r.To, err = netip.ParseAddr(last)
		}
		return r, err
	}
	if !strings.Contains(text, "/") {
		r.From, err = netip.ParseAddr(text)
		r.To = r.From
		return r, err
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return r, err
	}
	prefix = prefix.Masked()
	r.From = prefix.Addr()
	last := r.From.AsSlice()
	for bit := prefix.Bits(); bit < prefix.Addr().BitLen(); bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	r.To, _ = netip.AddrFromSlice(last)
	if r.From.Is4() && prefix.Bits() < 31 { // RFC 3021: a /31 is two hosts
		r.From, r.To = r.From.Next(), r.To.Prev()
	}
	return r, nil
}

// Count is the number of addresses; of more than a host could ever have it is connectionsMax.
func (r Range) Count() uint64 {
	from, to := r.From.As16(), r.To.As16()
	var n uint64
	for i := range from {
		n = n<<8 + uint64(to[i]) - uint64(from[i]) // modulo 2^64, as differences of later bytes may be below 0
		if i < 11 && from[i] != to[i] {
			return connectionsMax
		}
	}
	return n + 1
}

func (r Range) contains(a netip.Addr) bool { return !a.Less(r.From) && !r.To.Less(a) }

func (r Range) overlaps(o Range) bool { return r.contains(o.From) || o.contains(r.From) }

func (r Range) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	return r.From.String() + "-" + r.To.String()
}

// VIP is a range that we have given to an interface.
type VIP struct {
	Range
	Device  string `json:"device"`
	Lasting bool   `json:"lasting"`           // added again at every boot
	Present uint64 `json:"present,omitempty"` // addresses that are on the interface now
}

const (
	vipFile  = stateDir + "/vip.json"
	vipUnit  = "etc/systemd/system/tote-vip.service"
	vipWants = "etc/systemd/system/multi-user.target.wants/tote-vip.service"
)

// AddVIP gives a range to an interface, whole or not at all. The range is written down before its first address, so what a
// kill has cut off shows in ListVIP, and is completed by adding it again or undone by RemoveVIP. lasting adds it at every boot with
// this binary. An address that somebody else has set, and a range that overlaps another one of ours, are refused.
func AddVIP(root, device string, r Range, lasting bool, binary string) error {
	if lasting && !(&Host{root: root}).readsUnits() {
		return fmt.Errorf("add %s to %s at every boot: this host has no systemd, which would do it; have its own start run server tune vip add", r, device)
	}
	unlock, err := lock(root, false)
	if err != nil {
		return err
	}
	defer unlock()
	vips, err := readVIPs(root)
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return fmt.Errorf("add %s to %s: %w", r, device, err)
	}
	again := slices.IndexFunc(vips, func(v VIP) bool { return v.Range == r && v.Device == device })
	taken, err := addresses()
	if err != nil {
		return err
	}
	for i, v := range vips {
		if i != again && v.overlaps(r) {
			return fmt.Errorf("add %s to %s: it overlaps %s, which is on %s already", r, device, v.Range, v.Device)
		}
	}
	for a, on := range taken {
		if r.contains(a) && (again < 0 || on != device) {
			return fmt.Errorf("add %s to %s: %s is set on %s already", r, device, a, on)
		}
	}
	after := slices.Clone(vips)
	if again < 0 {
		again = len(after)
		after = append(after, VIP{Range: r, Device: device})
	}
	after[again].Lasting = after[again].Lasting || lasting
	if err := writeVIPs(root, after, binary); err != nil {
		return errors.Join(err, writeVIPs(root, vips, binary))
	}
	if err := setAddresses(link, r, taken); err != nil {
		return fmt.Errorf("add %s to %s: %w", r, device, errors.Join(err, writeVIPs(root, vips, binary)))
	}
	return nil
}

// setAddresses adds those of the range that are not there. Where one fails, it takes back what it has added.
func setAddresses(link netlink.Link, r Range, there map[netip.Addr]string) error {
	for a := r.From; ; a = a.Next() {
		if there[a] == "" {
			if err := netlink.AddrAdd(link, alone(a)); err != nil {
				for b := r.From; b != a; b = b.Next() {
					if there[b] == "" {
						err = errors.Join(err, netlink.AddrDel(link, alone(b)))
					}
				}
				return fmt.Errorf("set %s: %w", a, err)
			}
		}
		if a == r.To {
			return nil
		}
	}
}

// alone is an address without a network: it adds no route but its own. Nobody else can have it, so it is not asked for
// (duplicate address detection of IPv6 takes a second).
func alone(a netip.Addr) *netlink.Addr {
	address := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	return address
}

// RemoveVIP takes a range of ours from its interface.
func RemoveVIP(root, device string, r Range, binary string) error {
	unlock, err := lock(root, false)
	if err != nil {
		return err
	}
	defer unlock()
	vips, err := readVIPs(root)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(vips, func(v VIP) bool { return v.Range == r && v.Device == device })
	if at < 0 {
		return fmt.Errorf("remove %s from %s: it is no range of ours; server tune vip list shows them", r, device)
	}
	there, err := addresses()
	if err != nil {
		return err
	}
	if link, err := netlink.LinkByName(device); err == nil { // its addresses went with it otherwise
		for a := r.From; ; a = a.Next() {
			if there[a] == device {
				if err := netlink.AddrDel(link, alone(a)); err != nil {
					return fmt.Errorf("remove %s from %s: %w", a, device, err)
				}
			}
			if a == r.To {
				break
			}
		}
	}
	return writeVIPs(root, slices.Delete(vips, at, at+1), binary)
}

// ClearVIP takes all ranges of ours from their interfaces.
func ClearVIP(root, binary string) error {
	vips, err := readVIPs(root)
	if err != nil {
		return err
	}
	for _, v := range vips {
		err = errors.Join(err, RemoveVIP(root, v.Device, v.Range, binary))
	}
	return err
}

// ListVIP returns our ranges, and how much of each is there.
func ListVIP(root string) ([]VIP, error) {
	vips, err := readVIPs(root)
	if err != nil || len(vips) == 0 {
		return vips, err
	}
	there, err := addresses()
	if err != nil {
		return nil, err
	}
	for i := range vips {
		for a, on := range there {
			if on == vips[i].Device && vips[i].contains(a) {
				vips[i].Present++
			}
		}
	}
	return vips, nil
}

// WriteVIPs prints ranges for people, with the connections that they are good for.
func WriteVIPs(w io.Writer, vips []VIP) {
	for _, v := range vips {
		state := "until the next boot"
		if v.Lasting {
			state = "at every boot"
		}
		if v.Present < v.Count() {
			state += fmt.Sprintf("; half done: %s are there, server tune vip add or remove makes it whole", count(v.Present))
		}
		fmt.Fprintf(w, "%s on %s: %s addresses, %s; room for %s connections to one server address and port\n",
			v.Range, v.Device, count(v.Count()), state, count(v.Count()*portsPerAddress))
	}
}

// addresses are all addresses of this network namespace and the interfaces that they are on.
func addresses() (map[netip.Addr]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	all := make(map[netip.Addr]string, len(list))
	for _, a := range list {
		if address, ok := netip.AddrFromSlice(a.IP); ok {
			all[address.Unmap()] = names[a.LinkIndex]
		}
	}
	return all, nil
}

func readVIPs(root string) (vips []VIP, err error) {
	b, err := os.ReadFile(filepath.Join(root, vipFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &vips)
	}
	if err != nil {
		return nil, fmt.Errorf("read our ranges of addresses: %w", err)
	}
	return vips, nil
}

// writeVIPs writes the ranges down, and the unit that adds the lasting ones at boot. Without any, nothing stays.
func writeVIPs(root string, vips []VIP, binary string) error {
	var lasting []string
	for _, v := range vips {
		if v.Lasting {
			lasting = append(lasting, fmt.Sprintf("ExecStart=%s tune vip add %s --device %s\n", binary, v.Range, v.Device))
		}
	}
	err := replace(root, vipUnit, fmt.Sprintf(vipService, strings.Join(lasting, "")), len(lasting) > 0)
	if err == nil && len(lasting) > 0 {
		if err = os.MkdirAll(filepath.Dir(filepath.Join(root, vipWants)), 0o755); err == nil {
			err = os.Symlink("../tote-vip.service", filepath.Join(root, vipWants))
		}
		if errors.Is(err, fs.ErrExist) {
			err = nil
		}
	} else if err == nil {
		err = remove(filepath.Join(root, vipWants))
	}
	if err == nil {
		b, failed := json.MarshalIndent(vips, "", "  ")
		err = errors.Join(failed, replace(root, vipFile, string(b), len(vips) > 0))
	}
	if err == nil && len(vips) == 0 {
		err = removeDirs(root, []string{stateDir})
	}
	if err == nil {
		err = reload(root)
	}
	if err != nil {
		return fmt.Errorf("write our ranges of addresses down: %w", err)
	}
	return nil
}

// After the network is up, since managers of networks remove addresses that they do not know when they set an interface up.
const vipService = `# Written by server tune vip add --lasting; server tune vip remove takes ranges out again.
[Unit]
Description=More addresses for live parimutuel prediction games
Wants=network-online.target
After=network-online.target
Before=tote.service

[Service]
Type=oneshot
RemainAfterExit=yes
%s
[Install]
WantedBy=multi-user.target
`

// replace puts a file in place whole, or removes it.
func replace(root, name, text string, wanted bool) error {
	path := filepath.Join(root, name)
	if !wanted {
		return remove(path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	staged := filepath.Join(root, beside(name, ".tote-new"))
	if err := writeSynced(staged, []byte(text), 0o644); err != nil {
		return errors.Join(err, remove(staged))
	}
	return rename(staged, path)
}
