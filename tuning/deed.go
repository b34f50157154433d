package tuning

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// deed is one apply: what it changes, and what was there before. It is on the disk before the first change and goes when
// everything is undone, so that whoever comes after a crash knows all that may have been touched. Each thing touched shows by
// itself whether it was, so nothing is noted on the way:
//
//	            before          touched                    undone by
//	knob        value before    value after                writing the value before
//	new file    absent          text after                 removing it
//	old file    NAME            NAME, .NAME.tote-before    renaming it back: the same inode, no space needed
//
// Files are first written under other names, since only that may find the disk full.
type deed struct {
	Want
	ID       string       `json:"id"`
	Stage    stage        `json:"stage"`
	Deadline time.Time    `json:"deadline,omitzero"` // of confirming; none: it needs none
	Knobs    []KnobChange `json:"knobs"`
	Files    []FileChange `json:"files"`
	Made     []string     `json:"made"` // directories above this file that were not there

	root string
}

// stage is how far an apply has come.
type stage string

const (
	begun       stage = "begun"
	unconfirmed stage = "unconfirmed" // the kernel is set, the files wait: a reboot is a revert
	confirming  stage = "confirming"
	applied     stage = "applied"
	undoing     stage = "undoing" // told by the file's name: a rename needs no space on a full disk
)

const (
	stateDir = "var/lib/tote-tune"
	deedFile = stateDir + "/deed.json"
	undoFile = stateDir + "/undoing.json"
)

// readDeed returns what an apply has left, or nil.
func readDeed(root string) (*deed, error) {
	d := &deed{root: root}
	for _, name := range []string{deedFile, undoFile} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(b, d)
		}
		if err != nil {
			return nil, fmt.Errorf("read what an earlier apply has changed: %w", err)
		}
		if name == undoFile {
			d.Stage = undoing
		}
		return d, nil
	}
	return nil, nil
}

// save puts the deed on the disk, whole or not at all.
func (d *deed) save() error {
	b, err := json.MarshalIndent(d, "", "  ")
	if err == nil {
		err = writeSynced(d.path(deedFile+".new"), b, 0o600)
	}
	if err == nil {
		err = rename(d.path(deedFile+".new"), d.path(deedFile))
	}
	if err != nil {
		return fmt.Errorf("write down what will be changed: %w", err)
	}
	return nil
}

func (d *deed) path(name string) string { return filepath.Join(d.root, name) }

// before returns the knobs' values from before.
func (d *deed) before() (map[string][]uint64, error) {
	values := map[string][]uint64{}
	for _, c := range d.Knobs {
		numbers, err := parseNumbers(c.Before)
		if err != nil {
			return nil, fmt.Errorf("read %s from an earlier apply: %w", c.Key, err)
		}
		values[c.Key] = numbers
	}
	return values, nil
}

// newDeed writes down a plan and what it will replace, in the deed and on the disk.
func newDeed(root string, p *Plan, deadline time.Time) (*deed, error) {
	d := &deed{Want: p.Want, ID: fmt.Sprint(time.Now().UnixNano()), Stage: begun, Deadline: deadline, root: root,
		Knobs: slices.Clone(p.Knobs), Files: slices.Clone(p.Files)}
	for i := range d.Knobs {
		b, err := os.ReadFile(d.knobPath(&d.Knobs[i]))
		if err != nil {
			return nil, fmt.Errorf("remember %s: %w", d.Knobs[i].Key, err)
		}
		d.Knobs[i].Before = string(b)
	}
	for i := range d.Files {
		sum, err := sumOf(d.path(d.Files[i].Path))
		if err != nil {
			return nil, fmt.Errorf("remember %s: %w", d.Files[i].Path, err)
		}
		d.Files[i].Before = sum
		d.Files[i].Made = missing(root, filepath.Dir(d.Files[i].Path))
	}
	d.Made = missing(root, stateDir)
	if err := os.MkdirAll(d.path(stateDir), 0o755); err != nil {
		return nil, fmt.Errorf("make a place to write down what will be changed: %w", err)
	}
	if err := d.save(); err != nil {
		return nil, errors.Join(err, d.forget())
	}
	return d, nil
}

// missing lists the directories down to name that are not there, the uppermost first.
func missing(root, name string) (dirs []string) {
	for ; name != "." && name != "/"; name = filepath.Dir(name) {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			return dirs
		}
		dirs = append([]string{name}, dirs...)
	}
	return dirs
}

func (d *deed) knobPath(c *KnobChange) string { return (&Host{root: d.root}).sysctlPath(c.Key) }

func (f *FileChange) staged() string { return beside(f.Path, ".tote-new") }
func (f *FileChange) kept() string   { return beside(f.Path, ".tote-before") }

// beside is a hidden name in the same directory, which no *.conf matches.
func beside(path, suffix string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+suffix)
}

// stageFiles writes all files under their hidden names.
func (d *deed) stageFiles() error {
	for i := range d.Files {
		f := &d.Files[i]
		err := os.MkdirAll(d.path(filepath.Dir(f.Path)), 0o755)
		if err == nil {
			err = writeSynced(d.path(f.staged()), []byte(f.Text), 0o644)
		}
		if err != nil {
			return fmt.Errorf("write /%s: %w", f.Path, err)
		}
	}
	return nil
}

// setKnobs sets the running kernel, and reads back what it made of it.
func (d *deed) setKnobs() error {
	for i := range d.Knobs {
		c := &d.Knobs[i]
		if err := d.setKnob(c, c.After); err != nil {
			return err
		}
	}
	return nil
}

func (d *deed) setKnob(c *KnobChange, value string) error {
	path := d.knobPath(c)
	if err := writeKnob(path, value); err != nil {
		return fmt.Errorf("set %s to %q: %w", c.Key, value, err)
	}
	now, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s back: %w", c.Key, err)
	}
	if !sameValue(string(now), value) {
		return fmt.Errorf("set %s to %q: the kernel made %q of it", c.Key, value, strings.TrimSpace(string(now)))
	}
	return nil
}

// placeFiles gives the files their names.
func (d *deed) placeFiles() error {
	for i := range d.Files {
		f := &d.Files[i]
		if f.Before != "" {
			if err := os.Link(d.path(f.Path), d.path(f.kept())); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("keep /%s: %w", f.Path, err)
			}
		}
		if err := rename(d.path(f.staged()), d.path(f.Path)); err != nil {
			return fmt.Errorf("put /%s in place: %w", f.Path, err)
		}
	}
	return nil
}

// verify reads everything back.
func (d *deed) verify() error {
	for i := range d.Knobs {
		if is, err := d.knobState(&d.Knobs[i]); err != nil || is != touched && is != unneeded {
			return fmt.Errorf("%s is not what it was set to (%v)", d.Knobs[i].Key, err)
		}
	}
	for i := range d.Files {
		if is, err := d.fileState(&d.Files[i]); err != nil || is != touched {
			return fmt.Errorf("/%s is not what was written (%v)", d.Files[i].Path, err)
		}
	}
	return nil
}

// state is whether a thing was touched.
type state int

const (
	untouched state = iota
	touched
	unneeded // before and after are the same
	foreign  // somebody else has changed it since
)

func (d *deed) knobState(c *KnobChange) (state, error) {
	b, err := os.ReadFile(d.knobPath(c))
	switch now := string(b); {
	case err != nil:
		return foreign, err
	case sameValue(now, c.Before) && sameValue(now, c.After):
		return unneeded, nil
	case sameValue(now, c.Before):
		return untouched, nil
	case sameValue(now, c.After):
		return touched, nil
	}
	return foreign, nil
}

func (d *deed) fileState(f *FileChange) (state, error) {
	sum, err := sumOf(d.path(f.Path))
	after := sha256.Sum256([]byte(f.Text))
	_, keeps := os.Lstat(d.path(f.kept()))
	switch {
	case err != nil:
		return foreign, err
	case sum == hex.EncodeToString(after[:]) && (f.Before == "" || keeps == nil):
		return touched, nil
	case sum == f.Before:
		return untouched, nil
	}
	return foreign, nil
}

// undo restores everything, in the reverse order, however far the deed had come; it may be repeated. Where somebody else has
// changed what we had set, it changes nothing at all and says so, unless forced.
func (d *deed) undo(force bool) error {
	if !force {
		if theirs := d.foreign(); len(theirs) > 0 {
			return fmt.Errorf("since the apply somebody else has changed %s: look at it, then server tune revert --force", strings.Join(theirs, ", "))
		}
	}
	failed := rename(d.path(deedFile), d.path(undoFile))
	if errors.Is(failed, fs.ErrNotExist) { // an undoing that was cut off
		failed = nil
	}
	for i := len(d.Files) - 1; i >= 0; i-- {
		if err := d.restoreFile(&d.Files[i]); err != nil {
			failed = errors.Join(failed, fmt.Errorf("restore /%s: %w", d.Files[i].Path, err))
		}
	}
	for i := len(d.Knobs) - 1; i >= 0; i-- {
		c := &d.Knobs[i]
		if now, err := os.ReadFile(d.knobPath(c)); err == nil && string(now) == c.Before {
			continue
		}
		failed = errors.Join(failed, d.setKnob(c, c.Before))
	}
	if failed == nil {
		failed = reload(d.root)
	}
	if failed != nil {
		return fmt.Errorf("revert: %w", failed)
	}
	return d.forget()
}

// foreign lists what is neither as it was nor as we set it.
func (d *deed) foreign() (theirs []string) {
	for i := range d.Knobs {
		if is, _ := d.knobState(&d.Knobs[i]); is == foreign {
			theirs = append(theirs, d.Knobs[i].Key)
		}
	}
	for i := range d.Files {
		if is, _ := d.fileState(&d.Files[i]); is == foreign {
			theirs = append(theirs, "/"+d.Files[i].Path)
		}
	}
	return theirs
}

func (d *deed) restoreFile(f *FileChange) error {
	if err := remove(d.path(f.staged())); err != nil {
		return err
	}
	kept, err := os.Lstat(d.path(f.kept()))
	switch {
	case err == nil:
		if now, err := os.Lstat(d.path(f.Path)); err == nil && os.SameFile(kept, now) {
			return remove(d.path(f.kept())) // a rename between two names of one file does nothing
		}
		return rename(d.path(f.kept()), d.path(f.Path))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case f.Before == "":
		if err := remove(d.path(f.Path)); err != nil {
			return err
		}
		return removeDirs(d.root, f.Made)
	}
	return nil // it was never touched
}

// forget removes the deed, and the directories that were made for it and are empty now.
func (d *deed) forget() error {
	err := errors.Join(remove(d.path(deedFile+".new")), remove(d.path(deedFile)), remove(d.path(undoFile)))
	if err == nil {
		err = removeDirs(d.root, d.Made)
	}
	return err
}

// left says what an apply has left half done, and "" where nothing is.
func left(root string) string {
	d, err := readDeed(root)
	switch {
	case err != nil:
		return err.Error()
	case d == nil || d.Stage == applied:
		return ""
	case d.Stage == unconfirmed && time.Now().Before(d.Deadline):
		return fmt.Sprintf("an apply for %s connections waits until %s to be confirmed (server tune confirm), and is reverted otherwise",
			count(d.Connections), d.Deadline.Format(time.TimeOnly))
	}
	knobs, files := 0, 0
	for i := range d.Knobs {
		if is, _ := d.knobState(&d.Knobs[i]); is == touched {
			knobs++
		}
	}
	for i := range d.Files {
		if is, _ := d.fileState(&d.Files[i]); is == touched {
			files++
		}
	}
	return fmt.Sprintf("an apply for %s connections is half done: %d of %d knobs set, %d of %d files in place; server tune revert restores all of it",
		count(d.Connections), knobs, len(d.Knobs), files, len(d.Files))
}

// sumOf is the SHA-256 of a file, or "" where there is none.
func sumOf(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// sameValue compares a knob's values: the kernel writes tabs and an end of line.
func sameValue(a, b string) bool { return slices.Equal(strings.Fields(a), strings.Fields(b)) }

// writeKnob sets a knob by one write, as the kernel takes it. In an image it is an ordinary file with a size: what was longer is
// overwritten with spaces before it is cut, so that a kill in between leaves a value and not a piece of one.
func writeKnob(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteString(value + strings.Repeat(" ", max(int(info.Size())-len(value), 0)))
	}
	if err == nil && info.Size() > int64(len(value)) {
		err = f.Truncate(int64(len(value)))
	}
	return errors.Join(err, f.Close())
}

func writeSynced(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
}

// rename is durable when it returns.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// remove is, too; what is not there is removed already.
func remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeDirs removes directories that we made, the innermost first, as far as nobody else uses them.
func removeDirs(root string, made []string) error {
	for _, dir := range slices.Backward(made) {
		err := os.Remove(filepath.Join(root, dir))
		if errors.Is(err, unix.ENOTEMPTY) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
