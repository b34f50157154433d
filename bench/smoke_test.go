package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"tote/server/proto"
	"tote/server/proto/control"
)

// TestMain lets this test binary be the server that TestSmoke starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serveHouse(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serveHouse is `server serve` with a house behind it, and as much of the admin listener as Smoke and Scenario.Run need. It has
// one flag more, for what the house shall do wrong.
func serveHouse(args []string) error {
	flags := map[string]string{}
	for i := 0; i+1 < len(args); i += 2 {
		flags[args[i]] = args[i+1]
	}
	if flags["--guest-credits"] != fmt.Sprint(houseCredits) {
		return fmt.Errorf("unexpected flags %q", args)
	}
	h := &house{plant: plant(flags["--plant"])}
	listen, end, err := h.listen()
	if err != nil {
		return err
	}
	defer end()
	admin, err := net.Listen("tcp", flags["--admin"])
	if err != nil {
		return err
	}
	go http.Serve(admin, h.desk()) // ends with the process
	addresses, err := json.Marshal(map[string]string{"listen": listen, "admin": admin.Addr().String()})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(flags["--data"], "addresses.json"), addresses, 0o644); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.guests {
		body := ws.NewCloseFrameBody(ws.StatusCode(proto.CloseRestart), proto.RestartReason(proto.Second))
		ws.WriteFrame(g.conn, ws.NewCloseFrame(body))
	}
	return nil
}

// desk is the house's admin listener. The houses' game is there from the beginning; opening one names it.
func (h *house) desk() http.Handler {
	mux := http.NewServeMux()
	handle := func(path string, do func(r *http.Request) proto.Answer) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			h.mu.Lock()
			defer h.mu.Unlock()
			json.NewEncoder(w).Encode(do(r))
		})
	}
	pool := func(r *http.Request) *proto.Pool {
		id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
		if err != nil {
			panic(err)
		}
		return h.pool(proto.PoolID(id))
	}
	handle(control.PathGames, func(*http.Request) proto.Answer { return proto.Answer{Game: houseGame} })
	handle(control.PathGameEvents, func(*http.Request) proto.Answer { return proto.Answer{} })
	handle(control.PathGamePools, func(*http.Request) proto.Answer {
		p := h.addPool()
		h.broadcast(&proto.Opened{Pool: *p})
		return proto.Answer{Pool: p.Pool}
	})
	handle(control.PathPoolLock, func(r *http.Request) proto.Answer {
		h.lock(pool(r))
		return proto.Answer{}
	})
	handle(control.PathPoolVoid, func(r *http.Request) proto.Answer {
		h.void(pool(r))
		return proto.Answer{}
	})
	mux.HandleFunc("GET "+control.PathHealth, func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET "+control.PathMetrics, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, `server_money_units{where="accounts"} 0`) // it keeps no sums: it pays what it likes
	})
	handle(control.PathPoolSettle, func(r *http.Request) proto.Answer {
		var s proto.Settlement
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			panic(err)
		}
		h.settle(pool(r), s.Winners[0])
		return proto.Answer{}
	})
	return mux
}

func smokeOf(t *testing.T, binary string) SmokeConfig {
	plan := brief("")
	return SmokeConfig{
		Binary: binary, Dir: t.TempDir(), Users: plan.Users, StakeRate: 200, Duration: time.Second, Interval: houseInterval,
		Turnover: 200 * time.Millisecond, Credits: houseCredits, patience: plan.patience,
	}
}

func TestSmoke(t *testing.T) {
	for _, row := range []struct {
		plant plant
		want  string // in the error
	}{
		{honest, ""},
		{loseReceipt, promises[checkReply]},
	} {
		t.Run(string(row.plant), func(t *testing.T) {
			t.Parallel()
			binary, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			c := smokeOf(t, binary)
			c.Args = []string{"--plant", string(row.plant)}
			if row.plant == loseReceipt { // for which the run waits as long as it may
				c.patience.quiet = 300 * time.Millisecond
			}
			report, err := Smoke(t.Context(), c)
			switch {
			case report == nil:
				t.Fatal(err)
			case row.want == "" && (err != nil || report.Stakes.Payouts == 0):
				t.Errorf("%d payouts, %v", report.Stakes.Payouts, err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("%v, want %q", err, row.want)
			}
			if left, _ := os.ReadDir(c.Dir); len(left) > 0 {
				t.Errorf("the data directory is left: %v", left)
			}
		})
	}
}

func TestSmokeSaysWhyThereIsNoServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, row := range []struct{ name, binary, want string }{
		{"no binary", filepath.Join(dir, "nothing"), "start the server"},
		{"it ends at once", script("ends", "echo unknown flag >&2; exit 3"), "exit status 3\nunknown flag"},
	} {
		t.Run(row.name, func(t *testing.T) {
			report, err := Smoke(t.Context(), smokeOf(t, row.binary))
			if report != nil || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}

// A run in which little happens breaks no promise, and proves none.
func TestSmokeIsNotContentWithLittle(t *testing.T) {
	c := SmokeConfig{StakeRate: 100, Interval: time.Second, Pools: 1}
	enough := Report{Conditions: Conditions{Played: 10}}
	enough.Stakes.Planned, enough.Stakes.Receipts, enough.Stakes.Late = 1000, 940, 15
	enough.Delivered.Broadcasts = 10
	if err := c.enough(&enough); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(r *Report){
		"949 stakes":     func(r *Report) { r.Stakes.Late = 9 },
		"0 were planned": func(r *Report) { r.Stakes = Stakes{} },
		"4 broadcasts":   func(r *Report) { r.Delivered.Broadcasts = 4 },
		"stopped":        func(r *Report) { r.Stopped = true },
	} {
		r := enough
		change(&r)
		if err := c.enough(&r); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLastLinesKeepsTheEnd(t *testing.T) {
	var l lastLines
	for i := range 1000 {
		fmt.Fprintf(&l, "line %d of the log\n", i)
	}
	got := l.String()
	if len(got) > lastLinesMax || !strings.HasPrefix(got, "line ") || !strings.HasSuffix(got, "line 999 of the log") {
		t.Errorf("%d bytes: %.40q … %q", len(got), got, got[len(got)-30:])
	}
}
