package control

import (
	"context"

	"tote/server/proto"
)

// Process is a process that serves, or is about to.
type Process struct {
	PID     int        `json:"pid"`
	Version string     `json:"version"` // of its binary
	Began   proto.Time `json:"began"`   // µs since 1970
}

// Upgrade has another process take over. It is given the flags of the one that serves.
type Upgrade struct {
	Binary string     `json:"binary,omitempty"` // path from /; empty: that of the server, which may have been replaced meanwhile
	Drain  proto.Time `json:"drain,omitempty"`  // µs in which clients are told; 0: as the server's flag says
	Spread proto.Time `json:"spread,omitempty"` // µs in which they come back; 0: as the server's flag says
}

// Process shows who serves.
func (c *Client) Process(ctx context.Context) (*Process, error) {
	return get[Process](ctx, c, PathProcess)
}

// Upgrade has another process take over, and returns when that one waits for it: from then on clients are told to come back, and Process shows the other one
// as soon as it serves. An error is why nothing has changed.
func (c *Client) Upgrade(ctx context.Context, u Upgrade) (*Process, error) {
	return post[Process](ctx, c, PathUpgrade, u)
}
