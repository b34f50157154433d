package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.yaml.in/yaml/v3"

	"tote/server/proto"
	"tote/server/proto/control"
)

// metrics is what the server's /metrics says, by name and labels as they stand there.
func (s *running) metrics() map[string]float64 {
	s.t.Helper()
	text := must(s.desk.Metrics(s.t.Context()))(s.t)
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		if name, number, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			var v float64
			fmt.Sscan(number, &v)
			values[name] = v
		}
	}
	return values
}

// What the metrics say is what the clients did: every stake, refusal and unit.
func TestMetricsHoldWhatClientsDid(t *testing.T) {
	const players, stakes = 3, 40
	s := start(t, t.TempDir(), "--stakes-per-second", "0")
	_, pools := s.game(1)
	for n := range players {
		c, _ := s.dial(fmt.Sprintf("Player %d", n), 10_000)
		for i := range stakes {
			ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: proto.RequestID(100 + i), Pool: pools[0], Amount: 10})
		}
		refused := ask[*proto.Refused](t, c, proto.Request{Type: proto.RequestStake, ID: 900, Pool: 12345, Amount: 10})
		if refused.Reason != proto.RefusedPoolUnknown {
			t.Fatalf("%+v", refused)
		}
	}
	want := map[string]float64{
		"server_connections":                             players,
		"server_stake_answer_seconds_count":              players * stakes,
		"server_stake_decide_seconds_count":              players * (stakes + 1),
		`server_refusals_total{code="pool_unknown"}`:     players,
		`server_money_units{where="pools"}`:              players * stakes * 10,
		`server_money_units{where="accounts"}`:           players * (10_000 - stakes*10),
		`server_stake_decide_seconds_bucket{le="+Inf"}`:  players * (stakes + 1),
		`server_kernel_tcp_sockets{state="established"}`: -1, // more of them than players
		"server_journal_commit_records_sum":              -1,
		"server_batch_release_seconds_count":             -1,
		"server_loop_turn_seconds_count":                 -1,
		"server_shard_turn_seconds_count":                -1,
		"server_disk_free_bytes":                         -1,
	}
	// What ss -s and netstat -s tell, whatever it is.
	for _, counter := range []string{"SyncookiesSent", "SyncookiesRecv", "SyncookiesFailed", "TCPAbortOnMemory", "ListenDrops", "ListenOverflows", "AttemptFails",
		"PassiveOpens", "RetransSegs", "OutSegs", "TCPTimeouts"} {
		want[`server_kernel_tcp_total{counter="`+counter+`"}`] = -2
	}
	for _, state := range []string{"closed", "orphaned", "time_wait", "syn_received"} {
		want[`server_kernel_tcp_sockets{state="`+state+`"}`] = -2
	}
	var got map[string]float64
	short := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { // loops and shards show their counts now and then
		got, short = s.metrics(), ""
		for name, value := range want {
			switch v, ok := got[name]; {
			case !ok, value == -1 && v == 0, value >= 0 && v != value:
				short += fmt.Sprintf("%s is %v, want %v\n", name, v, value)
			}
		}
		if short == "" {
			break
		}
	}
	if short != "" {
		t.Error(short)
	}
	if got["server_journal_commit_records_sum"] != got["server_journal_appended"] {
		t.Errorf("%v records in transactions, %v appended", got["server_journal_commit_records_sum"], got["server_journal_appended"])
	}
	// Who takes Prometheus' protobuf gets the native buckets too.
	r := must(http.NewRequestWithContext(t.Context(), "GET", s.desk.Base+"/metrics", nil))(t)
	r.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	response := must(http.DefaultClient.Do(r))(t)
	defer response.Body.Close()
	native := uint64(0)
	for d := expfmt.NewDecoder(response.Body, expfmt.ResponseFormat(response.Header)); ; {
		var f dto.MetricFamily
		if err := d.Decode(&f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if f.GetName() == "server_stake_decide_seconds" {
			h, n := f.Metric[0].Histogram, int64(0)
			native = h.GetZeroCount()
			for _, delta := range h.PositiveDelta {
				n += delta
				native += uint64(n)
			}
		}
	}
	if native != players*(stakes+1) {
		t.Errorf("%d decisions in native buckets", native)
	}
	if mean := got["server_stake_answer_seconds_sum"] / (players * stakes); mean <= 0 || mean < got["server_stake_decide_seconds_sum"]/(players*(stakes+1)) {
		t.Errorf("a stake is answered after %v s, before it is decided", mean)
	}
	s.stop()
	s.audited()
}

// The dashboard and the alerts ask for metrics that there are, and the runbook has each alert.
func TestDashboardAndAlertsFit(t *testing.T) {
	s := start(t, t.TempDir(), issue(t, t.TempDir(), "127.0.0.1")...)
	c, _ := s.dial("Ada", 1000)
	ask[*proto.Refused](t, c, proto.Request{Type: proto.RequestStake, ID: 1, Pool: 12345, Amount: 10})
	if err := c.SendText(bytes.Repeat([]byte("x"), 1<<20)); err != nil { // closed with 1009
		t.Fatal(err)
	}
	for _, err := c.Receive(); err == nil; _, err = c.Receive() {
	}
	alerts := must(exec.Command(binary, "ctl", "alerts").Output())(t)
	board := must(exec.Command(binary, "ctl", "dashboard").Output())(t)
	if !json.Valid(board) {
		t.Error("the dashboard is no JSON")
	}
	name := regexp.MustCompile(`\b(server|process|go)_[a-z0-9_]+`)
	missing := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		there := map[string]bool{}
		for metric := range s.metrics() {
			there[name.FindString(metric)] = true
		}
		missing = ""
		for _, asked := range name.FindAllString(string(alerts)+string(board), -1) {
			if !there[asked] {
				missing += " " + asked
			}
		}
		if missing == "" {
			break
		}
	}
	if missing != "" {
		t.Errorf("nobody shows%s", missing)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(alerts, &rules); err != nil || len(rules.Groups) != 1 || len(rules.Groups[0].Rules) < 10 {
		t.Fatalf("%+v, %v", rules, err)
	}
	runbook := string(must(os.ReadFile("README.md"))(t))
	_, runbook, _ = strings.Cut(runbook, "## When an alert fires")
	for _, r := range rules.Groups[0].Rules {
		if r.Expr == "" || !strings.Contains(runbook, r.Alert+" ") && !strings.Contains(runbook, r.Alert+",") {
			t.Errorf("%q is not in the runbook, or asks nothing", r.Alert)
		}
	}
}

// StatsD is told of a server's stakes.
func TestStatsDHearsStakes(t *testing.T) {
	udp := must(net.ListenPacket("udp", "127.0.0.1:0"))(t)
	defer udp.Close()
	s := start(t, t.TempDir(), "--statsd", udp.LocalAddr().String(), "--metrics-every", "50ms", "--metrics-prefix", "tote.")
	_, pools := s.game(1)
	c, _ := s.dial("Ada", 1000)
	const stakes = 7
	for i := range stakes {
		ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: proto.RequestID(100 + i), Pool: pools[0], Amount: 10})
	}
	staked := 0.0
	for datagram := make([]byte, 1<<16); staked < stakes; {
		if err := udp.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _, err := udp.ReadFrom(datagram)
		if err != nil {
			t.Fatalf("StatsD has heard of %v stakes: %v", staked, err)
		}
		for line := range strings.SplitSeq(string(datagram[:n]), "\n") {
			if number, ok := strings.CutPrefix(line, "tote.server_stake_answer_seconds.count:"); ok {
				staked += must(strconv.ParseFloat(strings.TrimSuffix(number, "|c"), 64))(t)
			}
		}
	}
	if staked != stakes {
		t.Errorf("StatsD has heard of %v stakes", staked)
	}
}

// The hottest game is the one in which the most happens, not the one in which the most people are.
func TestHottestGame(t *testing.T) {
	s := start(t, t.TempDir(), "--stakes-per-second", "0")
	crowded, _ := s.game(1)
	hot, pools := s.game(1)
	for range 5 {
		c, _ := s.dial("Watcher", 0)
		ask[*proto.Joined](t, c, proto.Request{Type: proto.RequestJoin, ID: 1, Game: crowded})
	}
	c, _ := s.dial("Ada", 100_000)
	ask[*proto.Joined](t, c, proto.Request{Type: proto.RequestJoin, ID: 1, Game: hot})
	stakes := uint64(0)
	for deadline := time.Now().Add(20 * time.Second); ; {
		ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: proto.RequestID(100 + stakes), Pool: pools[0], Amount: 2})
		stakes++
		active := map[proto.GameID]control.Active{}
		for _, g := range must(s.desk.Activity(t.Context()))(t).Games {
			active[g.Game] = g
		}
		if g := active[hot]; g.Stakes > stakes || active[crowded].Stakes != 0 || active[crowded].Present != 5 || g.Present != 1 {
			t.Fatalf("%d stakes were made, and there are %+v", stakes, active)
		} else if g.Stakes > 0 && g.SentBytes > 0 { // both are told with the odds
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody counts: %+v", active)
		}
	}
	top := exec.CommandContext(t.Context(), binary, "top", "--every", "500ms", "--times", "4", "--admin", s.desk.Base)
	var screen bytes.Buffer
	top.Stdout = &screen
	if err := top.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- top.Wait() }()
	for running := true; running; {
		ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: proto.RequestID(100 + stakes), Pool: pools[0], Amount: 2})
		stakes++
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			running = false
		case <-time.After(20 * time.Millisecond):
		}
	}
	screens := strings.Split(screen.String(), "hottest games\n")
	rows := strings.Split(screens[len(screens)-1], "\n")
	if len(rows) < 2 || !strings.HasPrefix(rows[0], fmt.Sprintf("%-8d ", hot)) || !strings.HasPrefix(rows[1], fmt.Sprintf("%-8d ", crowded)) {
		t.Errorf("the hottest game is not %d:\n%s", hot, &screen)
	}
	s.stop()
	s.audited()
}

// In a terminal, top shows the game, its players and their stakes, and gives the screen back.
func TestTopInATerminal(t *testing.T) {
	s := start(t, t.TempDir())
	game, pools := s.game(1)
	c, _ := s.dial("Ada", 1000)
	ask[*proto.Joined](t, c, proto.Request{Type: proto.RequestJoin, ID: 1, Game: game})
	ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: 2, Pool: pools[0], Amount: 10})
	top := fmt.Sprintf("stty cols 100 rows 40; exec %s top --every 200ms --times 3 --admin %s", binary, s.desk.Base)
	screen := string(must(exec.CommandContext(t.Context(), "script", "-qec", top, "/dev/null").Output())(t))
	for _, want := range []string{"\x1b[?1049h", "\x1b[?1049l", "connections         1 ", "arrival to receipt", "slowest readers", "half-open ", "segments ", "overflows ", "cookies ",
		fmt.Sprintf("%-8d ", game)} {
		if !strings.Contains(screen, want) {
			t.Errorf("the screen lacks %q:\n%s", want, screen)
		}
	}
	if n := strings.Count(screen, "\x1b[H"); n != 3 {
		t.Errorf("painted %d times", n)
	}
	for line := range strings.SplitSeq(screen, "\r\n") {
		line = regexp.MustCompile("\x1b\\[[?0-9;]*[A-Za-z]").ReplaceAllString(strings.TrimRight(line, "\r"), "") // the terminal adds one
		if len([]rune(line)) > 100 {
			t.Errorf("a line of %d columns: %s", len([]rune(line)), line)
		}
	}
	plain := string(must(exec.CommandContext(t.Context(), binary, "top", "--every", "200ms", "--times", "1", "--admin", s.desk.Base).Output())(t))
	if strings.Contains(plain, "\x1b") || !strings.Contains(plain, "connections         1 ") {
		t.Errorf("where there is no terminal: %q", plain)
	}
}
