package baseline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Down ends what up has started in a directory, and nothing else, the last part first. The data stay.
func Down(dir string) error {
	s, err := readSite(dir)
	if errors.Is(err, errDown) {
		return nil
	} else if err != nil {
		return err
	}
	var wrong []error
	for _, r := range slices.Backward(s.Running) {
		if r.Name != workerName { // its master ends it
			wrong = append(wrong, r.end())
		}
	}
	for _, r := range s.Running { // of a master that was killed they are left
		wrong = append(wrong, r.end())
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	return os.Remove(filepath.Join(dir, siteFile))
}

// end asks a process to end, and makes it if it does not.
func (r *Running) end() error {
	if !r.Alive() {
		return nil
	}
	if err := syscall.Kill(r.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end %s: %w", r.Name, err)
	}
	for over := time.Now().Add(stopPatience); r.Alive(); time.Sleep(lookEvery) {
		if time.Now().After(over) {
			return errors.Join(fmt.Errorf("%s did not end within %s and was killed", r.Name, stopPatience), syscall.Kill(r.PID, syscall.SIGKILL))
		}
	}
	return nil
}

// Alive says whether it is still this process that has the pid.
func (r *Running) Alive() bool {
	f := statFields(r.PID)
	return len(f) > statStart && f[statState] != "Z" && f[statStart] == strconv.FormatUint(r.Start, 10)
}

func (s *Site) alive() bool {
	return slices.ContainsFunc(s.Running, func(r Running) bool { return r.Alive() })
}

// PIDs are all processes of the site, to be measured.
func (s *Site) PIDs() (all []int) {
	for _, r := range s.Running {
		all = append(all, r.PID)
	}
	return all
}

// Status reads what should run in a directory, and asks whether it answers.
func Status(ctx context.Context, dir string) (s *Site, answers error, err error) {
	if s, err = readSite(dir); err != nil {
		return nil, nil, err
	}
	ctx, end := context.WithTimeout(ctx, 10*time.Second)
	defer end()
	return s, s.hello(ctx), nil
}

// Fields of /proc/PID/stat behind the name, see proc(5).
const (
	statState  = 0
	statParent = 1
	statStart  = 19
)

func statFields(pid int) []string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(text), ") ") // a name with a bracket in it is none of ours
	return strings.Fields(rest)
}

func started(pid int) (uint64, error) {
	f := statFields(pid)
	if len(f) <= statStart {
		return 0, fmt.Errorf("process %d is gone", pid)
	}
	return strconv.ParseUint(f[statStart], 10, 64)
}
