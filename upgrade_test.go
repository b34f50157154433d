package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws/wsutil"

	"tote/server/bench"
	"tote/server/proto"
	"tote/server/proto/control"
)

// casino is where claimants play while processes come and go.
type casino struct {
	s        *running
	crowd    []*claimant
	pools    []proto.PoolID
	over     atomic.Bool
	last     atomic.Bool // whoever is told to come back does not
	receipts atomic.Int64
	told     atomic.Int64 // times that somebody was told to come back
	welcome  atomic.Int64 // times that somebody came
	playing  sync.WaitGroup
}

// openCasino lets players stake as fast as the answers come.
func openCasino(t *testing.T, s *running, players int) *casino {
	b := &casino{s: s}
	_, b.pools = s.game(3)
	for i := range players {
		opened := must(s.desk.OpenAccount(t.Context(), proto.AccountOpening{Name: fmt.Sprint("player ", i), Deposit: 1_000_000}))(t)
		k := &claimant{token: opened.Token, account: opened.Account, credits: 1_000_000,
			claims: map[proto.RequestID]proto.Receipt{}, asked: map[proto.RequestID]proto.Request{}}
		b.crowd = append(b.crowd, k)
		r := rand.New(rand.NewPCG(uint64(i), 2))
		b.playing.Go(func() { b.play(t, k, r) })
	}
	b.more(t)
	return b
}

// play is one player's: whenever it is told to go it comes back when it was told to. Nobody ever refuses its connection, and nothing
// else ends one.
func (b *casino) play(t *testing.T, k *claimant, r *rand.Rand) {
	var epoch uint64
	for !b.over.Load() && !t.Failed() {
		c, err := bench.Dial(t.Context(), b.s.players)
		if err != nil {
			t.Errorf("account %d cannot come back: %v", k.account, err)
			return
		}
		hello, err := c.Ask(proto.Request{Type: proto.RequestHello, Token: k.token})
		welcome, ok := hello.(*proto.Welcome)
		if ok && welcome.Epoch <= epoch {
			t.Errorf("account %d comes from epoch %d and is in %d", k.account, epoch, welcome.Epoch)
		}
		b.welcome.Add(1)
		for n := uint64(0); ok && err == nil && !b.over.Load() && !t.Failed(); {
			epoch = welcome.Epoch
			_, repeated := k.asked[k.next]
			if n, err = k.stake(t, c, b.pools, r, n, repeated); err == nil {
				b.receipts.Add(1)
				time.Sleep(2 * time.Millisecond)
			}
		}
		var closed wsutil.ClosedError
		if errors.As(err, &closed) && closed.Code == 1012 {
			delay, ok := proto.RestartDelay(closed.Reason)
			if !ok {
				t.Errorf("account %d is told %q", k.account, closed.Reason)
			}
			b.told.Add(1)
			if b.last.Load() {
				return
			}
			time.Sleep(time.Duration(delay) * time.Microsecond)
		} else if err != nil {
			t.Errorf("account %d: %v", k.account, err)
		}
		c.Close()
	}
}

// stake makes a stake, or repeats the one that was never answered, and checks that no private message is missing since number n of this
// process; 0 is not known.
func (k *claimant) stake(t *testing.T, c *bench.Client, pools []proto.PoolID, r *rand.Rand, n uint64, repeated bool) (uint64, error) {
	request := proto.Request{Type: proto.RequestStake, Pool: pools[r.IntN(len(pools))], Outcome: proto.Outcome(r.IntN(3)), Amount: proto.Amount(2 + r.IntN(9))}
	if repeated {
		request = k.asked[k.next]
	} else {
		k.next++
	}
	request.ID = k.next
	k.asked[request.ID] = request
	reply, err := c.Ask(request)
	if err != nil {
		return n, err
	}
	receipt, ok := reply.(*proto.Receipt)
	if !ok {
		return n, fmt.Errorf("%s was answered %s", request.AppendJSON(nil), reply.AppendJSON(nil))
	}
	if n != 0 && receipt.N != n+1 {
		t.Errorf("account %d: private message %d follows %d", k.account, receipt.N, n)
	}
	k.claims[request.ID] = *receipt
	delete(k.asked, request.ID)
	return receipt.N, nil
}

// more waits until everybody is back and has played some more, on average.
func (b *casino) more(t *testing.T) {
	t.Helper()
	eventually(t, "all are back", func() bool { return b.welcome.Load() == b.told.Load()+int64(len(b.crowd)) || t.Failed() })
	goal := b.receipts.Load() + int64(3*len(b.crowd))
	eventually(t, "they play on", func() bool { return b.receipts.Load() >= goal || t.Failed() })
}

// end ends the play, and compares everybody's receipts with what the server has.
func (b *casino) end() {
	b.over.Store(true)
	b.playing.Wait()
	for _, k := range b.crowd {
		k.verify(b.s)
	}
}

// upgrade runs `server upgrade`, and remembers the new process.
func (s *running) upgrade(arguments ...string) (said string, pid int, err error) {
	s.t.Helper()
	before := must(s.desk.Process(s.t.Context()))(s.t)
	out, err := exec.Command(binary, append([]string{"upgrade", "--admin", s.desk.Base}, arguments...)...).CombinedOutput()
	now := must(s.desk.Process(s.t.Context()))(s.t)
	if now.PID != before.PID {
		s.t.Cleanup(func() { syscall.Kill(now.PID, syscall.SIGKILL) }) // nobody's child by now
	}
	return string(out), now.PID, err
}

// ends asks a process that is not our child to stop, and audits what it leaves: as long as it is there, the audit is refused.
func (s *running) ends(pid int, audit ...string) (found struct{ Money map[string]int64 }) {
	s.t.Helper()
	must(0, syscall.Kill(pid, syscall.SIGTERM))(s.t)
	var out []byte
	eventually(s.t, "the server ends", func() (ok bool) {
		var err error
		out, err = exec.Command(binary, append([]string{"audit", "--data", s.data}, audit...)...).Output()
		return err == nil
	})
	must(0, json.Unmarshal(out, &found))(s.t)
	return found
}

// Twice another binary takes over from a server that plays: nobody is refused, nobody loses a receipt, the numbers of private messages have no gaps,
// and the journal is one chain.
func TestUpgrade(t *testing.T) {
	const players, upgrades = 24, 2
	s := start(t, t.TempDir(), "--stakes-per-second", "0", "--snapshot-at", "1000")
	b := openCasino(t, s, players)
	watcher, _ := s.dial("Watcher", 10)
	game, pools := s.game(1)
	ask[*proto.Joined](t, watcher, proto.Request{Type: proto.RequestJoin, Game: game})
	must(s.desk.Lock(t.Context(), pools[0], 0))(t)
	must(s.desk.Settle(t.Context(), pools[0], 0))(t)
	var sealed *proto.Sealed
	for sealed == nil {
		sealed, _ = must(watcher.Receive())(t).(*proto.Sealed)
	}
	watcher.Close()

	other := filepath.Join(t.TempDir(), "newer")
	must(0, os.WriteFile(other, must(os.ReadFile(binary))(t), 0o755))(t)
	pid := must(s.desk.Process(t.Context()))(t).PID
	for i := range upgrades {
		arguments := []string{"--drain", "100ms", "--spread", "300ms"}
		if i == 0 {
			arguments = append(arguments, "--binary", other)
		}
		said, now, err := s.upgrade(arguments...)
		if err != nil || now == pid {
			t.Fatalf("process %d after %d: %v: %s", now, pid, err, said)
		}
		if path := must(os.Readlink(fmt.Sprintf("/proc/%d/exe", now)))(t); path != other {
			t.Errorf("it runs %s", path)
		}
		pid = now
		b.more(t)
	}
	s.gone() // the first process, whose child was the second
	b.end()
	if n := b.told.Load(); n != players*upgrades {
		t.Errorf("%d times somebody was told to come back, %d expected", n, players*upgrades)
	}
	money := s.ends(pid, "--seal", fmt.Sprintf("%d:%s", sealed.Record, sealed.Head)).Money
	if money["deposits"] != players*1_000_000+10 || money["accounts"]+money["pools"]+money["house"] != money["deposits"] {
		t.Errorf("the money: %v", money)
	}
	t.Logf("%d receipts", b.receipts.Load())
}

// What cannot take over does not, and nobody notices; what fails when everything is closed is replaced by the binary that was there before.
func TestUpgradeThatFails(t *testing.T) {
	s := start(t, t.TempDir(), "--stakes-per-second", "0")
	b := openCasino(t, s, 8)
	pid := must(s.desk.Process(t.Context()))(t).PID
	dir := t.TempDir()
	program := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(0, os.WriteFile(path, []byte("#!/bin/sh\n"+text), mode))(t)
		must(0, os.Chmod(path, mode))(t)
		return path
	}
	introduced := func(formats any) string { // names are in their order, so the socket to the predecessor is the first
		line := must(json.Marshal(map[string]any{"introduction": map[string]any{"version": "another", "formats": formats}}))(t)
		return "echo '" + string(line) + "' >&3\n"
	}
	for _, row := range []struct{ name, binary, want string }{
		{"no file", filepath.Join(dir, "none"), "no such file"},
		{"a directory", dir, "no program"},
		{"everybody's file", program("open", "exit 0", 0o777), "others may write it"},
		{"no server", program("false", "exit 3", 0o755), "exit status 3"},
		{"another format", program("old", introduced(map[string]int{"the journal": formats["the journal"], "snapshots": 1})+"exec sleep 60", 0o755), "it reads snapshots of format 1"},
		{"one that complains", program("lame", `echo '{"failed":"no limbs"}' >&3`, 0o755), "no limbs"},
	} {
		said, now, err := s.upgrade("--binary", row.binary)
		if err == nil || !strings.Contains(said, row.want) || now != pid {
			t.Errorf("%s: process %d after %d, %v: %s", row.name, now, pid, err, said)
		}
	}
	if _, err := s.desk.Upgrade(t.Context(), control.Upgrade{Binary: "server"}); err == nil {
		t.Error("a path from wherever the server is at home is taken")
	}
	b.more(t)
	if n := b.told.Load(); n != 0 {
		t.Errorf("%d times somebody was told to come back", n)
	}

	audited := filepath.Join(dir, "audited")
	said, now, err := s.upgrade("--spread", "100ms", "--binary", program("weak",
		introduced(formats)+"read yours <&3\n"+binary+" audit --data "+s.data+" >"+audited+" 2>&1\nexit 4", 0o755))
	if err == nil || !strings.Contains(said, "could not take over") || now == pid {
		t.Errorf("process %d after %d, %v: %s", now, pid, err, said)
	}
	if text := must(os.ReadFile(audited))(t); !strings.Contains(string(text), "another server holds this directory") {
		t.Errorf("between two processes a third one opens the data: %s", text)
	}
	b.more(t)
	b.end()
	s.ends(now)
}

// A server that is told to stop while everybody plays tells everybody to come back, ends in order, and has every receipt that anybody holds.
func TestStopUnderPlay(t *testing.T) {
	const players = 50
	s := start(t, t.TempDir(), "--stakes-per-second", "0")
	b := openCasino(t, s, players)
	b.last.Store(true)
	s.stop()
	err := <-s.exited
	s.exited <- err
	if err != nil {
		t.Errorf("it ended with %v", err)
	}
	b.playing.Wait()
	if n := b.told.Load(); n != players {
		t.Errorf("%d of %d were told to come back", n, players)
	}
	b.s = start(t, s.data)
	b.end()
}
