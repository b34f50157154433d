package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tote/server/proto/control"
)

// several is a server of two processes, as a script: one is a house, which this test binary is, the other sleeps.
const several = `#!/bin/sh
case $1 in
up)
	%[1]q serve --plant honest --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data $3 --guest-credits $5 >/dev/null 2>&1 &
	echo $! >$3/pids
	sleep 60 &
	echo $! >>$3/pids
	until test -s $3/addresses.json; do sleep 0.02; done
	sed 's|.*"admin":"\([^"]*\)".*"listen":"\([^"]*\)".*|{"url":"ws://\2/ws","admin":"http://\1","pids":['$(paste -sd, $3/pids)']}|' $3/addresses.json
	%[2]s ;;
audit) kill -0 $(cat $3/pids) ;; # while it is up
down) kill $(cat $3/pids) && sleep 0.2 ;;
serve) exec %[1]q "$@" ;;
esac
`

// contest is of houses; last is what the server of several processes does at the end of its start.
func contest(t *testing.T, rounds int, last string, names ...string) *Contest {
	t.Helper()
	s, err := readScenario([]byte("users = 20\nrate = \"500/s\"\nduration = \"1200ms\"\n[[games]]\nname = \"A\"\ncount = 1\nturnover = \"300ms\"\n"+
		"[players]\nthink = [\"10ms\", \"40ms\"]\ncredits = "+fmt.Sprint(houseCredits)), "")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "servers")
	if err := os.WriteFile(binary, fmt.Appendf(nil, several, self, last), 0o755); err != nil {
		t.Fatal(err)
	}
	c := &Contest{Scenario: s, Rounds: rounds, Stage: Stage{Binary: binary, Dir: t.TempDir(), NoLimits: true, patience: brief("").patience}}
	c.Stage.patience.desert = time.Second
	for _, name := range names {
		v := &Rival{Name: name, Serve: []string{"serve", "--plant", name}}
		switch name {
		case "several":
			v = &Rival{Name: name, Up: []string{"up"}, Audit: []string{"audit"}, Down: []string{"down"}}
		case "absent":
			v.Serve = []string{"absent"}
		}
		c.Rivals = append(c.Rivals, v)
	}
	return c
}

// Each server has its bouts, in another order each round; one that does not start or that dies loses them, and the others' count.
func TestContest(t *testing.T) {
	t.Parallel()
	c := contest(t, 2, "", string(honest), "several", string(cutAll), "absent")
	var order []string
	c.Told = func(b *Bout) {
		order = append(order, fmt.Sprint(b.Round, " ", b.Rival.Name))
		want := map[string]string{string(cutAll): "all connections were lost", "absent": "the server did not start"}[b.Rival.Name]
		switch {
		case want != "":
			if b.Wrong == nil || !strings.Contains(b.Wrong.Error(), want) {
				t.Errorf("%s: %v, want %q", b.Rival.Name, b.Wrong, want)
			}
			return
		case b.Wrong != nil:
			t.Errorf("%s, round %d: %v", b.Rival.Name, b.Round, b.Wrong)
			return
		}
		r := b.Report
		if err := r.Failed(); err != nil || r.Conditions.Round != b.Round || r.Stakes.Receipts == 0 || r.Server == nil || r.Server.RSSJoined == 0 {
			t.Errorf("%s, round %d: %v, %+v", b.Rival.Name, b.Round, err, r.Server)
		}
		if processes := map[bool]int{true: 2, false: 1}[b.Rival.Name == "several"]; len(r.Server.PIDs) != processes {
			t.Errorf("%s has processes %v", b.Rival.Name, r.Server.PIDs)
		}
	}
	bouts, err := c.Run(t.Context())
	if err != nil || len(bouts) != 8 {
		t.Fatalf("%d bouts, %v", len(bouts), err)
	}
	want := []string{"1 honest", "1 several", "1 cut all connections", "1 absent", "2 several", "2 cut all connections", "2 absent", "2 honest"}
	if !slices.Equal(order, want) {
		t.Errorf("in the order %q, want %q", order, want)
	}
	seeds := map[int]uint64{}
	for _, b := range bouts {
		if b.Report != nil {
			if seed := seeds[b.Round]; seed != 0 && seed != b.Report.Conditions.Seed {
				t.Errorf("round %d has seeds %d and %d", b.Round, seed, b.Report.Conditions.Seed)
			}
			seeds[b.Round] = b.Report.Conditions.Seed
		}
	}
	if seeds[1] == seeds[2] {
		t.Error("all rounds have one seed")
	}
	if left, _ := os.ReadDir(c.Stage.Dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What goes wrong with a server of several processes is said, and what there is of it ended.
func TestRivalOfSeveralProcesses(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, last, want string }{
		{"it fails behind its start", "echo no disk >&2; exit 3", "no disk"},
		{"it says something else", "echo and more", "invalid character"},
		{"one of its processes ends", "kill $!; wait $!; true", "ended by itself"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := contest(t, 1, row.last, "several")
			bouts, err := c.Run(t.Context())
			if err != nil || bouts[0].Wrong == nil || !strings.Contains(bouts[0].Wrong.Error(), row.want) {
				t.Fatalf("%v, %+v, want %q", err, bouts[0].Wrong, row.want)
			}
		})
	}
}

// A server that stands still is given up; the whole of a run's patience is known beforehand.
func TestContestEnds(t *testing.T) {
	s := Scenario{Users: 1000, Rate: 100, Depart: 50, Duration: Span(time.Minute)}
	if most := s.atMost(); most < time.Minute+10*time.Second+20*time.Second+patient.audit || most > 15*time.Minute {
		t.Errorf("%s", most)
	}
	if _, err := FindRival("nobody"); err == nil || !strings.Contains(err.Error(), "there are ours, comparator, baseline") {
		t.Error(err)
	}
	if v, err := FindRival("ours"); err != nil || v != &Rivals[0] {
		t.Errorf("%+v, %v", v, err)
	}
}

// A server that answers nothing any more does not hold up the end of a run.
func TestCroupierGivesUp(t *testing.T) {
	t.Parallel()
	ctx, end := context.WithCancel(t.Context())
	thaws := make(chan struct{})
	frozen := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		end() // the run is over, and a deed is under way
		<-thaws
	}))
	defer frozen.Close()
	defer close(thaws)
	f := fixtures{croupiers: []*croupier{{patience: 50 * time.Millisecond, desk: &control.Client{Base: frozen.URL}, every: time.Millisecond}}}
	if err := f.turn(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
