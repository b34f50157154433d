package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"tote/server/bench"
	"tote/server/bench/sheet"
)

// benched runs `server bench` with these arguments and returns its report, if it wrote one, and what it said.
func benched(t *testing.T, arguments ...string) (report *bench.Report, said string, err error) {
	t.Helper()
	ctx, end := context.WithTimeout(t.Context(), time.Minute) // it ends by itself, or else it hangs
	defer end()
	command := exec.CommandContext(ctx, binary, append([]string{"bench"}, arguments...)...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err = command.Run()
	if ctx.Err() != nil {
		t.Fatalf("bench %q hangs\n%s", arguments, &errs)
	}
	if i := bytes.IndexByte(out.Bytes(), '{'); i == 0 {
		report = &bench.Report{}
		if err := json.Unmarshal(out.Bytes(), report); err != nil {
			t.Fatalf("bench said %s: %v", &out, err)
		}
	}
	return report, errs.String(), err
}

// scenario writes a short one to a file.
func scenario(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "short.toml")
	if err := os.WriteFile(path, []byte("users = 60\nrate = \"200/s\"\nduration = \"3s\"\nseed = 1\n"+text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const shortGame = "\n[[games]]\nname = \"A\"\ncount = 1\npools = 2\ninterval = \"200ms\"\nturnover = \"700ms\"\n"

// What scenarios are made of, against the real thing: churn, storms, slow readers, several games, a ramp down. The server is the run's
// own, so its journal and its money are audited too.
func TestBenchRunAuditsAServerOfItsOwn(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"churn and departure": "depart = \"60/s\"" + shortGame + "[players]\nthink = [\"50ms\", \"200ms\"]\nchurn = 0.2\ndeeds = { stake = 9, predictions = 1, presence = 1, time = 1 }\n",
		"storm":               shortGame + "[players]\nstakes = \"200/s\"\n[[storms]]\nat = \"1s\"\nshare = 1.0\nback = \"1s\"\n",
		"upgrade":             shortGame + "[players]\nstakes = \"200/s\"\n[[upgrades]]\nat = \"500ms\"\n[[upgrades]]\nat = \"1.5s\"\ndrain = \"100ms\"\nspread = \"300ms\"\n",
		"slow readers":        shortGame + "[players]\nstakes = \"200/s\"\nnever_read = 0.1\nread_slowly = 0.1\nslow_bytes = 100\n",
		"hot and small games": shortGame + "share = 0.9\n[[games]]\nname = \"B\"\ncount = 5\nshare = 0.1\ninterval = \"200ms\"\n[players]\nstakes = \"200/s\"\nbrowse = [\"1ms\", \"50ms\"]\ninspect = true\n",
		"aloof":               "[players]\naloof = true\nthink = [\"100ms\", \"200ms\"]\ndeeds = { time = 1 }\npayload = 5000\n",
		"four addresses":      shortGame + "[players]\nstakes = \"200/s\"\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arguments := []string{"run", scenario(t, text), "--json", "-"}
			if name == "four addresses" {
				arguments = append(arguments, "--through", "127.0.0.2-127.0.0.5")
			}
			report, said, err := benched(t, arguments...)
			if err != nil || report == nil {
				t.Fatalf("%v\n%s", err, said)
			}
			if said != "" {
				t.Errorf("a quiet run said %s", said)
			}
			audits := 0
			for _, c := range report.Checks {
				if strings.Contains(c.Promise, "withdrawals") || strings.Contains(c.Promise, "stops in order") || strings.Contains(c.Promise, "every checksum") {
					audits += int(c.Passed)
				}
			}
			if audits != 3 {
				t.Errorf("%d of 3 audits of the server: %+v", audits, report.Checks)
			}
			if report.Stakes.Receipts+report.Deeds.Answered < 100 || len(report.Timeline) < 2 {
				t.Errorf("%+v, %+v", report.Stakes, report.Deeds)
			}
			// The process that was watched ends where another one takes over.
			if w := report.Watched; name != "upgrade" && (w == nil || w.TCP["CurrEstab"] == 0 || w.RSSMax == 0 || w.FilesMax < 60 || len(w.Threads) < 3 ||
				report.Looks[1].Metrics["server_journal_durable"] == 0 || report.Limits == nil || report.Limits.Write.Count == 0) {
				t.Errorf("%+v, %+v, %+v", w, report.Limits, report.Looks[1])
			}
			switch c := report.Connections; name {
			case "churn and departure", "storm": // who is away when its time to depart comes does not come back
				if c.Returned == 0 || c.Returned > c.Dropped || name == "storm" && c.Returned != c.Dropped {
					t.Errorf("%+v", c)
				}
			case "upgrade":
				if c.Recalled != 2*60 || c.Returned != c.Recalled || c.Lost != 0 || len(report.Takeovers) != 2 || report.Latency.Away.Count != int64(c.Recalled) || len(report.Faults) > 0 {
					t.Errorf("%+v, %+v, %+v", c, report.Takeovers, report.Faults)
				}
			case "hot and small games":
				if len(report.Classes) != 2 || report.Classes[1].Seen.Count == 0 || report.Classes[0].Receipt.Count < report.Classes[1].Receipt.Count {
					t.Errorf("%+v", report.Classes)
				}
			}
		})
	}
}

// whenPlayed does something once, when the players of a short scenario have come and stake.
func (s *running) whenPlayed(do func()) {
	ctx := s.t.Context()
	go func() { // ends with the test, or before
		for ctx.Err() == nil {
			text, _ := s.desk.Metrics(ctx)
			_, text, _ = strings.Cut(text, "\nserver_journal_appended ")
			var appended float64
			if fmt.Sscan(text, &appended); appended > 200 { // 60 accounts, a few pools, stakes
				do()
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
}

// A server that stands still for two seconds shows in the highest percentiles, because latency counts from the planned time.
func TestBenchRunSeesAFrozenServer(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), "--guest-credits", "100000")
	s.whenPlayed(func() {
		s.process.Process.Signal(syscall.SIGSTOP)
		time.Sleep(2 * time.Second)
		s.process.Process.Signal(syscall.SIGCONT)
	})
	// Frozen for a third of play, so that a tenth of all stakes waits for more than half of it.
	report, said, err := benched(t, "run", scenario(t, shortGame+"[players]\nstakes = \"200/s\"\n"), "--duration", "6s",
		"--target", s.players, "--admin", s.desk.Base, "--json", "-")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if got := report.Latency.Receipt; got.P999 < 1_500_000 || got.P50 > got.P999/2 {
		t.Errorf("two seconds of frost: %+v", got)
	}
}

// The server is killed in the middle: the run ends by itself and says so, also where players would come back.
func TestBenchRunEndsWithItsServer(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{"players who stay away": "", "players who come back": "churn = 0.1\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, t.TempDir(), "--guest-credits", "100000")
			s.whenPlayed(func() { s.process.Process.Kill() })
			report, said, err := benched(t, "run", scenario(t, shortGame+"[players]\nstakes = \"200/s\"\n"+more), "--duration", "10m",
				"--target", s.players, "--admin", s.desk.Base, "--json", "-")
			if err == nil || report == nil || report.Unfinished != "all connections were lost" || !strings.Contains(said, "all connections were lost") {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}

// What can be known before a run is said in one line, with what to do about it.
func TestBenchRunSaysInOneLineWhyThereIsNone(t *testing.T) {
	t.Parallel()
	closed := start(t, t.TempDir())
	empty := start(t, t.TempDir(), "--guest-credits", "1000")
	for _, row := range []struct {
		name      string
		arguments []string
		limit     string // of descriptors
		want      string
	}{
		{"no such scenario", []string{"run", "tennis"}, "", "there are fanout, football"},
		{"nobody there", []string{"run", "football", "--target", "ws://127.0.0.1:1"}, "", "nothing listens at 127.0.0.1:1: start the server, or name another --target"},
		{"no WebSocket URL", []string{"run", "football", "--target", "http://127.0.0.1:8080"}, "", "want ws://host:port/ws"},
		{"few descriptors", []string{"run", "football"}, "1000", "raise the limit (ulimit -n 24064"},
		{"no ports", []string{"run", "football", "--users", "70000", "--from", "127.0.0.9", "--target", empty.players}, "", "or connect from "},
		{"no guests", []string{"run", "football", "--users", "10", "--target", closed.players}, "", "welcomes no guests"},
		{"no game", []string{"run", "football", "--users", "10", "--target", empty.players}, "", "has no game to join: name its operators' listener (--admin"},
		{"no operators", []string{"run", "football", "--users", "10", "--target", empty.players, "--admin", "http://127.0.0.1:1"}, "", "no operators' listener answers"},
		{"an address of somebody else", []string{"run", "idle", "--users", "10", "--target", empty.players, "--from", "203.0.113.7"}, "", "this host has no such address"},
	} {
		t.Run(row.name, func(t *testing.T) {
			shell := fmt.Sprintf("ulimit -n %s; exec \"$@\"", row.limit)
			if row.limit == "" {
				shell = "exec \"$@\""
			}
			out, err := exec.Command("sh", append([]string{"-c", shell, "sh", binary, "bench"}, row.arguments...)...).CombinedOutput()
			text := strings.TrimSpace(string(out))
			if err == nil || !strings.Contains(text, row.want) || strings.Contains(text, "\n") {
				t.Errorf("%v, want %q in one line:\n%s", err, row.want, text)
			}
		})
	}
}

// proxy stands between players and a server, and tampers with one receipt of many.
func proxy(t *testing.T, target string, nth uint64, tamper func(receipt []byte) []byte) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var receipts atomic.Uint64
	t.Cleanup(func() { listener.Close(); all.Wait() })
	server := strings.TrimSuffix(strings.TrimPrefix(target, "ws://"), "/ws")
	pass := func(client net.Conn) {
		defer client.Close()
		to, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer to.Close()
		all.Go(func() { // ends with either side
			defer client.Close()
			defer to.Close()
			b := make([]byte, 4096)
			for {
				n, err := client.Read(b)
				if err != nil {
					return
				}
				to.Write(b[:n])
			}
		})
		var head []byte // the handshake's answer, byte by byte so as not to read on
		for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
			if _, err := to.Read(b); err != nil {
				return
			}
			head = append(head, b...)
		}
		client.Write(head)
		for {
			head, err := ws.ReadHeader(to)
			if err != nil {
				return
			}
			f := ws.Frame{Header: head, Payload: make([]byte, head.Length)} // as long as our own server says
			if _, err := io.ReadFull(to, f.Payload); err != nil {
				return
			}
			if bytes.HasPrefix(f.Payload, []byte(`{"type":"receipt"`)) && receipts.Add(1) == nth {
				if f.Payload = tamper(f.Payload); f.Payload == nil {
					continue
				}
				f.Header.Length = int64(len(f.Payload))
			}
			if ws.WriteFrame(client, f) != nil {
				return
			}
		}
	}
	all.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { pass(client) })
		}
	})
	return "ws://" + listener.Addr().String() + "/ws"
}

// One receipt of hundreds is lost, or one unit of money in one of them: the run fails and says which.
func TestBenchRunFindsOneReceiptAndOneUnit(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		tamper func([]byte) []byte
		want   string
	}{
		{"nothing", func(b []byte) []byte { return b }, ""},
		{"a receipt", func([]byte) []byte { return nil }, "every request gets exactly one reply"},
		{"a unit", func(b []byte) []byte {
			var balance int
			i := bytes.Index(b, []byte(`"balance":`)) + len(`"balance":`)
			fmt.Sscan(string(bytes.Split(b[i:], []byte(","))[0]), &balance)
			return bytes.Replace(b, fmt.Append(nil, `"balance":`, balance), fmt.Append(nil, `"balance":`, balance-1), 1)
		}, "each balance is credits − stakes + payouts"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, t.TempDir(), "--guest-credits", "100000")
			target := proxy(t, s.players, 300, row.tamper)
			report, said, err := benched(t, "run", scenario(t, shortGame+"[players]\nstakes = \"200/s\"\n"), "--target", target, "--admin", s.desk.Base, "--json", "-")
			switch {
			case report == nil:
				t.Fatalf("%v\n%s", err, said)
			case row.want == "" && err != nil:
				t.Errorf("%v\n%s", err, said)
			case row.want != "" && (err == nil || !strings.Contains(said, row.want)):
				t.Errorf("%v, want %q\n%s", err, row.want, said)
			}
			if report.Stakes.Receipts < 400 {
				t.Errorf("%d receipts", report.Stakes.Receipts)
			}
		})
	}
}

// From runs to a page, and from a table to models: what people type.
func TestBenchReportAndFit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	json, html, page := filepath.Join(dir, "a.json"), filepath.Join(dir, "a.html"), filepath.Join(dir, "both.html")
	if _, said, err := benched(t, "run", scenario(t, shortGame+"[players]\nstakes = \"200/s\"\n"), "--quiet", "--json", json, "--html", html, "--cost", "2.486"); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	points, bad := filepath.Join(dir, "points.csv"), filepath.Join(dir, "bad.csv")
	os.WriteFile(points, []byte("p,x\n1,43.96\n2,78.74\n4,142.51\n8,216.35\n"), 0o644)
	os.WriteFile(bad, []byte("p,x\n1,43.96\n2,many\n"), 0o644)
	if _, said, err := benched(t, "report", "before="+json, "after="+json, "--points", points, "--out", page); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for path, want := range map[string]string{html: "Every audit agreed.", page: "Side by side"} {
		if text, err := os.ReadFile(path); err != nil || !bytes.Contains(text, []byte(want)) || !bytes.Contains(text, []byte("</html>")) {
			t.Errorf("%s lacks %q: %v", path, want, err)
		}
	}
	if _, said, err := benched(t, "report", points, "--out", page); err == nil || !strings.Contains(said, "is no report") {
		t.Errorf("%v\n%s", err, said)
	}
	out, err := exec.Command(binary, "bench", "fit", points, "--at", "24").Output()
	if err != nil || !bytes.Contains(out, []byte("σ = 0.0881")) || !bytes.Contains(out, []byte("linear extrapolation misleads")) {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = exec.Command(binary, "bench", "fit", bad).CombinedOutput()
	if want := "bad.csv: line 3: x is \"many\"; write a number with a decimal point\n"; err == nil || !strings.HasSuffix(string(out), want) {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := exec.Command(binary, "bench", "report", "--clients", json).Output(); err != nil || !bytes.Contains(out, []byte("Share served within a certain time")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// The three servers play the same, each as its own processes, and are laid side by side.
func TestBenchCompare(t *testing.T) {
	t.Parallel()
	ctx, end := context.WithTimeout(t.Context(), 4*time.Minute) // it ends by itself, or else it hangs
	defer end()
	page, runs := filepath.Join(t.TempDir(), "page.html"), filepath.Join(t.TempDir(), "runs.json")
	short := scenario(t, shortGame+"[players]\nthink = [\"50ms\", \"200ms\"]\n")
	command := exec.CommandContext(ctx, binary, "bench", "compare", "--scenario", short, "--duration", "1500ms", "--rounds", "1", "--html", page, "--json", runs, "--quiet")
	said, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, want := range []string{"comparator by ours", "baseline by ours", "CPU per receipt", "memory per connection", "ours: every audit agreed in 1 of 1 runs", "comparator: every audit agreed in 1 of 1 runs"} {
		if !strings.Contains(string(said), want) {
			t.Errorf("lacks %q:\n%s", want, said)
		}
	}
	text, err := os.ReadFile(runs)
	var groups []*sheet.Group
	if err := errors.Join(err, json.Unmarshal(text, &groups)); err != nil || len(groups) != 3 {
		t.Fatalf("%d groups, %v", len(groups), err)
	}
	for i, processes := range []int{1, 1, 5} { // nginx, its two of WebSockets, Redis, MariaDB
		g := groups[i]
		if len(g.Runs) != 1 || len(g.Lost) != 0 {
			t.Errorf("%s: %d runs, lost %q", g.Name, len(g.Runs), g.Lost)
			continue
		}
		r := g.Runs[0]
		if r.Stakes.Receipts == 0 || r.Stakes.Payouts == 0 || r.Limits == nil || r.Conditions.Round != 1 || len(r.Server.PIDs) < processes || r.Server.CPU == 0 || r.Server.PSSPerConn == 0 {
			t.Errorf("%s: %+v, %+v", g.Name, r.Stakes, r.Server)
		}
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "Side by side") {
		t.Errorf("the page: %v", err)
	}
	if _, said, err := benched(t, "compare", "--against", "ours,theirs"); err == nil || !strings.Contains(said, `no server "theirs" to compare with: there are ours, comparator, baseline`) {
		t.Errorf("%v, %s", err, said)
	}
}
