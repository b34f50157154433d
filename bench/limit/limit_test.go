package limit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	l, err := Measure(t.Context(), Config{Sockets: 50, Bytes: 100, Time: 50 * time.Millisecond, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Cost{"write": l.Write, "read": l.Read, "sync": l.Sync, "encode": l.Encode, "decode": l.Decode} {
		// A thread's CPU time may be told in ticks of several milliseconds, so wall time alone is sure.
		if c.Count < 1 || c.Wall <= 0 || c.CPU < 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if l.Write.Count != l.Read.Count || l.Write.Count%50 != 0 {
		t.Errorf("%d writes, %d reads", l.Write.Count, l.Read.Count)
	}
	// What is known of any machine: a system call is dearer than a hundred bytes of JSON, and a synced append than a write.
	if l.Sync.Wall < l.Encode.Wall {
		t.Errorf("a sync takes %g µs, a receipt %g", l.Sync.Wall, l.Encode.Wall)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	var text bytes.Buffer
	l.WriteText(&text)
	if !strings.Contains(text.String(), "write of 100 bytes to one of 50 sockets") {
		t.Errorf("%s", &text)
	}
	if _, err := json.Marshal(l); err != nil {
		t.Error(err)
	}
}

func TestMeasureStops(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	end()
	if _, err := Measure(ctx, Config{Sockets: 2, Time: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Measure(t.Context(), Config{Sockets: 2, Time: time.Millisecond, Dir: "/nowhere"}); err == nil || !strings.Contains(err.Error(), "make a file") {
		t.Error(err)
	}
}

func TestSpread(t *testing.T) {
	if got := spread([]float64{2, 1, 3}); got != 1 {
		t.Errorf("%g", got)
	}
	if spread(nil) != 0 || spread([]float64{0, 0}) != 0 {
		t.Error("nothing has a spread")
	}
}
