package tuning

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Connections whose listener waits for their first bytes (TCP_DEFER_ACCEPT) stay half open, of both families; those that
// are established do not count.
func TestHalfOpen(t *testing.T) {
	deferring := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 60) })
		return err
	}}
	before, err := HalfOpen()
	if err != nil {
		t.Fatal(err)
	}
	want := before // in this namespace nobody else is half open for long, but we do not rely on it
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, listening := range []*net.ListenConfig{&deferring, {}} {
			l, err := listening.Listen(context.Background(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for range 20 {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
		}
		want += 20
		deadline := time.Now().Add(20 * time.Second)
		n, err := HalfOpen()
		for ; err == nil && (n < want || n >= want+20) && time.Now().Before(deadline); n, err = HalfOpen() {
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil || n < want || n >= want+20 {
			t.Errorf("%d are half open, %v; %d before, and %d more", n, err, before, want-before)
		}
	}
}

// The kernel looks through its whole table: so long does a scrape wait for it.
func BenchmarkHalfOpen(b *testing.B) {
	for b.Loop() {
		if _, err := HalfOpen(); err != nil {
			b.Fatal(err)
		}
	}
}
