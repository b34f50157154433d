// Package command is `server tune` as people type it: each command asks package tuning, prints, and says by its exit status
// whether all is well.
package command

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tote/server/tuning"
	"tote/server/tuning/systemd"
)

// Command is `server tune`, for the command line parser.
type Command struct {
	Check   check   `cmd:"" help:"Say whether this host can hold so many connections. Needs no root; the exit status says it too."`
	Plan    plan    `cmd:"" help:"Show what apply would change, each line with its reason."`
	Apply   apply   `cmd:"" help:"Change it, verify it, and remember what was there."`
	Confirm confirm `cmd:"" help:"Keep what apply --confirm has changed."`
	Revert  revert  `cmd:"" help:"Restore exactly what was there before apply."`
	VIP     struct {
		Add    vipAdd    `cmd:"" help:"Add a range, whole or not at all."`
		Remove vipRemove `cmd:"" help:"Remove a range that was added."`
		Clear  vipClear  `cmd:"" help:"Remove all ranges that were added."`
		List   vipList   `cmd:"" help:"List ranges that were added, and how many connections they are good for."`
	} `cmd:"" name:"vip" help:"Give an interface more addresses: past 64,512 connections from one address to another."`
	Unit  unit  `cmd:"" help:"Write a hardened systemd unit, and its sockets."`
	Guard guard `cmd:"" hidden:"" help:"Revert an apply that nobody confirms; started by apply --confirm."`
}

// host is the flag of every command that looks at a host.
type host struct {
	Root string `default:"/" type:"existingdir" help:"Directory that stands for the host: an image that is prepared." placeholder:"DIR"`
}

// want are the flags that say what for.
type want struct {
	host
	Connections int  `default:"100000" help:"How many connections to hold."`
	Generator   bool `help:"The host plays clients, instead of serving them."`
}

func (w *want) of() tuning.Want {
	return tuning.Want{Connections: w.Connections, Generator: w.Generator}
}

// show prints v as JSON where that was asked for, and text otherwise.
func show(asJSON bool, v any, text func(io.Writer)) error {
	if !asJSON {
		text(os.Stdout)
		return nil
	}
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

type check struct {
	want
	JSON   bool `help:"Print JSON."`
	Thesis bool `help:"Print the thesis' settings beside ours, with the reason for each difference."`
}

func (c *check) Run() error {
	r, err := tuning.Check(c.Root, c.of())
	if err != nil {
		return err
	}
	if c.Thesis {
		return show(c.JSON, r.Thesis(), r.WriteThesis)
	}
	if err := show(c.JSON, r, r.WriteText); err != nil {
		return err
	}
	if !r.Ready() {
		return fmt.Errorf("this host is not ready for %d connections", c.Connections)
	}
	return nil
}

type plan struct {
	want
	JSON bool `help:"Print JSON."`
}

func (c *plan) Run() error {
	p, err := tuning.NewPlan(c.Root, c.of())
	if err != nil {
		return err
	}
	return show(c.JSON, p, p.WriteText)
}

type apply struct {
	want
	Confirm time.Duration `help:"Revert after so long unless server tune confirm is run: for hosts that one could be cut off from. Until then nothing is changed that a reboot would not undo." placeholder:"60s"`
}

func (c *apply) Run() error {
	changed, err := tuning.Apply(c.Root, c.of(), c.Confirm)
	if err != nil {
		return err
	}
	switch {
	case !changed:
		fmt.Println("nothing to change")
	case c.Confirm > 0:
		fmt.Printf("applied to the running kernel; run server tune confirm within %s to keep it\n", c.Confirm)
	default:
		fmt.Println("applied; a new login and a restart of the service get the new limits")
	}
	r, err := tuning.Check(c.Root, c.of())
	if err != nil {
		return err
	}
	r.WriteShort(os.Stdout)
	return nil
}

type confirm struct{ host }

func (c *confirm) Run() error {
	if err := tuning.Confirm(c.Root); err != nil {
		return err
	}
	fmt.Println("confirmed; a new login and a restart of the service get the new limits")
	return nil
}

type revert struct {
	host
	Force bool `help:"Also what somebody else has changed since the apply."`
}

func (c *revert) Run() error {
	changed, err := tuning.Revert(c.Root, c.Force)
	if err != nil {
		return err
	}
	if !changed {
		fmt.Println("nothing to revert")
		return nil
	}
	fmt.Println("reverted")
	return nil
}

// addresses are the arguments of a command that changes a range.
type addresses struct {
	host
	Range  string `arg:"" help:"Addresses: 10.77.0.1-10.77.0.254, 10.77.0.0/24 (its hosts), or one."`
	Device string `required:"" help:"Interface." placeholder:"NAME"`
}

// parse returns the range, and the binary that a unit names.
func (a *addresses) parse() (r tuning.Range, binary string, err error) {
	if r, err = tuning.ParseRange(a.Range); err != nil {
		return r, "", err
	}
	binary, err = self()
	return r, binary, err
}

// self is the path of the binary that runs.
func self() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the server's own binary: %w", err)
	}
	return path, nil
}

type vipAdd struct {
	addresses
	Lasting bool `help:"Add it at every boot, by a systemd unit."`
}

func (c *vipAdd) Run() error {
	r, binary, err := c.parse()
	if err != nil {
		return err
	}
	return tuning.AddVIP(c.Root, c.Device, r, c.Lasting, binary)
}

type vipRemove struct{ addresses }

func (c *vipRemove) Run() error {
	r, binary, err := c.parse()
	if err != nil {
		return err
	}
	return tuning.RemoveVIP(c.Root, c.Device, r, binary)
}

type vipClear struct{ host }

func (c *vipClear) Run() error {
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the server's own binary: %w", err)
	}
	return tuning.ClearVIP(c.Root, binary)
}

type vipList struct {
	host
	JSON bool `help:"Print JSON."`
}

func (c *vipList) Run() error {
	vips, err := tuning.ListVIP(c.Root)
	if err != nil {
		return err
	}
	return show(c.JSON, vips, func(w io.Writer) { tuning.WriteVIPs(w, vips) })
}

type unit struct {
	Write       string `type:"existingdir" help:"Write the files to this directory, as /etc/systemd/system, instead of printing them." placeholder:"DIR"`
	Binary      string `help:"Path of the server; this one if not set." placeholder:"FILE"`
	ConfigFile  string `help:"Path of the TOML file that the service reads its flags from." placeholder:"FILE"`
	Listen      string `default:"0.0.0.0:8080" help:"Address for players." placeholder:"ADDR"`
	Admin       string `default:"127.0.0.1:8081" help:"Address for operators." placeholder:"ADDR"`
	User        string `help:"Run as this user; if not set, as one that systemd makes (DynamicUser)." placeholder:"NAME"`
	Connections int    `default:"100000" help:"How many connections to hold."`
}

func (c *unit) Run() error {
	descriptors, err := tuning.Descriptors(tuning.Want{Connections: c.Connections})
	if err != nil {
		return err
	}
	if c.Binary == "" {
		if c.Binary, err = self(); err != nil {
			return err
		}
	}
	files, err := systemd.Units{Binary: c.Binary, Config: c.ConfigFile, Players: c.Listen, Operators: c.Admin, User: c.User, Descriptors: descriptors}.Files()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if c.Write == "" {
			fmt.Printf("# %s\n%s\n", name, files[name])
			continue
		}
		if err := os.WriteFile(filepath.Join(c.Write, name), []byte(files[name]), 0o644); err != nil {
			return fmt.Errorf("write a unit: %w", err)
		}
	}
	return nil
}

type guard struct {
	host
	Apply string `arg:"" help:"Which apply."`
}

func (c *guard) Run() error {
	return tuning.Guard(c.Root, c.Apply, func() {
		fmt.Print("+")
		_ = os.Stdout.Close() // apply waits for this byte, and whoever ran apply for the end of its output
	})
}
