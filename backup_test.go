package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tote/server/bench"
	"tote/server/proto"
)

// holder is a player who keeps receipts.
type holder struct {
	token    string
	mu       sync.Mutex
	receipts map[proto.RequestID]proto.Seq
}

// play stakes until the server is gone.
func (h *holder) play(s *running, pool proto.PoolID, first proto.RequestID) {
	c, err := bench.Dial(s.t.Context(), s.players)
	if err != nil {
		return
	}
	defer c.Close()
	if _, err := c.Ask(proto.Request{Type: proto.RequestHello, Token: h.token}); err != nil {
		return
	}
	for id := first; id < first+500; id++ {
		reply, err := c.Ask(proto.Request{Type: proto.RequestStake, ID: id, Pool: pool, Amount: 2})
		if receipt, ok := reply.(*proto.Receipt); ok && err == nil {
			h.mu.Lock()
			h.receipts[id] = receipt.Prediction
			h.mu.Unlock()
		} else {
			return
		}
		time.Sleep(time.Millisecond) // the load lasts longer than the backup
	}
}

func (h *holder) held() map[proto.RequestID]proto.Seq {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.receipts)
}

// A backup is taken under load, the host is lost, and what was backed up serves: with every receipt of before the backup, under the same tokens,
// and with money that adds up.
func TestBackupAndDisaster(t *testing.T) {
	data, copied := t.TempDir(), filepath.Join(t.TempDir(), "backup")
	s := start(t, data, "--snapshot-at", "50", "--stakes-per-second", "0")
	_, pools := s.game(1)
	players := make([]*holder, 4)
	var playing sync.WaitGroup
	for i := range players {
		_, account := s.dial("Player", 10_000)
		players[i] = &holder{token: account.Token, receipts: map[proto.RequestID]proto.Seq{}}
		playing.Go(func() { players[i].play(s, pools[0], 1000) })
	}
	for len(players[0].held()) < 20 {
		time.Sleep(time.Millisecond)
	}
	var before []map[proto.RequestID]proto.Seq
	for _, h := range players {
		before = append(before, h.held())
	}
	out := must(exec.Command(binary, "ctl", "--admin", s.desk.Base, "backup", copied, "--rate", "500000").Output())(t)
	var said struct{ Files map[string]int64 }
	if err := json.Unmarshal(out, &said); err != nil || said.Files["store.db"] == 0 || said.Files["views.db"] == 0 {
		t.Fatalf("backup said %s, %v", out, err)
	}
	if len(players[0].held()) == len(before[0]) {
		t.Error("nobody could stake during the backup")
	}
	if shown := s.metrics(); shown["server_journal_backup"] == 0 || shown["server_backup_time_seconds"] < 1e9 {
		t.Errorf("record %v is backed up, at %v", shown["server_journal_backup"], shown["server_backup_time_seconds"])
	}
	if out, err := exec.Command(binary, "ctl", "--admin", s.desk.Base, "backup", copied).CombinedOutput(); err == nil || !strings.Contains(string(out), "it exists") {
		t.Errorf("a backup over another: %v, %s", err, out)
	}
	s.process.Process.Kill()
	s.gone()
	playing.Wait()

	for _, row := range []struct {
		name   string
		happen func(data string) error
		says   string // the server, when it is started as it is; empty: it starts
	}{
		{"the disk is lost", os.RemoveAll, ""},
		{"store.db is damaged", func(data string) error { return scribble(filepath.Join(data, "store.db")) }, "restore"},
		{"views.db is damaged", func(data string) error { return scribble(filepath.Join(data, "views.db")) }, "restore"},
		{"views.db is lost", func(data string) error { return os.Remove(filepath.Join(data, "views.db")) }, "restore"},
	} {
		t.Run(row.name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			run(t, "cp", "-a", s.data, data)
			if err := row.happen(data); err != nil {
				t.Fatal(err)
			}
			if row.says != "" {
				out, err := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data).CombinedOutput()
				if err == nil || !strings.Contains(string(out), row.says) {
					t.Errorf("the server started, or did not say what to do: %v, %s", err, out)
				}
			}
			// As the runbook has it.
			if err := os.RemoveAll(data); err != nil {
				t.Fatal(err)
			}
			run(t, "cp", "-a", copied, data)
			run(t, binary, "audit", "--data", data)
			restored := start(t, data)
			for i, h := range players {
				c := restored.hello(h.token)
				listed := map[proto.RequestID]proto.Seq{}
				for _, p := range ask[*proto.Predictions](t, c, proto.Request{Type: proto.RequestPredictions}).Predictions {
					listed[p.ID] = p.Prediction
				}
				for id, prediction := range before[i] {
					if listed[id] != prediction {
						t.Errorf("request %d was prediction %d before the backup, and is %d", id, prediction, listed[id])
					}
				}
				for id, prediction := range listed {
					if told, ok := h.receipts[id]; ok && told != prediction {
						t.Errorf("request %d was prediction %d, and is %d", id, told, prediction)
					}
				}
				ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: 9000, Pool: pools[0], Amount: 2})
				c.Close()
			}
			restored.stop()
			restored.audited()
		})
	}
}

// scribble damages every page of a file but the first two, as a disk may.
func scribble(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for at := 2 * 4096; at < len(b); at += 4096 {
		copy(b[at:], "scribbled over, all of it")
	}
	return os.WriteFile(file, b, 0o600)
}

// Without ctl, a backup is a tar file with the sums that sha256sum checks.
func TestBackupIsTar(t *testing.T) {
	s := start(t, t.TempDir())
	c, _ := s.dial("Ada", 1000)
	_, pools := s.game(1)
	ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: 1, Pool: pools[0], Amount: 10})
	response := must(http.Get(s.desk.Base + "/v1/backup"))(t)
	defer response.Body.Close()
	to := t.TempDir()
	if err := os.WriteFile(filepath.Join(to, "backup.tar"), must(io.ReadAll(response.Body))(t), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "sh", "-ec", "cd "+to+" && tar xf backup.tar && rm backup.tar && sha256sum --strict -c SHA256SUMS")
	if out := run(t, binary, "audit", "--data", to); !strings.Contains(out, `"pools":10,`) {
		t.Errorf("the copy has %s", out)
	}
	if refused := must(http.Get(s.desk.Base + "/v1/backup?rate=fast"))(t); refused.StatusCode != http.StatusBadRequest {
		t.Errorf("a rate that is no number: %d", refused.StatusCode)
	}
}

// A server that is asked to stop waits for no backup, and what was copied by then is not taken for one.
func TestBackupThatIsCutOff(t *testing.T) {
	s := start(t, t.TempDir())
	s.game(1)
	parent := t.TempDir()
	command := exec.Command(binary, "ctl", "--admin", s.desk.Base, "backup", filepath.Join(parent, "backup"), "--rate", "2000")
	var said strings.Builder
	command.Stderr = &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	for len(must(os.ReadDir(parent))(t)) == 0 {
		time.Sleep(time.Millisecond)
	}
	s.stop()
	if err := command.Wait(); err == nil || said.Len() == 0 {
		t.Errorf("half a backup: %v, %s", err, &said)
	}
	if left := must(os.ReadDir(parent))(t); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	if err := <-s.exited; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	s.exited <- nil
	s.audited()
}
