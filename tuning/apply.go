package tuning

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// How long an operator may take to confirm.
const (
	confirmMin = 2 * time.Second
	confirmMax = time.Hour
)

// Apply makes the host what the plan says, or leaves it as it was:
//
//	write down ─▶ arm the guard ─▶ stage files ─▶ set knobs ─┬─────────────▶ place files ─▶ verify
//	                                                         └─ wait ─▶ Confirm ─▲
//
// With a time to confirm in, only the running kernel is changed until Confirm, so that the guard and a reboot both
// restore what was; without, it is done at once. Where an earlier apply stands it is undone first. It returns whether
// anything was to be done.
func Apply(root string, w Want, confirm time.Duration) (changed bool, err error) {
	if confirm != 0 && (confirm < confirmMin || confirm > confirmMax) {
		return false, fmt.Errorf("apply: %s to confirm; from %s to %s", confirm, confirmMin, confirmMax)
	}
	unlock, err := lock(root, false)
	if err != nil {
		return false, err
	}
	defer unlock()
	p, err := NewPlan(root, w)
	if err != nil {
		return false, err
	}
	earlier, err := readDeed(root)
	if err != nil {
		return false, err
	}
	switch {
	case earlier == nil:
	case earlier.Stage != applied:
		return false, errors.New(left(root))
	case earlier.is(p) && earlier.verify() == nil:
		return false, nil
	default:
		if err := earlier.undo(false); err != nil {
			return false, fmt.Errorf("undo the earlier apply: %w", err)
		}
	}
	if len(p.Knobs)+len(p.Files) == 0 {
		return false, nil
	}
	var deadline time.Time
	if confirm > 0 {
		deadline = time.Now().Add(confirm)
	}
	d, err := newDeed(root, p, deadline)
	if err != nil {
		return false, err
	}
	if err := d.do(); err != nil {
		return false, fmt.Errorf("apply: %w", errors.Join(err, d.takeBack()))
	}
	return true, nil
}

// is reports whether the deed did what the plan says.
func (d *deed) is(p *Plan) bool {
	same := d.Want == p.Want && len(d.Knobs) == len(p.Knobs) && len(d.Files) == len(p.Files)
	for i := 0; same && i < len(d.Knobs); i++ {
		same = d.Knobs[i].Key == p.Knobs[i].Key && d.Knobs[i].After == p.Knobs[i].After
	}
	for i := 0; same && i < len(d.Files); i++ {
		same = d.Files[i].Path == p.Files[i].Path && d.Files[i].Text == p.Files[i].Text
	}
	return same
}

// do carries out a deed that is written down.
func (d *deed) do() error {
	if !d.Deadline.IsZero() {
		if err := armGuard(d); err != nil {
			return err
		}
	}
	if err := d.stageFiles(); err != nil {
		return err
	}
	if err := d.setKnobs(); err != nil {
		return err
	}
	if d.Deadline.IsZero() {
		return d.finish()
	}
	d.Stage = unconfirmed
	return d.save()
}

// finish makes it last.
func (d *deed) finish() error {
	if err := d.placeFiles(); err != nil {
		return err
	}
	if err := reload(d.root); err != nil {
		return err
	}
	if err := d.verify(); err != nil {
		return err
	}
	d.Stage = applied
	return d.save()
}

// takeBack undoes what failed in the middle. What nobody could have told apart from ours meanwhile is restored as well.
func (d *deed) takeBack() error {
	if err := d.undo(true); err != nil {
		return fmt.Errorf("and what was done could not be undone, server tune revert tries again: %w", err)
	}
	return errors.New("nothing was changed")
}

// Confirm makes an apply last that waits for it.
func Confirm(root string) error {
	unlock, err := lock(root, false)
	if err != nil {
		return err
	}
	defer unlock()
	d, err := readDeed(root)
	switch {
	case err != nil:
		return err
	case d == nil:
		return errors.New("confirm: no apply waits; if one did, it has been reverted")
	case d.Stage == applied:
		return errors.New("confirm: the apply lasts already")
	case d.Stage != unconfirmed || !time.Now().Before(d.Deadline):
		return errors.New(left(root))
	}
	d.Stage = confirming
	if err := d.save(); err != nil {
		return fmt.Errorf("confirm: %w; the guard will revert", err)
	}
	if err := d.finish(); err != nil {
		return fmt.Errorf("confirm: %w", errors.Join(err, d.takeBack()))
	}
	return nil
}

// Revert restores what was before the apply, also one that was cut off anywhere. It returns false where there was
// none.
func Revert(root string, force bool) (changed bool, err error) {
	unlock, err := lock(root, false)
	if err != nil {
		return false, err
	}
	defer unlock()
	d, err := readDeed(root)
	if err != nil {
		return false, err
	}
	if d == nil { // or it was cut off before it was written down
		return false, (&deed{root: root, Made: []string{stateDir}}).forget()
	}
	return true, d.undo(force)
}

// lock keeps others out, until unlock or our death. It is on a directory that every host has, so that nothing is left behind.
func lock(root string, wait bool) (unlock func(), err error) {
	if filepath.Clean(root) == "/" && os.Geteuid() != 0 {
		return nil, errors.New("only root may change this host")
	}
	f, err := os.Open(filepath.Join(root, "etc"))
	if err != nil {
		return nil, fmt.Errorf("lock the host: %w", err)
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another server tune is at work")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the host: %w", err)
	}
	return func() { f.Close() }, nil
}

// reload has a running systemd read its units again.
func reload(root string) error {
	if !runsSystemd(root) {
		return nil
	}
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl daemon-reload: %w: %s", err, out)
	}
	return nil
}

// runsSystemd reports whether root is this very host, and systemd its first process (sd_booted(3)).
func runsSystemd(root string) bool {
	if filepath.Clean(root) != "/" {
		return false
	}
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}
