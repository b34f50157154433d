// Package baseline is the architecture of the Instamrkt thesis, rebuilt as it stood, to be measured beside our own with the same load: nginx in
// front, several processes for WebSockets that keep nothing, Redis between them, and MariaDB behind.
//
//	           ┌▶ process ─┐   ┌▶ MariaDB  accounts, games, pools, predictions
//	players ─▶ nginx       ├───┤
//	           └▶ process ─┘   └▶ Redis    cache, channels, times of the last broadcasts
//
// A prediction is one transaction in MariaDB. Then it is counted in Redis, and whoever counts it looks at the time of the pool's last broadcast: is that
// an interval ago, he sets it, reads the distribution and publishes it to the game's channel. In each process a goroutine listens to each channel
// and forwards what it hears to the connections of its game.
//
// It has the faults of that architecture and no others, as far as we know:
//
//   - Between reading the time of the last broadcast and setting it, another process may read it too: then both broadcast. It counts how often.
//   - Cache and database are written one after the other: after a crash between the two the odds lack a prediction until the next start. Odds may come
//     behind the lock of their pool.
//   - What is published while a process is not subscribed is lost to its players: after such a moment it sends them away, to come back. There is no
//     resuming, and an account's private messages reach only its newest connection.
//   - A settlement is one transaction: its winners' stakes wait until it is over.
//
// It speaks as much of tote.json as the scenarios need: hello, games, join, leave, pools, stake, account, predictions, presence, time. Pools are
// parimutuel, with one winner and without rules of their own; what rounding leaves is the house's.
package baseline

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"tote/server/proto"
)

// Config is what may be chosen of a baseline.
type Config struct {
	Listen    string        // address for players; port 0: any that is free
	Admin     string        // address for operators, on loopback
	Processes int           // for WebSockets
	Flush     int           // innodb_flush_log_at_trx_commit: 0, 1 or 2
	Interval  time.Duration // of a game's distributions, where the game says nothing
	Credits   proto.Amount  // of each guest
}

func (c *Config) check() error {
	switch {
	case c.Processes < 1 || c.Processes > processesMax:
		return fmt.Errorf("%d processes; from 1 to %d", c.Processes, processesMax)
	case c.Flush < 0 || c.Flush > 2:
		return fmt.Errorf("flush %d: 1 syncs each transaction, 2 gives it to the kernel, 0 to neither", c.Flush)
	case c.Interval < 100*time.Millisecond || c.Interval > time.Minute:
		return fmt.Errorf("an interval of %s; from 100ms to 1m", c.Interval)
	case !c.Credits.Valid():
		return fmt.Errorf("%d credits for a guest; at least 1", c.Credits)
	}
	return nil
}

const (
	processesMax = 64
	sessionsEach = 32 // connections of a process to MariaDB
)

// Site is a baseline that is up, as its directory tells its processes and those who end it. The file has passwords.
type Site struct {
	Config
	Epoch     uint64   // when it was started
	Players   []string // address of each process for players, behind nginx
	Operators []string // … for operators
	MariaDB   int      // port
	Redis     int      // port
	Password  string   // of both
	Running   []Running
}

// Running is a process of a site, in the order in which they were started.
type Running struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // when, in clock ticks since the host's boot: another process that gets the same pid has another
}

// URL is where players connect.
func (s *Site) URL() string { return "ws://" + s.Listen + "/ws" }

// durability is what a receipt may say of the disk.
func (s *Site) durability() string {
	if s.Flush == 1 {
		return "always"
	}
	return "interval=1s" // InnoDB syncs its log once a second
}

const siteFile = "site.json"

// errDown says that no site runs in a directory.
var errDown = errors.New("nothing is up there")

func readSite(dir string) (*Site, error) {
	text, err := os.ReadFile(filepath.Join(dir, siteFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, errDown)
	} else if err != nil {
		return nil, err
	}
	s := &Site{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, siteFile), err)
	}
	return s, nil
}

// write puts the site into its directory, whole or not at all.
func (s *Site) write(dir string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, siteFile)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
