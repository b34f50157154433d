package store

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests here need a process that dies. They run the test binary again, with
// its part named in the environment.
const (
	envPart     = "STORE_TEST_PART"
	envDir      = "STORE_TEST_DIR"
	envInterval = "STORE_TEST_INTERVAL"
)

func TestMain(m *testing.M) {
	switch os.Getenv(envPart) {
	case "":
		os.Exit(m.Run())
	case "append until killed":
		appendUntilKilled()
	case "append until the disk is full":
		appendUntilFull()
	}
}

// startChild starts the part on dir, and returns the lines it prints.
func startChild(t *testing.T, part, dir string, interval time.Duration) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(exe)
	child.Env = append(os.Environ(), envPart+"="+part, envDir+"="+dir, envInterval+"="+interval.String())
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	return child, bufio.NewReader(out)
}

// openInChild opens the store that the environment names and recovers l.
func openInChild(o Options, l *ledger) *Store {
	var err error
	o.Log = slog.New(slog.DiscardHandler)
	if o.Interval, err = time.ParseDuration(os.Getenv(envInterval)); err != nil {
		panic(err)
	}
	s, err := Open(os.Getenv(envDir), o)
	if err != nil {
		panic(err)
	}
	if _, err := s.Recover(l.load, l.Apply); err != nil {
		panic(err)
	}
	return s
}

const killPadding = 5 * chunkBytes

// appendUntilKilled has three producers append calls of 1 to 5 records, goes on
// counting where the ledger stands, and prints each acknowledged number.
func appendUntilKilled() {
	l := &ledger{padding: killPadding}
	s := openInChild(Options{SnapshotEvery: 300}, l)
	counts, a := l.counts, newAcks()
	s.Start(l, func(seq uint64) {
		fmt.Println(seq) // one write: a kill leaves a line whole or away
		a.durable(seq)
	}, nil)
	var producers sync.WaitGroup
	for p := range uint32(3) {
		producers.Go(func() {
			for call := 0; ; call++ {
				n := 1 + call%5
				first := s.Append(appendCall(nil, p, counts[p]+1, n, 40), n)
				counts[p] += uint64(n)
				a.waitFor(max(first, 50) - 50) // a few calls ahead of the disk
			}
		})
	}
	producers.Wait()
}

// Killed at a random moment, again and again on one directory: every record that
// was acknowledged is there, in order and once, calls are whole, and the store
// goes on.
func TestKilledServersKeepWhatTheyAcknowledged(t *testing.T) {
	for _, mode := range []struct {
		name     string
		interval time.Duration
	}{
		{"always", 0},
		{"interval", 3 * time.Millisecond},
		{"interval longer than the server's life", time.Hour},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			random := rand.New(rand.NewPCG(seed, 0))
			dir := t.TempDir()
			snapshots := 0
			for round := range 8 {
				child, out := startChild(t, "append until killed", dir, mode.interval)
				acknowledged := uint64(0)
				for line := range 1 + random.IntN(150) {
					text, err := out.ReadString('\n')
					if err != nil {
						t.Fatalf("seed %d, round %d: the server ended by itself after %d lines", seed, round, line)
					}
					acknowledged = mustParse(t, text)
				}
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				for { // what it had printed when it died counts too
					text, err := out.ReadString('\n')
					if err != nil {
						break
					}
					acknowledged = mustParse(t, text)
				}
				if err := child.Wait(); err == nil {
					t.Fatal("a killed process ended well")
				}

				l := &ledger{padding: killPadding}
				s, r := recoverStore(t, dir, Options{Interval: mode.interval}, l)
				if l.seq < acknowledged {
					t.Errorf("seed %d, round %d: acknowledged %d, recovered %s", seed, round, acknowledged, r)
				}
				if r.SnapshotSeq > 0 {
					snapshots++
				}
				mustClose(t, s)
			}
			if snapshots == 0 {
				t.Error("no round had a snapshot: the test does not test what it should")
			}
		})
	}
}

func mustParse(t *testing.T, line string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// appendUntilFull appends with no room left in the file system, which the limit
// on file sizes stands for, and says what it hears.
func appendUntilFull() {
	var l ledger
	failed := make(chan struct{})
	s := openInChild(Options{Fatal: func(err error) {
		fmt.Println("fatal", err)
		close(failed)
	}}, &l)
	a := newAcks()
	s.Start(&l, func(seq uint64) {
		fmt.Println("durable", seq)
		a.durable(seq)
	}, nil)
	limit := syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
	for count := uint64(1); ; count++ {
		seq := s.Append(appendCall(nil, 1, count, 1, 50_000), 1)
		acknowledged := make(chan struct{})
		go func() {
			a.waitFor(seq) // the last of these waits for ever, as a client would
			close(acknowledged)
		}()
		select {
		case <-acknowledged:
			continue
		case <-failed:
		}
		for range 100 { // the shards have not heard of it yet
			count++
			s.Append(appendCall(nil, 1, count, 1, 50_000), 1)
		}
		fmt.Println("close", s.Close())
		fmt.Println("end", s.Durable(), s.Stats().PendingBytes)
		return
	}
}

func TestAFullDiskEndsAcknowledging(t *testing.T) {
	for _, mode := range modes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			child, out := startChild(t, "append until the disk is full", dir, mode.o.Interval)
			text, err := io.ReadAll(out)
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Wait(); err != nil {
				t.Fatalf("%v; it said:\n%s", err, text)
			}
			said := strings.Split(strings.TrimSpace(string(text)), "\n")
			acknowledged := len(said) - 3
			if acknowledged < 2 {
				t.Fatalf("it said:\n%s", text)
			}
			last := strings.TrimPrefix(said[acknowledged-1], "durable ")
			fatal, closing, end := said[acknowledged], said[acknowledged+1], said[acknowledged+2]
			if !strings.HasPrefix(fatal, "fatal ") || !strings.Contains(fatal, "file too large") {
				t.Errorf("after record %s it said %q", last, fatal)
			}
			if !strings.Contains(closing, "file too large") {
				t.Errorf("Close said %q", closing)
			}
			if want := "end " + last + " 0"; end != want {
				t.Errorf("it ended with %q, want %q", end, want)
			}

			var l ledger
			_, r := recoverStore(t, dir, Options{}, &l)
			if l.seq < mustParse(t, last) {
				t.Errorf("acknowledged %s, recovered %s", last, r)
			}
			if (mode.o.Interval > 0) != (r.TailTorn > 0) {
				t.Errorf("%d bytes of an unfinished write at the end of the tail", r.TailTorn)
			}
		})
	}
}
