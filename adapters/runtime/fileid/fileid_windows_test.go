package fileid

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"companion/messages"
)

// M9: the identity of a file is the same through every descriptor and name, and differs after a change of
// content or time and for another file.
func TestIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model")
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	of := func(path string) messages.FileIdentity {
		t.Helper()
		f, err := os.Open(path)
		must(err)
		id, err := Of(f)
		must(err, f.Close())
		return id
	}
	written := time.Unix(1_700_000_000, 0)
	must(os.WriteFile(path, []byte("weights"), 0o600), os.Chtimes(path, written, written))
	first := of(path)
	if first.Inode == 0 || first.Device == 0 || first.Size != 7 || first.ModifiedNano != written.UnixNano() || first.ChangeNano == 0 {
		t.Errorf("got %+v, want size and times of the file", first)
	}
	if again := of(path); again != first {
		t.Errorf("got %+v, want %+v again", again, first)
	}
	must(os.Rename(path, path+"2"), os.WriteFile(path, []byte("weights"), 0o600), os.Chtimes(path, written, written))
	if moved := of(path + "2"); moved.Inode != first.Inode || moved.Device != first.Device {
		t.Errorf("under another name: got %+v, want the inode of %+v", moved, first)
	}
	if other := of(path); other.Inode == first.Inode {
		t.Errorf("got the same inode %+v for another file, want a different one", other)
	}
	must(os.WriteFile(path+"2", []byte("weightS"), 0o600))
	if changed := of(path + "2"); changed == first {
		t.Errorf("got the same identity %+v after a change, want a different one", changed)
	}
}
