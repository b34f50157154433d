package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tote/server/proto"
	"tote/server/proto/control"
)

// Upgrade is `server upgrade`: another process takes over from the one that serves.
type Upgrade struct {
	Admin      string        `default:"http://127.0.0.1:8081" help:"URL of the admin listener."`
	AdminToken string        `help:"Bearer token of the admin listener, if it wants one."`
	Binary     string        `type:"path" help:"The new binary, on the server's host; it must belong to root or to the server's user. Without it: the file that the server was started from, which a package may have replaced." placeholder:"FILE"`
	Drain      time.Duration `help:"Tell clients in batches, over this time. 0: as the server's --drain." placeholder:"TIME"`
	Spread     time.Duration `help:"And have them come back one after the other, over this time. 0: as the server's --spread." placeholder:"TIME"`
	Wait       time.Duration `default:"15m" help:"How long to wait until the new process serves." placeholder:"TIME"`
}

const (
	upgradeLook  = 50 * time.Millisecond // between two looks at who serves
	upgradeStall = 2 * time.Second       // that one look may take: between the two nobody answers
)

// Run returns when the new process serves, or says why it does not.
func (c *Upgrade) Run(s *Session) error {
	client := (&Command{Admin: c.Admin, AdminToken: c.AdminToken}).Session(s.Context, s.Log).Client
	before, err := client.Process(s.Context)
	if err != nil {
		return err
	}
	began := time.Now()
	heir, err := client.Upgrade(s.Context, control.Upgrade{Binary: c.Binary, Drain: micros(c.Drain), Spread: micros(c.Spread)})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "process %d (%s) makes way for process %d (%s), which is started and waits; clients are told to come back\n", before.PID, before.Version, heir.PID, heir.Version)
	waiting, cancel := context.WithTimeoutCause(s.Context, c.Wait, fmt.Errorf("process %d does not serve within %s; see the server's log", heir.PID, c.Wait))
	defer cancel()
	now, err := another(waiting, client, before.PID)
	switch {
	case err != nil:
		return err
	case now.PID != heir.PID:
		return fmt.Errorf("process %d could not take over, see the server's log; process %d (%s) serves", heir.PID, now.PID, now.Version)
	}
	fmt.Fprintf(s.Out, "process %d serves, %s after the beginning\n", now.PID, time.Since(began).Round(time.Millisecond))
	return nil
}

func micros(d time.Duration) proto.Time { return proto.Time(d.Microseconds()) }

// another waits until another process serves.
func another(ctx context.Context, client *control.Client, than int) (*control.Process, error) {
	for {
		look, cancel := context.WithTimeout(ctx, upgradeStall)
		now, err := client.Process(look)
		cancel()
		if err == nil && now.PID != than {
			return now, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		case <-time.After(upgradeLook):
		}
	}
}
