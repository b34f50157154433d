package ctl

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"tote/server/proto/control"
)

type backup struct {
	Directory string `arg:"" type:"path" help:"Where to; it must not exist. It has the secret that players' tokens are signed with: keep it as the data itself."`
	Rate      uint64 `help:"Bytes per second at most; 0: 64 MiB."`
}

// backedUp is what was copied.
type backedUp struct {
	Directory string           `json:"directory"`
	Files     map[string]int64 `json:"files"` // their bytes
}

// Run copies into a directory beside, which gets its name when it is whole and on the disk: what has the name is a backup.
func (c *backup) Run(s *Session) error {
	done, err := c.copy(s)
	if err != nil {
		err = fmt.Errorf("back up into %s: %w", c.Directory, err)
	}
	return print(s, done, err)
}

func (c *backup) copy(s *Session) (*backedUp, error) {
	if _, err := os.Lstat(c.Directory); err == nil {
		return nil, errors.New("it exists; name a new directory")
	}
	from, err := s.Client.Backup(s.Context, c.Rate)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	parent, name := filepath.Split(c.Directory)
	partial, err := os.MkdirTemp(parent, "."+name+".partial-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(partial) // finds nothing once it has been renamed
	done := &backedUp{Directory: c.Directory, Files: map[string]int64{}}
	if err := done.unpack(from, partial); err != nil {
		return nil, err
	}
	if err := syncFile(partial); err != nil {
		return nil, err
	}
	if err := os.Rename(partial, c.Directory); err != nil {
		return nil, err
	}
	return done, syncFile(filepath.Clean(parent))
}

// unpack writes the files of the archive and compares them with the sums at its end.
func (done *backedUp) unpack(from io.Reader, to string) error {
	var sums bytes.Buffer
	for archive := tar.NewReader(from); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("it ended before it was whole")
		}
		if err != nil {
			return err
		}
		if head.Name == control.Sums {
			stated, err := io.ReadAll(archive)
			if err == nil && !bytes.Equal(stated, sums.Bytes()) {
				err = fmt.Errorf("what arrived differs from what was sent: %s", strings.TrimSpace(sums.String()))
			}
			return err
		}
		if head.Name != filepath.Base(head.Name) || head.Typeflag != tar.TypeReg {
			return fmt.Errorf("there is %.100q in it, which is no file of a store", head.Name)
		}
		file, err := os.OpenFile(filepath.Join(to, head.Name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		sum := sha256.New()
		n, err := io.Copy(io.MultiWriter(file, sum), archive)
		if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
			return err
		}
		done.Files[head.Name] = n
		fmt.Fprintf(&sums, "%x  %s\n", sum.Sum(nil), head.Name)
	}
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
