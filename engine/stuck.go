package engine

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tote/server/proto"
)

// stuckMax is what a client may cost that takes nothing, in user space and in the kernel together. Odds alone stay below it, but for
// the kernel's last segment: it looks at SO_SNDBUF when it begins one, and lets it grow to 64 kB.
const stuckMax = 64 << 10

// stuckTicks lie between two looks at a client: a phone may be in a tunnel for so long, whatever is on its way to it.
const stuckTicks = uint32(3 * time.Second / tick)

// closeStuck closes whoever costs more than stuckMax and has taken nothing since the look before. Those who take something, however
// slowly, are bounded by LaneBytes.
func (l *loop) closeStuck() {
	l.looked = l.tick
	for _, s := range l.behind {
		if s.state != open || s.backlog()+kernelKeeps(s.fd()) <= stuckMax {
			s.taken = 0
			continue
		}
		taken := max(1, acknowledged(s.fd())) // 0 is for those who did not cost so much
		if taken == s.taken {
			l.close(s, proto.CloseSlow)
		}
		s.taken = taken
	}
}

// kernelKeeps is what the kernel counts for sending on a socket, bookkeeping included: sk_wmem_queued. 0 where it does not say.
func kernelKeeps(fd int) int {
	var memory [9]uint32 // SK_MEMINFO_VARS: include/uapi/linux/sock_diag.h
	const wmemQueued = 5
	size := uint32(unsafe.Sizeof(memory))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&memory)),
		uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	return int(memory[wmemQueued])
}

// acknowledged is how many bytes the client's kernel has taken, of which the last 32 bits are enough to see a change.
func acknowledged(fd int) uint32 {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return uint32(info.Bytes_acked)
}
