package admin

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tote/server/proto"
	"tote/server/proto/control"
)

// Backup copies the store while it is in use. file is called for each file of the copy, with its size, and returns what
// gets its bytes; last is the last record in the whole.
type Backup func(file func(name string, size int64) (io.Writer, error)) (last uint64, err error)

const (
	// backupRate is a tenth of what a disk reads, so that the journal's syncs hardly notice.
	backupRate = 64 << 20 // bytes per second

	// backupStall is how long whoever gets a backup may take nothing: as long as it lasts, the store's files only grow.
	backupStall = 30 * time.Second

	backupPiece = 256 << 10   // bytes between two looks at the clock
	backupLook  = time.Second // between two looks whether the server stops
)

// showBackup sends a backup as tar, with the files' sums at its end: a connection that breaks leaves what everybody can tell from a whole.
func (d *Desk) showBackup(w http.ResponseWriter, r *http.Request) {
	rate, err := strconv.ParseUint(cmp.Or(r.FormValue("rate"), "0"), 10, 53)
	if err != nil {
		malformed(w, fmt.Sprintf("rate is %.40q, which is no number of bytes per second", r.FormValue("rate")))
		return
	}
	if d.config.Backup == nil {
		fail(w, http.StatusNotFound, proto.Problem{Code: "not_kept", Reason: "this server keeps nothing"})
		return
	}
	to := &slowly{desk: d, request: r, to: w, control: http.NewResponseController(w), rate: float64(cmp.Or(rate, backupRate)), began: time.Now()}
	archive := tar.NewWriter(to)
	var sums strings.Builder
	var name string
	var sum hash.Hash
	entry := func(next string, size int64) error {
		if name != "" {
			fmt.Fprintf(&sums, "%x  %s\n", sum.Sum(nil), name)
		}
		name, sum = next, sha256.New()
		return archive.WriteHeader(&tar.Header{Name: next, Mode: 0o600, Size: size, ModTime: to.began})
	}
	last, err := d.config.Backup(func(next string, size int64) (io.Writer, error) {
		w.Header().Set("Content-Type", "application/x-tar")
		err := entry(next, size)
		return io.MultiWriter(archive, sum), err
	})
	if err == nil {
		fmt.Fprintf(&sums, "%x  %s\n", sum.Sum(nil), name)
		name = ""
		if err = entry(control.Sums, int64(sums.Len())); err == nil {
			_, err = io.WriteString(archive, sums.String())
		}
	}
	if err == nil {
		err = archive.Close()
	}
	switch {
	case err == nil:
		d.config.Log.Info("backed up", "record", last, "bytes", to.sent, "took", time.Since(to.began))
		_ = to.control.SetWriteDeadline(time.Time{}) // the connection's next answer has its own
	case to.sent == 0:
		fail(w, http.StatusInternalServerError, proto.Problem{Code: "internal", Reason: "the data cannot be read", Detail: err.Error()})
	default: // too late for an answer: the client shall see that it is not whole
		d.config.Log.Error("a backup ended before it was whole", "bytes", to.sent, "error", err)
		panic(http.ErrAbortHandler)
	}
}

// slowly keeps to a rate, and gives up where the other side takes nothing or the server stops.
type slowly struct {
	desk    *Desk
	request *http.Request
	to      io.Writer
	control *http.ResponseController
	rate    float64 // bytes per second
	began   time.Time
	sent    int64
}

func (s *slowly) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if err := s.desk.config.Ready(); err != nil {
			return n, fmt.Errorf("the server stops: %w", err)
		}
		if err := s.control.SetWriteDeadline(time.Now().Add(backupStall)); err != nil {
			return n, err
		}
		m, err := s.to.Write(p[n:min(len(p), n+backupPiece)])
		n, s.sent = n+m, s.sent+int64(m)
		if err != nil {
			return n, err
		}
		if err := s.wait(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// wait lets the clock catch up with what was sent.
func (s *slowly) wait() error {
	due := s.began.Add(time.Duration(float64(s.sent) / s.rate * float64(time.Second)))
	for early := time.Until(due); early >= time.Millisecond; early = time.Until(due) {
		select {
		case <-time.After(min(early, backupLook)):
		case <-s.request.Context().Done():
			return s.request.Context().Err()
		}
		if err := s.desk.config.Ready(); err != nil {
			return fmt.Errorf("the server stops: %w", err)
		}
	}
	return nil
}
