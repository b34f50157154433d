package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"tote/server/bench/baseline"
	"tote/server/proto"
)

// Baseline is `server bench baseline`.
type Baseline struct {
	Up     BaselineUp     `cmd:"" help:"Start nginx, processes for WebSockets, Redis and MariaDB on ports and in a directory of their own."`
	Down   BaselineDown   `cmd:"" help:"End what up has started, and nothing else. The data stay."`
	Status BaselineStatus `cmd:"" help:"Say what runs, and whether hello is answered."`
	Audit  BaselineAudit  `cmd:"" help:"Compare accounts, predictions and money in MariaDB, and the cache with them, while nobody plays."`
	Serve  BaselineServe  `cmd:"" help:"Be one of the processes; up starts them."`
}

// BaselineUp is `server bench baseline up`.
type BaselineUp struct {
	Dir          string        `required:"" type:"path" help:"Directory of data, configurations and logs." placeholder:"DIR"`
	Listen       string        `default:"127.0.0.1:0" help:"Address for players; port 0: any that is free." placeholder:"ADDR"`
	Admin        string        `default:"127.0.0.1:0" help:"Address for operators, on loopback." placeholder:"ADDR"`
	Processes    int           `default:"2" help:"Processes for WebSockets: one for every 25,000 players at least, since nginx has 28,000 ports to each."`
	Flush        int           `default:"1" help:"MariaDB's innodb_flush_log_at_trx_commit. 1: a receipt is on the disk. 2: the kernel has it, 0: MariaDB has it; then the disk is a second behind."`
	Interval     time.Duration `default:"3s" help:"Batching interval of games that name none."`
	GuestCredits proto.Amount  `default:"1000000" help:"Credits of each guest."`
	JSON         bool          `help:"Print JSON."`
}

func (c *BaselineUp) Run(ctx context.Context) error {
	binary, err := self()
	if err != nil {
		return err
	}
	site, err := baseline.Up(ctx, c.Dir, baseline.Config{Listen: c.Listen, Admin: c.Admin, Processes: c.Processes, Flush: c.Flush, Interval: c.Interval,
		Credits: c.GuestCredits}, binary)
	if err != nil {
		return err
	}
	shown := show(site)
	if c.JSON {
		return write(os.Stdout, shown)
	}
	fmt.Printf("players    %s\noperators  %s\n", shown.URL, shown.Admin)
	for _, r := range shown.Processes {
		fmt.Printf("%-12s pid %d\n", r.Name, r.PID)
	}
	var pids []string
	for _, pid := range shown.PIDs {
		pids = append(pids, fmt.Sprint(pid))
	}
	fmt.Printf("\nPlay:  server bench run football --target %s --admin %s --alone --pid %s\nEnd:   server bench baseline down --dir %s\n",
		shown.URL, shown.Admin, strings.Join(pids, ","), c.Dir)
	return nil
}

// baselineShown is a site as up and status print it.
type baselineShown struct {
	URL       string             `json:"url"`
	Admin     string             `json:"admin"`
	PIDs      []int              `json:"pids"` // of all processes: what the whole costs
	Processes []baseline.Running `json:"processes"`
	Answers   bool               `json:"answers"`
}

func show(site *baseline.Site) *baselineShown {
	return &baselineShown{URL: site.URL(), Admin: "http://" + site.Admin, PIDs: site.PIDs(), Processes: site.Running, Answers: true}
}

// BaselineDown is `server bench baseline down`.
type BaselineDown struct {
	Dir string `required:"" type:"path" help:"That was given to up." placeholder:"DIR"`
}

func (c *BaselineDown) Run() error { return baseline.Down(c.Dir) }

// BaselineStatus is `server bench baseline status`.
type BaselineStatus struct {
	Dir  string `required:"" type:"path" help:"That was given to up." placeholder:"DIR"`
	JSON bool   `help:"Print JSON."`
}

func (c *BaselineStatus) Run(ctx context.Context) error {
	site, failed, err := baseline.Status(ctx, c.Dir)
	if err != nil {
		return err
	}
	shown := show(site)
	shown.Answers = failed == nil
	if c.JSON {
		return errors.Join(write(os.Stdout, shown), failed)
	}
	fmt.Printf("players    %s\noperators  %s\n", shown.URL, shown.Admin)
	for _, r := range shown.Processes {
		state := "runs"
		if !r.Alive() {
			state = "is gone"
		}
		fmt.Printf("%-12s pid %-8d %s\n", r.Name, r.PID, state)
	}
	if failed != nil {
		return fmt.Errorf("hello is not answered: %w", failed)
	}
	fmt.Println("hello is answered")
	return nil
}

// BaselineAudit is `server bench baseline audit`.
type BaselineAudit struct {
	Dir string `required:"" type:"path" help:"That was given to up." placeholder:"DIR"`
}

func (c *BaselineAudit) Run(ctx context.Context) error {
	if err := baseline.Audit(ctx, c.Dir); err != nil {
		return err
	}
	fmt.Println("each balance, the sum of all money, and the cache agree with the predictions")
	return nil
}

// BaselineServe is `server bench baseline serve`.
type BaselineServe struct {
	Dir     string `required:"" type:"path" help:"Of the site." placeholder:"DIR"`
	Process int    `help:"Which of its processes, from 0."`
}

func (c *BaselineServe) Run(ctx context.Context, log *slog.Logger) error {
	return baseline.Serve(ctx, c.Dir, c.Process, log)
}
