package tuning

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The guard is a process of its own that reverts an apply when its deadline passes and nobody has confirmed: when the
// new settings have cut the operator off. It is armed before the first change, and outlives the operator's session: under systemd
// as a transient service, which logind does not end with the session; elsewhere as the leader of its own session.

// guardPoll is how soon the guard goes when it is not needed any more.
const guardPoll = time.Second

// armGuard starts the guard of a deed and returns when it is on its post.
func armGuard(d *deed) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("arm the guard: %w", err)
	}
	root, err := filepath.Abs(d.root)
	if err != nil {
		return fmt.Errorf("arm the guard: %w", err)
	}
	args := []string{"tune", "guard", "--root", root, d.ID}
	if runsSystemd(d.root) {
		run := exec.Command("systemd-run", append([]string{"--quiet", "--collect", "--service-type=exec", "--unit=tote-tune-guard-" + d.ID, self}, args...)...)
		if out, err := run.CombinedOutput(); err != nil {
			return fmt.Errorf("arm the guard: systemd-run: %w: %s", err, out)
		}
		return nil
	}
	reads, writes, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("arm the guard: %w", err)
	}
	defer reads.Close()
	guard := exec.Command(self, args...)
	guard.Dir = "/"
	guard.Stdout = writes // the one thing that holds it open besides us
	guard.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	err = guard.Start()
	writes.Close()
	if err == nil {
		_, err = reads.Read(make([]byte, 1))
	}
	if err != nil {
		return fmt.Errorf("arm the guard: %w", err)
	}
	return guard.Process.Release()
}

// Guard waits for the deed of that id to be confirmed or reverted, and reverts it itself at its deadline, by force: that
// the operator can reach the host matters more than what somebody else has changed meanwhile. armed is called once it is
// on its post.
func Guard(root, id string, armed func()) error {
	d, err := readDeed(root)
	if err != nil {
		return err
	}
	if d == nil || d.ID != id || d.Deadline.IsZero() {
		return fmt.Errorf("guard: no apply %s waits to be confirmed", id)
	}
	armed()
	over := time.NewTimer(time.Until(d.Deadline))
	defer over.Stop()
	poll := time.NewTicker(guardPoll)
	defer poll.Stop()
	for waits := true; waits; {
		select {
		case <-poll.C:
			if d, err = readDeed(root); err == nil && (d == nil || d.ID != id || d.Stage == applied) {
				return nil
			}
		case <-over.C:
			waits = false
		}
	}
	unlock, err := lock(root, true)
	if err != nil {
		return err
	}
	defer unlock()
	if d, err = readDeed(root); err != nil || d == nil || d.ID != id || d.Stage == applied {
		return err
	}
	return d.undo(true)
}
