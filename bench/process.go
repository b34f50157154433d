package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// process is a server as this host's /proc shows it: one process, or several whose numbers are summed. Without any all samples are empty.
//
// Owner: Run.
type process struct {
	pids    []int
	alone   bool     // those that they have started are somebody else's: this generator starts servers
	samples []sample // one a second
	last    sample
}

var ownPID = os.Getpid()

// sample is what the processes have used, and use, at one moment.
type sample struct {
	at       time.Duration // since the run's start
	cpu      time.Duration // user and system, in ticks of 10 ms
	rss      uint64        // bytes
	anon     uint64        // of rss: what is no page of a file. The journal is mapped, so its cached pages count in rss
	threads  uint64
	switches uint64
}

// tickOfProc is the unit of times in /proc/PID/stat: USER_HZ is 100 on every Linux.
const tickOfProc = 10 * time.Millisecond

func (p *process) sample(base time.Time) error {
	if len(p.pids) == 0 {
		return nil
	}
	s := sample{at: time.Since(base)}
	for _, pid := range p.family() {
		dir := "/proc/" + strconv.Itoa(pid)
		stat, err := os.ReadFile(dir + "/stat")
		if err == nil {
			var status []byte
			status, err = os.ReadFile(dir + "/status")
			numbers := procNumbers(status)
			_, own, ended := readStat(stat)
			if s.cpu += own; !p.alone {
				s.cpu += ended
			}
			s.rss += numbers["VmRSS"] << 10
			s.anon += numbers["RssAnon"] << 10
			s.threads += numbers["Threads"]
			s.switches += numbers["voluntary_ctxt_switches"] + numbers["nonvoluntary_ctxt_switches"]
		}
		if err != nil && slices.Contains(p.pids, pid) { // a child may end at any time
			return fmt.Errorf("measure process %d: %w", pid, err)
		}
	}
	p.last = s
	p.samples = append(p.samples, s)
	return nil
}

// family are the processes and all that they have started and that still run: the workers of nginx, a database that saves itself.
func (p *process) family() []int {
	all := slices.Clone(p.pids)
	for i := 0; i < len(all) && !p.alone; i++ {
		lists, _ := filepath.Glob("/proc/" + strconv.Itoa(all[i]) + "/task/*/children")
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for _, word := range strings.Fields(string(text)) {
				if child, err := strconv.Atoi(word); err == nil && !slices.Contains(all, child) {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// pss is the proportional set size: pages shared with others count in parts. 0 where it cannot be read.
func (p *process) pss() (sum uint64) {
	for _, pid := range p.family() {
		rollup, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
		sum += procNumbers(rollup)["Pss"] << 10
	}
	return sum
}

// procNumbers reads lines such as "VmRSS:     1234 kB".
func procNumbers(text []byte) map[string]uint64 {
	numbers := map[string]uint64{}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, ":")
		if words := strings.Fields(value); ok && len(words) > 0 {
			if n, err := strconv.ParseUint(words[0], 10, 64); err == nil {
				numbers[key] = n
			}
		}
	}
	return numbers
}
