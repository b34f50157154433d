package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// process is a process of this host, watched through /proc. A pid of 0 is none: all its samples are empty.
//
// Owner: Run.
type process struct {
	pid     int
	samples []sample // one a second
	last    sample
}

var ownPID = os.Getpid()

// sample is what a process has used, and uses, at one moment.
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
	if p.pid == 0 {
		return nil
	}
	dir := "/proc/" + strconv.Itoa(p.pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return fmt.Errorf("measure process %d: %w", p.pid, err)
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return fmt.Errorf("measure process %d: %w", p.pid, err)
	}
	s := sample{at: time.Since(base)}
	_, s.cpu = readStat(stat)
	numbers := procNumbers(status)
	s.rss, s.anon = numbers["VmRSS"]<<10, numbers["RssAnon"]<<10
	s.threads = numbers["Threads"]
	s.switches = numbers["voluntary_ctxt_switches"] + numbers["nonvoluntary_ctxt_switches"]
	p.last = s
	p.samples = append(p.samples, s)
	return nil
}

// pss is the proportional set size: pages shared with others count in parts. 0 where it cannot be read.
func (p *process) pss() uint64 {
	rollup, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/smaps_rollup")
	if err != nil {
		return 0
	}
	return procNumbers(rollup)["Pss"] << 10
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
