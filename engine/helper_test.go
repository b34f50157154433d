package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// helper is a process that stands for others in a benchmark, a crowd or an asker, so that the CPU time of ours is the server's. It runs on the
// same machine or, where helpersEnv says so, on one that the server need not share: an agency there starts it (beAgency).
//
//	test ── "crowd …\n" ─▶ agency ─ starts ─▶ crowd ── clients ─▶ server in the test
//	  ▲─────────────── in and out ──────────────┘
type helper struct {
	in   io.WriteCloser
	out  io.Reader
	wait func() error // for its end, which an end of in brings
}

// helpersEnv is the address of an agency that starts the helpers, and agencyEnv makes the test binary one, at that address.
const (
	helpersEnv = "TOTE_ENGINE_HELPERS"
	agencyEnv  = "TOTE_ENGINE_AGENCY"
)

// agency is the one that starts the helpers; "": they are started here.
var agency = os.Getenv(helpersEnv)

// help starts a helper: env and order make it what it is.
func help(t testing.TB, env, order string) helper {
	t.Helper()
	start := spawn
	if agency != "" {
		start = hire
	}
	h, err := start(env, order)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// answers is all that a helper says until it ends.
func answers(t testing.TB, env, order string) (string, error) {
	t.Helper()
	h := help(t, env, order)
	out, err := io.ReadAll(h.out)
	return string(out), errors.Join(err, h.in.Close(), h.wait())
}

// spawn starts a helper here.
func spawn(env, order string) (helper, error) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), env+"="+order)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	out, err2 := child.StdoutPipe()
	return helper{in, out, child.Wait}, errors.Join(err, err2, child.Start())
}

// hire has the agency start a helper.
func hire(env, order string) (helper, error) {
	conn, err := net.Dial("tcp", agency)
	if err != nil {
		return helper{}, err
	}
	_, err = fmt.Fprintf(conn, "%s=%s\n", env, order)
	return helper{in: sending{conn.(*net.TCPConn)}, out: conn, wait: conn.Close}, err
}

// sending is the half of a connection that ends when it is closed.
type sending struct{ *net.TCPConn }

func (s sending) Close() error { return s.CloseWrite() }

// reachable is our address for helpers.
func reachable(t testing.TB) string {
	t.Helper()
	if agency == "" {
		return "127.0.0.1"
	}
	conn, err := net.Dial("udp", agency) // sends nothing
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String()
}

// beAgency starts a helper for each connection, which is its standard input and output. It ends by a signal.
func beAgency(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			if err := employ(conn.(*net.TCPConn)); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
}

// employ starts the helper that a connection asks for in its first line, and returns when that has ended.
func employ(conn *net.TCPConn) error {
	defer conn.Close()
	order := ""
	for letter := make([]byte, 1); !strings.HasSuffix(order, "\n"); { // no more than the line: the rest is the helper's
		if _, err := io.ReadFull(conn, letter); err != nil {
			return err
		}
		order += string(letter)
	}
	file, err := conn.File()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // whose end is the child's
	defer runtime.UnlockOSThread()
	child := exec.Command(os.Args[0])
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a server that is killed with its kernel does not say so
	child.Env = append(os.Environ(), strings.TrimSuffix(order, "\n"))
	child.Stdin, child.Stdout, child.Stderr = file, file, os.Stderr
	return errors.Join(child.Start(), file.Close(), conn.Close(), child.Wait())
}
