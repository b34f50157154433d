// Package command is `server bench`: flags in, what the packages of bench say out. People get text, machines JSON; whatever else is
// said goes to the standard error.
package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/bench"
	"tote/server/bench/limit"
	"tote/server/bench/model"
	"tote/server/bench/sheet"
)

// Bench is the commands.
type Bench struct {
	Run        Run        `cmd:"" help:"Play a scenario, on a server that runs or on one of its own, and audit it."`
	Compare    Compare    `cmd:"" help:"Play a scenario on several servers in turn, ours and others that speak its protocol, and lay them side by side."`
	Agent      Agent      `cmd:"" help:"Play a share of the users of a run that another host coordinates (bench run --agents)."`
	Scenarios  Scenarios  `cmd:"" help:"List the built-in scenarios."`
	Report     Report     `cmd:"" help:"Lay runs side by side on one page of HTML."`
	Limit      Limit      `cmd:"" help:"Say what the kernel allows on this machine: a write, a read, a synced append, the codec."`
	Scale      Scale      `cmd:"" help:"Find the greatest throughput with 1, 2, … cores, loops or shards, and fit models to it."`
	Fit        Fit        `cmd:"" help:"Fit models of scalability to a table of throughputs."`
	Comparator Comparator `cmd:"" help:"Run the server that a good team would build in a week, to compare with."`
	Baseline   Baseline   `cmd:"" help:"Run the architecture of the thesis, to compare with: nginx, processes for WebSockets, Redis, MariaDB."`
}

// Run is `server bench run`.
type Run struct {
	Scenario string `arg:"" help:"Name of a built-in scenario (see bench scenarios), or a file that ends in .toml."`
	Variant  string `help:"One of the scenario's variants; all: the scenario and each of them in turn." placeholder:"NAME"`

	Target   string `help:"The server's WebSockets. Without it a server is started, and stopped and audited afterwards." placeholder:"ws[s]://HOST:PORT"`
	CA       string `name:"ca" type:"existingfile" help:"File of the certificates (PEM) that a target at wss:// is trusted by; without it, the system's." placeholder:"FILE"`
	Insecure bool   `help:"Trust whatever certificate a target at wss:// shows."`
	Admin    string `help:"The target's operators' listener, where the scenario's games are opened. Without it players join what there is." placeholder:"http://HOST:PORT"`
	Token    string `help:"Bearer token for operators." env:"SERVER_ADMIN_TOKEN"`
	Alone    bool   `help:"Nobody else plays in the games that the scenario opens on the target: their odds must add up to the receipts."`
	PID      []int  `help:"The target's process, to measure, or several: all that they start is measured too. Without it: found by its port, where it is on this host."`

	Users    int           `help:"Users, instead of the scenario's."`
	Rate     bench.Rate    `help:"Arrivals, instead of the scenario's." placeholder:"N/s"`
	Duration time.Duration `help:"How long, instead of the scenario's."`
	Stakes   bench.Rate    `help:"Stakes of all users together, at random times, instead of the scenario's habits." placeholder:"N/s"`
	Seed     uint64        `help:"Of all randomness."`

	Repeat int `default:"1" help:"So many runs, one after the other, into FILE-1.json and so on: five of each are what report compares with intervals."`

	Through []string `help:"Addresses of the server's host to connect to, one for each user in turn, instead of the target's: single ones, FIRST-LAST, networks. A server of the run's own listens on all." placeholder:"ADDR"`
	From    []string `help:"Addresses to connect from: single ones, FIRST-LAST, networks. Without it: one for each user where the target is on loopback." placeholder:"ADDR"`
	Workers int      `help:"Event loops of the generator; 0: one for every two CPUs."`

	Agents         []string `help:"Play on these hosts instead of this one; each runs bench agent. Nobody else may stake in the games that the run opens." placeholder:"HOST:PORT,…"`
	AgentToken     string   `help:"The agents' secret." env:"SERVER_AGENT_TOKEN" placeholder:"SECRET"`
	AgentTokenFile string   `type:"existingfile" help:"Read it from this file." placeholder:"FILE"`

	Serve []string `help:"One more flag for a server of its own; may be repeated: --serve=--idle=1h." placeholder:"FLAG"`

	Cost    float64 `help:"Of the server's host per hour, for the meters that weigh it." placeholder:"MONEY"`
	NoLimit bool    `help:"Do not measure the machine's limits beside the run."`

	JSON  string `help:"Write the report to this file; -: to the standard output, and nothing else." placeholder:"FILE"`
	HTML  string `help:"Write the report as a page to this file." placeholder:"FILE"`
	Quiet bool   `help:"No progress."`
}

func (c *Run) Run(ctx context.Context, log *slog.Logger) error {
	variants := []string{c.Variant}
	first, err := bench.ReadScenario(c.Scenario, "")
	if err != nil {
		return err
	}
	if c.Variant == "all" || c.Variant == "" && first.Series {
		variants = append([]string{""}, first.Names...)
	}
	var wrong []error
	for _, variant := range variants {
		s, err := bench.ReadScenario(c.Scenario, variant)
		if err != nil {
			return err
		}
		for i := range max(1, c.Repeat) {
			file := ""
			if len(variants) > 1 && variant != "" {
				file = "-" + variant
			}
			if c.Repeat > 1 {
				file += fmt.Sprint("-", i+1)
			}
			if len(variants) > 1 || c.Repeat > 1 {
				fmt.Fprintf(os.Stderr, "%s: %s, run %d\n", c.Scenario, name(variant), i+1)
			}
			err = c.play(ctx, log, s, file)
			if ctx.Err() != nil {
				return err
			}
			if err != nil && len(variants) > 1 {
				err = fmt.Errorf("%s: %w", name(variant), err)
			}
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

func name(variant string) string {
	if variant == "" {
		return "as it is"
	}
	return variant
}

// play plays one variant; suffix tells its files from those of others.
func (c *Run) play(ctx context.Context, log *slog.Logger, s *bench.Scenario, suffix string) error {
	adapt(s, c.Users, c.Rate, c.Duration, c.Stakes, c.Seed)
	binary, err := self()
	if err != nil {
		return err
	}
	from, err := bench.ReadAddresses(c.From)
	if err != nil {
		return err
	}
	through, err := bench.ReadAddresses(c.Through)
	if err != nil {
		return err
	}
	on := bench.Stage{Target: c.Target, Admin: c.Admin, Token: c.Token, Alone: c.Alone, Binary: binary, Serve: c.Serve, Server: c.PID, Through: through, Sources: from,
		Workers: c.Workers, Log: log, NoLimits: c.NoLimit, Cost: c.Cost}
	if on.Agents = c.Agents; on.Agents != nil {
		if c.From != nil || c.Workers != 0 {
			return errors.New("--from and --workers are each agent's own: give them to bench agent")
		}
		if on.Secret, err = secret(c.AgentToken, c.AgentTokenFile); err != nil {
			return err
		}
	}
	if on.Target != "" {
		on.Binary = ""
		on.Target = withPath(on.Target)
		if on.Trust, err = trust(c.CA, c.Insecure); err != nil {
			return err
		}
	}
	if !c.Quiet && c.JSON != "-" {
		on.Progress, on.Live = os.Stderr, terminal(os.Stderr)
	}
	report, err := s.Run(ctx, on)
	if report == nil {
		return err
	}
	err = errors.Join(report.Failed(), err)
	if c.HTML != "" {
		page := sheet.Sheet{Title: strings.TrimSuffix(s.Name+", "+s.Variant, ", "), Made: time.Now(), Command: bench.Again(os.Args),
			Groups: []*sheet.Group{{Name: s.Name, Runs: []*bench.Report{report}}}}
		err = errors.Join(err, writeTo(suffixed(c.HTML, suffix), page.Write))
	}
	if c.JSON == "-" {
		return errors.Join(err, write(os.Stdout, report))
	}
	report.WriteText(os.Stdout)
	if c.JSON != "" {
		err = errors.Join(err, writeTo(suffixed(c.JSON, suffix), func(w io.Writer) error { return write(w, report) }))
	}
	return err
}

// adapt gives a scenario other numbers; 0: its own.
func adapt(s *bench.Scenario, users int, rate bench.Rate, duration time.Duration, stakes bench.Rate, seed uint64) {
	s.Users = cmp.Or(users, s.Users)
	s.Rate = cmp.Or(rate, s.Rate)
	s.Duration = cmp.Or(bench.Span(duration), s.Duration)
	s.Players.Stakes = cmp.Or(stakes, s.Players.Stakes)
	s.Seed = cmp.Or(seed, s.Seed)
}

// secret is the one given, or the first line of a file.
func secret(given, file string) (string, error) {
	if file == "" {
		return given, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("%s has no secret in its first line", file)
	}
	return line, nil
}

// Agent is `server bench agent`.
type Agent struct {
	Listen    string   `default:"127.0.0.1:9100" help:"Where coordinators call." placeholder:"ADDR"`
	Token     string   `help:"Secret that coordinators must have; needed on all but loopback. Others see a command line: prefer the environment, or a file." env:"SERVER_AGENT_TOKEN" placeholder:"SECRET"`
	TokenFile string   `type:"existingfile" help:"Read it from this file." placeholder:"FILE"`
	From      []string `help:"Addresses to connect from: single ones, FIRST-LAST, networks. Without it: what the kernel chooses, or one for each user where the target is on loopback." placeholder:"ADDR"`
	Workers   int      `help:"Event loops; 0: one for each CPU."`
}

func (c *Agent) Run(ctx context.Context, log *slog.Logger) error {
	known, err := secret(c.Token, c.TokenFile)
	if err != nil {
		return err
	}
	from, err := bench.ReadAddresses(c.From)
	if err != nil {
		return err
	}
	agent := bench.Agent{Secret: known, Sources: from, Workers: c.Workers, Log: log}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen for coordinators: %w", err)
	}
	return agent.Serve(ctx, listener)
}

// withPath adds the path that players connect to, where the target has none.
func withPath(target string) string {
	if _, rest, ok := strings.Cut(target, "://"); ok && !strings.Contains(rest, "/") {
		return target + "/ws"
	}
	return target
}

// trust is whom a run trusts.
func trust(file string, anyone bool) (t bench.Trust, err error) {
	t.Anyone = anyone
	if file == "" {
		return t, nil
	}
	if t.Roots, err = os.ReadFile(file); err != nil {
		return t, fmt.Errorf("read whom to trust: %w", err)
	}
	return t, nil
}

// suffixed is the file of one run of several: report.json, report-most-2.json.
func suffixed(file, suffix string) string {
	end := filepath.Ext(file)
	return strings.TrimSuffix(file, end) + suffix + end
}

func terminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func write(w io.Writer, v any) error {
	to := json.NewEncoder(w)
	to.SetIndent("", "  ")
	return to.Encode(v)
}

// Report is `server bench report`.
type Report struct {
	Files   []string  `arg:"" help:"Reports of bench run --json: FILE, or NAME=FILE; those of one name are repetitions. Or what bench compare --json has written." placeholder:"[NAME=]FILE"`
	Points  string    `help:"Also fit models to this table, as bench fit does." placeholder:"CSV"`
	At      []float64 `help:"As of bench fit." placeholder:"P"`
	Out     string    `default:"report.html" help:"The page." placeholder:"FILE"`
	Title   string    `help:"Of the page."`
	Clients bool      `help:"Write no page: print what clients report, as text."`
}

func (c *Report) Run() error {
	groups, err := sheet.Read(c.Files)
	if err != nil {
		return err
	}
	if c.Clients {
		for _, g := range groups {
			for _, r := range g.Runs {
				fmt.Printf("%s\n\n", g.Name)
				r.WriteClients(os.Stdout)
			}
		}
		return nil
	}
	page := sheet.Sheet{Title: c.Title, Made: time.Now(), Command: bench.Again(os.Args), Groups: groups}
	if page.Title == "" {
		var names []string
		for _, g := range groups {
			names = append(names, g.Name)
		}
		page.Title = strings.Join(names, ", ")
	}
	if c.Points != "" {
		points, err := readPoints(c.Points)
		if err != nil {
			return err
		}
		if page.Study, err = model.NewStudy(points, c.At...); err != nil {
			return err
		}
	}
	if err := writeTo(c.Out, page.Write); err != nil {
		return err
	}
	fmt.Println(c.Out)
	return nil
}

// self is the path of the binary that runs.
func self() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the server's own binary: %w", err)
	}
	return path, nil
}

func writeTo(path string, what func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(what(f), f.Close())
}

// Scenarios is `server bench scenarios`.
type Scenarios struct{}

func (*Scenarios) Run() error {
	for _, s := range bench.Scenarios() {
		fmt.Printf("%-11s %s\n", s.Name, s.About)
		if len(s.Names) > 0 {
			fmt.Printf("%-11s variants: %s\n", "", strings.Join(s.Names, ", "))
		}
	}
	return nil
}

// Scale is `server bench scale`.
type Scale struct {
	Scenario string        `arg:"" default:"stakes" help:"What is played, with other rates of stakes."`
	Vary     string        `enum:"cores,loops,shards" default:"cores" help:"What there is more and more of; with cores, as many loops and shards."`
	To       int           `help:"Up to so many; 0: as many as the host has cores."`
	First    bench.Rate    `help:"The first rate that is tried." default:"1000/s" placeholder:"N/s"`
	P99      time.Duration `name:"p99" default:"100ms" help:"A rate is held if 99 % of the receipts come within this."`
	Steps    int           `default:"3" help:"Bisections between what was held and what was not."`
	Duration time.Duration `help:"Of each run, instead of the scenario's."`
	At       []float64     `help:"As of bench fit." placeholder:"P"`
	CSV      string        `help:"Write the points to this file, for bench fit and bench report --points." placeholder:"FILE"`
	HTML     string        `help:"Write a page of the best runs, with the models, to this file." placeholder:"FILE"`
	JSON     bool          `help:"Print JSON."`
}

func (c *Scale) Run(ctx context.Context, log *slog.Logger) error {
	s, err := bench.ReadScenario(c.Scenario, "")
	if err != nil {
		return err
	}
	if c.Duration > 0 {
		s.Duration = bench.Span(c.Duration)
	}
	binary, err := self()
	if err != nil {
		return err
	}
	sweep := bench.Sweep{Vary: bench.Varied(c.Vary), To: c.To, From: c.First, P99: c.P99, Steps: c.Steps, Text: os.Stderr}
	points, err := sweep.Run(ctx, s, bench.Stage{Binary: binary, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	bound := 0
	for _, r := range sweep.Reports {
		if r.Generator.Bottleneck {
			bound++
		}
	}
	if bound > 0 {
		fmt.Fprintf(os.Stderr, "in %d of the %d best runs the generator was the bottleneck: the server can do more than the points say\n", bound, len(sweep.Reports))
	}
	if c.CSV != "" {
		if err := writeTo(c.CSV, points.WriteCSV); err != nil {
			return err
		}
	}
	study, err := model.NewStudy(points, c.At...)
	if err != nil {
		return err
	}
	if c.HTML != "" {
		page := sheet.Sheet{Title: c.Vary, Made: time.Now(), Command: bench.Again(os.Args), Study: study}
		for i, r := range sweep.Reports {
			page.Groups = append(page.Groups, &sheet.Group{Name: fmt.Sprint(i+1, " ", c.Vary), Runs: []*bench.Report{r}})
		}
		if err := writeTo(c.HTML, page.Write); err != nil {
			return err
		}
	}
	if c.JSON {
		return write(os.Stdout, study)
	}
	study.WriteText(os.Stdout)
	return nil
}

// Limit is `server bench limit`.
type Limit struct {
	Sockets int    `help:"To write to in turn; 0: 1,000, or what the descriptors allow."`
	Bytes   int    `help:"Of each message; 0: 200."`
	Dir     string `type:"existingdir" help:"Where the file that is synced is made: on the disk of the journal." placeholder:"DIR"`
	JSON    bool   `help:"Print JSON."`
}

func (c *Limit) Run(ctx context.Context) error {
	l, err := limit.Measure(ctx, limit.Config{Sockets: c.Sockets, Bytes: c.Bytes, Dir: c.Dir, Time: time.Second})
	switch {
	case err != nil:
		return err
	case c.JSON:
		return write(os.Stdout, l)
	}
	l.WriteText(os.Stdout)
	return nil
}

// Fit is `server bench fit`.
type Fit struct {
	File string    `arg:"" help:"Comma-separated values with a head: p (processors, nodes), x (throughput) and, if measured, utilisations of resources in percent. -: standard input."`
	At   []float64 `help:"Also say what the models promise for these p; none: twice the largest." placeholder:"P"`
	JSON bool      `help:"Print JSON."`
}

func (c *Fit) Run() error {
	points, err := readPoints(c.File)
	if err != nil {
		return err
	}
	study, err := model.NewStudy(points, c.At...)
	switch {
	case err != nil:
		return err
	case c.JSON:
		return write(os.Stdout, study)
	}
	study.WriteText(os.Stdout)
	return nil
}

// readPoints reads a table from a file, or - from the standard input.
func readPoints(path string) (*model.Data, error) {
	file := os.Stdin
	if path != "-" {
		opened, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer opened.Close()
		file = opened
	}
	points, err := model.Read(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return points, nil
}
