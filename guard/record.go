package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// record is what the next guard needs to know to adopt this one's processes.
type record struct {
	path string

	mu   sync.Mutex // guards the field below and the file
	data recordData
}

type recordData struct {
	BootID    string           `json:"bootID"`
	Processes map[string]entry `json:"processes"`
}

type entry struct {
	identity
	Command string `json:"command"` // Command.digest of what it was started as
}

// openRecord reads the record in dir. One of another boot names nobody.
func openRecord(dir, boot string) (*record, error) {
	r := &record{path: filepath.Join(dir, "guard-processes.json"), data: recordData{BootID: boot, Processes: map[string]entry{}}}
	b, err := os.ReadFile(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	} else if err != nil {
		return nil, fmt.Errorf("read guard record: %w", err)
	}
	var old recordData
	if err := json.Unmarshal(b, &old); err != nil {
		return nil, fmt.Errorf("decode guard record %s: %w", r.path, err)
	}
	if old.BootID == boot && old.Processes != nil {
		r.data = old
	}
	return r, nil
}

func (r *record) get(name string) (entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.data.Processes[name]
	return e, ok
}

func (r *record) put(name string, e entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data.Processes[name] = e
	b, err := json.Marshal(r.data)
	if err != nil {
		return fmt.Errorf("encode guard record: %w", err)
	}
	return writeFile(r.path, b)
}

// ErrRunning says that a guard of the same state directory runs already.
var ErrRunning = errors.New("a guard is running already")

// lock makes this process the only guard of dir until the file is closed or
// the process ends. The file is not inherited by what the guard executes.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make guard state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "guard.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open guard lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrRunning
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}
