package systemd

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// Units are what systemd is to run, and how much it may do.
type Units struct {
	Binary      string // absolute path
	Config      string // absolute path of its TOML file; "": none
	Players     string // address, as in 0.0.0.0:8080
	Operators   string
	User        string // "": systemd makes one for as long as the service runs (DynamicUser)
	Descriptors uint64 // LimitNOFILE
}

// Files returns the units by their names: the service, and a socket for each listener, so that a restart refuses nobody and a port below 1024
// needs no privilege.
func (u Units) Files() (map[string]string, error) {
	if !filepath.IsAbs(u.Binary) || u.Config != "" && !filepath.IsAbs(u.Config) {
		return nil, errors.New("write units: the binary's and the configuration's paths begin with /")
	}
	if strings.ContainsAny(u.Binary+u.Config+u.User, " \t\n\"'\\%$") {
		return nil, errors.New("write units: paths and user are plain words")
	}
	command := []string{u.Binary, "serve", "--data", "/var/lib/tote"}
	if u.Config != "" {
		command = append(command, "--config", u.Config)
	}
	who := "DynamicUser=yes"
	if u.User != "" {
		who = "User=" + u.User
	}
	files := map[string]string{"tote.service": fmt.Sprintf(service, strings.Join(command, " "), u.Binary+" upgrade --admin "+near(u.Operators), who, u.Descriptors)}
	for _, s := range []struct{ unit, name, what, address string }{
		{"tote.socket", Players, "players", u.Players},
		{"tote-admin.socket", Operators, "operators", u.Operators},
	} {
		if _, _, err := net.SplitHostPort(s.address); err != nil {
			return nil, fmt.Errorf("write units: the address of %s: %w", s.what, err)
		}
		files[s.unit] = fmt.Sprintf(socket, s.what, s.address, s.name)
	}
	return files, nil
}

// near is where operators are heard on this host.
func near(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

const service = `[Unit]
Description=Live parimutuel prediction games
Documentation=file:///usr/share/doc/tote/README.md
Wants=network-online.target
After=network-online.target tote.socket tote-admin.socket
Requires=tote.socket tote-admin.socket

[Service]
Type=notify
ExecStart=%s
# Another process takes over, with the binary that is there now: see Upgrade in README.md.
ExecReload=%s
# A long journal is replayed before it is ready; a great settlement is paid to its end before it stops.
TimeoutStartSec=15min
TimeoutStopSec=2min
# Fed only while every loop, every shard and the journal move on.
WatchdogSec=30
Restart=on-failure
RestartSec=1
KillMode=mixed
# Secrets, as in SERVER_ADMIN_TOKEN=...; readable by root alone.
EnvironmentFile=-/etc/tote/environment

%s
StateDirectory=tote
StateDirectoryMode=0700
UMask=0077

LimitNOFILE=%d
MemoryHigh=85%%
# Of all that runs here this holds people's money: let others go first.
OOMScoreAdjust=-500
TasksMax=4096

CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# Not ProcSubset=pid: the check at the start reads /proc/sys and /proc/meminfo, and Go the length of the accept queue.
ProtectProc=invisible
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers=yes
# AF_NETLINK counts half-open connections; nothing can be set by it without a privilege.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
# @system-service has io_uring, epoll and mlock. What is filtered fails, and io_uring then falls back to writes.
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
Also=tote.socket tote-admin.socket
`

const socket = `[Unit]
Description=Live parimutuel prediction games: the door of %s

[Socket]
ListenStream=%s
FileDescriptorName=%s
Service=tote.service
# As many as net.core.somaxconn allows.
Backlog=65535
# The server pings by itself.
KeepAlive=no
NoDelay=yes

[Install]
WantedBy=sockets.target
`
