package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"tote/server/proto"
)

// Rival is a server to be compared with others: ours, or another one that speaks our protocol. All are in one binary, behind commands of
// their own. One is a single process and started like ours,
//
//	SERVE --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data DIR --guest-credits N …      until SIGTERM; writes DIR/addresses.json
//	AUDIT --data DIR                                                                   looks at what it has left
//
// or several, with a command that starts them, in the background, and one that ends them:
//
//	UP --dir DIR --guest-credits N --json …    writes {"url": "ws://…", "admin": "http://…", "pids": […]}
//	AUDIT --dir DIR                            looks at what is there, while it is up
//	DOWN --dir DIR
type Rival struct {
	Name  string
	Serve []string // SERVE, with flags that it needs; nil: Up and Down are there
	Audit []string // AUDIT; nil: what it leaves is not looked at
	Up    []string
	Down  []string
}

// Rivals are all there are; the first is ours.
var Rivals = []Rival{
	// After a storm or a stall, the stakes that are due fall on whoever is back first: that is the plan's doing, not a player's haste.
	{Name: "ours", Serve: []string{"serve", "--stakes-per-second=0"}, Audit: []string{"audit"}},
	{Name: "comparator", Serve: []string{"bench", "comparator", "serve"}, Audit: []string{"bench", "comparator", "audit"}},
	{Name: "baseline", Up: []string{"bench", "baseline", "up"}, Audit: []string{"bench", "baseline", "audit"}, Down: []string{"bench", "baseline", "down"}},
}

// FindRival finds one by its name.
func FindRival(name string) (*Rival, error) {
	var names []string
	for i := range Rivals {
		if Rivals[i].Name == name {
			return &Rivals[i], nil
		}
		names = append(names, Rivals[i].Name)
	}
	return nil, fmt.Errorf("there is no server %q to compare with: there are %s", name, strings.Join(names, ", "))
}

// hosted is a server that was started for a run.
type hosted struct {
	target, admin string
	pids          []int
	stop          func() error // nil if it was still there and has ended in order
}

// upPatience is with a server that makes a database first.
const upPatience = 2 * time.Minute

// start starts the server; flags are more of its own.
func (v *Rival) start(ctx context.Context, binary, data string, credits proto.Amount, flags []string, users int) (*hosted, error) {
	if v.Serve != nil {
		c, err := startServer(ctx, binary, v.Serve, flags, data, credits, users)
		if err != nil {
			return nil, err
		}
		return &hosted{target: "ws://" + c.addresses.Listen + "/ws", admin: "http://" + c.addresses.Admin, pids: []int{c.command.Process.Pid}, stop: c.stop}, nil
	}
	if err := os.Chmod(data, 0o755); err != nil { // databases run as users of their own
		return nil, fmt.Errorf("open the data directory for others: %w", err)
	}
	within, end := context.WithTimeout(ctx, upPatience)
	defer end()
	said, err := command(within, binary, slices.Concat(v.Up, []string{"--dir", data, "--guest-credits", fmt.Sprint(credits), "--json"}, flags))
	var up struct {
		URL   string `json:"url"`
		Admin string `json:"admin"`
		PIDs  []int  `json:"pids"`
	}
	if err == nil {
		err = json.Unmarshal(said, &up)
	}
	if err == nil && (up.URL == "" || len(up.PIDs) == 0) {
		err = fmt.Errorf("it says neither where it is nor which processes it has: %s", said)
	}
	down := func() error {
		within, end := context.WithTimeout(context.WithoutCancel(ctx), upPatience)
		defer end()
		_, err := command(within, binary, slices.Concat(v.Down, []string{"--dir", data}))
		return err
	}
	if err != nil {
		down() // what there is of it; that something is missing is said already
		return nil, fmt.Errorf("start %s: %w", v.Name, err)
	}
	return &hosted{target: up.URL, admin: up.Admin, pids: up.PIDs, stop: func() error {
		var ended []error
		for _, pid := range up.PIDs {
			if !runs(pid) {
				ended = append(ended, fmt.Errorf("process %d of the server ended by itself", pid))
			}
		}
		return errors.Join(append(ended, down())...)
	}}, nil
}

// runs says whether a process is there and not a zombie, as nobody may have waited for it.
func runs(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

// audit looks at what the server has in its directory.
func (v *Rival) audit(binary, data string) error {
	flag := "--data"
	if v.Up != nil {
		flag = "--dir"
	}
	_, err := command(context.Background(), binary, slices.Concat(v.Audit, []string{flag, data}))
	return err
}

// command runs a command of the binary and returns what it says.
func command(ctx context.Context, binary string, args []string) ([]byte, error) {
	c := exec.CommandContext(ctx, binary, args...)
	c.WaitDelay = time.Second // what it has left in the background may hold its output open
	var wrong lastLines
	c.Stderr = &wrong
	said, err := c.Output()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return said, nil
	}
	return nil, fmt.Errorf("%s: %w: %s", strings.Join(args[:min(3, len(args))], " "), errors.Join(ctx.Err(), err), strings.TrimSpace(wrong.String()+"\n"+string(said)))
}
