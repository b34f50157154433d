package tuning

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// HalfOpen counts the connections of our network namespace whose handshake the other side has not finished: SYN received. No file in /proc has the
// number; /proc/net/tcp has a line for each connection of any state. inet_diag has the kernel look through its table itself and
// tell of these alone, at most tcp_max_syn_backlog of each listener.
func HalfOpen() (n int, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := nl.NewNetlinkRequest(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		request.AddData(halfOpenOf(family))
		if err := request.ExecuteIter(unix.NETLINK_INET_DIAG, unix.SOCK_DIAG_BY_FAMILY, func([]byte) bool { n++; return true }); err != nil {
			return 0, fmt.Errorf("ask for half-open connections: %w", err)
		}
	}
	return n, nil
}

// halfOpenOf is a family's inet_diag_req_v2 (linux/inet_diag.h).
//
//	 0        1          2           3      4               8
//	┌────────┬──────────┬───────────┬──────┬───────────────┬────────────────────────┐
//	│ family │ protocol │ extension │ 0    │ states, a bit │ 48 bytes of addresses: │
//	│        │ TCP      │ none      │      │ for each      │ any                    │
//	└────────┴──────────┴───────────┴──────┴───────────────┴────────────────────────┘
type halfOpenOf uint8

func (halfOpenOf) Len() int { return 56 }

func (family halfOpenOf) Serialize() []byte {
	b := make([]byte, family.Len())
	b[0], b[1] = uint8(family), unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<unix.BPF_TCP_SYN_RECV) // the kernel takes it for its NEW_SYN_RECV too
	return b
}
