package tuning

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestParseRange(t *testing.T) {
	for _, row := range []struct {
		text  string
		want  string // or what the refusal says
		count uint64
	}{
		{"10.77.0.1", "10.77.0.1", 1},
		{"10.77.0.1-10.77.0.254", "10.77.0.1-10.77.0.254", 254},
		{"10.77.0.250-10.77.1.5", "10.77.0.250-10.77.1.5", 12},
		{"10.77.0.0/24", "10.77.0.1-10.77.0.254", 254},
		{"10.77.0.77/24", "10.77.0.1-10.77.0.254", 254},
		{"10.77.0.4/31", "10.77.0.4-10.77.0.5", 2},
		{"10.77.0.4/32", "10.77.0.4", 1},
		{"10.77.0.0/20", "10.77.0.1-10.77.15.254", 4094},
		{"fd00::1:0-fd00::1:fff", "fd00::1:0-fd00::1:fff", 4096},
		{"fd00::1:0-fd00::1:1000", "4,097 addresses; 4,096 at most", 0},
		{"fd00::ff00/120", "fd00::ff00-fd00::ffff", 256},
		{"10.0.0.0/8", "16,777,214 addresses; 4,096 at most, which is room for 264,241,152 connections", 0},
		{"fd00::/64", "addresses; 4,096 at most", 0},
		{"fd00::-fe00::", "addresses; 4,096 at most", 0},
		{"10.77.0.9-10.77.0.1", "10.77.0.9 comes after 10.77.0.1", 0},
		{"10.77.0.1-fd00::1", "one end is IPv4, the other IPv6", 0},
		{"127.0.0.2", "without asking", 0},
		{"224.0.0.1", "no address to give", 0},
		{"0.0.0.0-0.0.0.9", "no address to give", 0},
		{"255.255.255.255", "no address to give", 0},
		{"fe80::1%eth0", "no address to give", 0},
		{"eth0", "give 10.77.0.1-10.77.0.254 or", 0},
		{"10.77.0.0/33", "give 10.77.0.1-10.77.0.254 or", 0},
		{"", "give 10.77.0.1-10.77.0.254 or", 0},
	} {
		r, err := ParseRange(row.text)
		switch {
		case row.count == 0 && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: %v, %v; want a refusal that says %q", row.text, r, err, row.want)
		case row.count > 0 && (err != nil || r.String() != row.want || r.Count() != row.count):
			t.Errorf("%s: %v of %d, %v; want %s of %d", row.text, r, r.Count(), err, row.want, row.count)
		}
	}
}

func span(t *testing.T, text string) Range {
	t.Helper()
	r, err := ParseRange(text)
	must(t, err)
	return r
}

// Addresses that were added can be listened on and connected from, in both families; removed, nothing of them stays.
func TestVIP(t *testing.T) {
	isolated(t, func(t *testing.T) {
		root := host(t, 16, nil)
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.LinkSetUp(lo))
		before, kernel := tree(t, root), len(mustAddresses(t))
		four, six := span(t, "10.77.0.0/24"), span(t, "fd77::1-fd77::20")
		must(t, AddVIP(root, "lo", four, false, "/usr/bin/server"))
		must(t, AddVIP(root, "lo", six, true, "/usr/bin/server"))
		if n := len(mustAddresses(t)); n != kernel+254+32 {
			t.Errorf("%d addresses, want %d", n, kernel+254+32)
		}
		for _, pair := range [][2]string{{"10.77.0.1:0", "10.77.0.254:0"}, {"[fd77::1]:0", "[fd77::20]:0"}} {
			l, err := net.Listen("tcp", pair[0])
			must(t, err)
			local, err := net.ResolveTCPAddr("tcp", pair[1])
			must(t, err)
			c, err := (&net.Dialer{LocalAddr: local}).DialContext(t.Context(), "tcp", l.Addr().String())
			for deadline := time.Now().Add(30 * time.Second); errors.Is(err, unix.ENETUNREACH) && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond) // the kernel adds routes of IPv6 a little after their addresses
				c, err = (&net.Dialer{LocalAddr: local}).DialContext(t.Context(), "tcp", l.Addr().String())
			}
			must(t, err)
			c.Close()
			l.Close()
		}
		for _, row := range []struct{ device, addresses, says string }{
			{"lo", "10.77.0.200-10.77.1.10", "overlaps 10.77.0.1-10.77.0.254, which is on lo"},
			{"lo", "10.77.0.7", "overlaps"},
			{"lo", "10.77.0.0-10.77.0.255", "overlaps"},
			{"nowhere0", "10.78.0.1", "not found"},
		} {
			if err := AddVIP(root, row.device, span(t, row.addresses), false, "x"); err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("%s on %s: %v, want %q", row.addresses, row.device, err, row.says)
			}
		}
		must(t, netlink.AddrAdd(lo, alone(netip.MustParseAddr("10.79.0.9"))))
		if err := AddVIP(root, "lo", span(t, "10.79.0.1-10.79.0.20"), false, "x"); err == nil || !strings.Contains(err.Error(), "10.79.0.9 is set on lo already") {
			t.Errorf("somebody's address: %v", err)
		}
		must(t, netlink.AddrDel(lo, alone(netip.MustParseAddr("10.79.0.9"))))
		if err := RemoveVIP(root, "lo", span(t, "10.77.0.1-10.77.0.9"), "x"); err == nil || !strings.Contains(err.Error(), "no range of ours") {
			t.Errorf("a part of a range: %v", err)
		}

		unit, err := os.ReadFile(filepath.Join(root, vipUnit))
		must(t, err)
		if !strings.Contains(string(unit), "\nExecStart=/usr/bin/server tune vip add fd77::1-fd77::20 --device lo\n") || strings.Contains(string(unit), "10.77") {
			t.Errorf("the unit for the next boot is %s", unit)
		}
		if on, err := os.Readlink(filepath.Join(root, vipWants)); err != nil || on != "../tote-vip.service" {
			t.Errorf("it is not enabled: %q, %v", on, err)
		}

		// As after a kill in the middle of adding or a boot: what is missing is told and comes back.
		must(t, netlink.AddrDel(lo, alone(netip.MustParseAddr("10.77.0.50"))))
		var text strings.Builder
		vips, err := ListVIP(root)
		must(t, err)
		WriteVIPs(&text, vips)
		if !strings.Contains(text.String(), "10.77.0.1-10.77.0.254 on lo: 254 addresses, until the next boot; half done: 253 are there") ||
			!strings.Contains(text.String(), "fd77::1-fd77::20 on lo: 32 addresses, at every boot; room for 2,064,384 connections") {
			t.Errorf("the list is\n%s", text.String())
		}
		must(t, AddVIP(root, "lo", four, false, "/usr/bin/server"))
		if n := len(mustAddresses(t)); n != kernel+254+32 {
			t.Errorf("added again, there are %d addresses, want %d", n, kernel+254+32)
		}
		must(t, netlink.AddrDel(lo, alone(netip.MustParseAddr("10.77.0.51"))))
		must(t, RemoveVIP(root, "lo", four, "/usr/bin/server"))
		must(t, RemoveVIP(root, "lo", six, "/usr/bin/server"))
		if n := len(mustAddresses(t)); n != kernel {
			t.Errorf("removed, there are %d addresses, want %d", n, kernel)
		}
		after := tree(t, root)
		for name := range after { // directories of systemd's stay
			if _, was := before[name]; !was && !strings.HasPrefix(name, "/etc/systemd") && name != "/var" && name != "/var/lib" {
				t.Errorf("%s stays", name)
			}
		}
	})
}

// A range of which one address is refused is not added at all.
func TestVIPWholeOrNot(t *testing.T) {
	isolated(t, func(t *testing.T) {
		root := host(t, 16, nil)
		before := tree(t, root)
		must(t, os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0o644))
		kernel := len(mustAddresses(t))
		if err := AddVIP(root, "lo", span(t, "fd77::1-fd77::9"), false, "x"); err == nil {
			t.Fatal("an interface without IPv6 takes IPv6 addresses")
		}
		if n := len(mustAddresses(t)); n != kernel {
			t.Errorf("%d addresses, were %d", n, kernel)
		}
		if vips, err := ListVIP(root); err != nil || len(vips) != 0 {
			t.Errorf("it is listed: %v, %v", vips, err)
		}
		must(t, os.RemoveAll(filepath.Join(root, "var")))
		same(t, "refused", root, before)
	})
}

// One that the kernel refuses in the middle takes those before it along.
func TestVIPTakenBack(t *testing.T) {
	isolated(t, func(t *testing.T) {
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		there := mustAddresses(t)
		must(t, netlink.AddrAdd(lo, alone(netip.MustParseAddr("10.77.0.5")))) // meanwhile
		if err := setAddresses(lo, span(t, "10.77.0.1-10.77.0.9"), there); err == nil || !strings.Contains(err.Error(), "set 10.77.0.5: file exists") {
			t.Errorf("%v", err)
		}
		if n := len(mustAddresses(t)); n != len(there)+1 {
			t.Errorf("%d addresses, were %d", n, len(there)+1)
		}
	})
}

// What systemd reads at boot, it can read.
func TestVIPUnit(t *testing.T) {
	isolated(t, func(t *testing.T) {
		root := host(t, 16, nil)
		self, err := os.Executable()
		must(t, err)
		must(t, AddVIP(root, "lo", span(t, "10.77.0.0/30"), true, self))
		if out, err := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join(root, vipUnit)).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
	})
}

func mustAddresses(t *testing.T) map[netip.Addr]string {
	t.Helper()
	all, err := addresses()
	must(t, err)
	return all
}
