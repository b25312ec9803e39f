package guard

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// DefaultListen is where a guard answers that its machine lives.
const DefaultListen = ":6444"

// ExitConfig is the status with which a daemon says that starting it again
// is useless until a human changes something (EX_CONFIG of sysexits.h).
const ExitConfig = 78

// Command is how a process is started. Nothing is inherited from the guard
// but its namespaces and capabilities.
type Command struct {
	Path string   `json:"path"` // absolute
	Argv []string `json:"argv"` // argv[0] included
	Env  []string `json:"env"`
	// Log is the file that gets stdout and stderr; empty means the guard's own.
	Log string `json:"log,omitempty"`
	// Cgroup is the process' cgroup, "/skein/daemon", in every hierarchy that
	// can be written; empty means the guard's.
	Cgroup string `json:"cgroup,omitempty"`
}

// Config is what a guard is told, as JSON in a file of mode 0600.
type Config struct {
	// StateDir keeps the guard's socket, lock and its record of processes. It
	// must be lost or be the same after a reboot; both are understood.
	StateDir string `json:"stateDir"`
	// Engine is containerd; nil when the container runtime is another's.
	Engine *Command `json:"engine,omitempty"`
	// Daemon is the peer. It is started after Engine.
	Daemon Command `json:"daemon"`
	// Listen is the TCP address of the answer "this machine lives"; empty
	// means DefaultListen.
	Listen string `json:"listen,omitempty"`
	// Cert, Key and Pool are PEM files: the peer's certificate and key, and
	// the CAs of the peers that may ask. They may appear or change later.
	Cert string `json:"cert"`
	Key  string `json:"key"`
	Pool string `json:"pool"`
	// Incarnation is a file whose content the answer carries; may be missing.
	Incarnation string `json:"incarnation,omitempty"`
	// Cgroup is the guard's own, as Command.Cgroup.
	Cgroup string `json:"cgroup,omitempty"`
	// Grace is how long a process has between SIGTERM and SIGKILL; 0 means 30 s.
	Grace time.Duration `json:"grace,omitempty"`

	// Log may be nil.
	Log *slog.Logger `json:"-"`
}

// Save writes cfg for [Load], readable by its owner only.
func (cfg Config) Save(path string) error {
	b, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return fmt.Errorf("encode guard configuration: %w", err)
	}
	return writeFile(path, b)
}

// Load reads what [Config.Save] wrote.
func Load(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read guard configuration: %w", err)
	}
	var cfg Config
	if err := json.Unmarshal(b, &cfg); err != nil {
		return Config{}, fmt.Errorf("decode guard configuration %s: %w", path, err)
	}
	return cfg, nil
}

func (cfg *Config) complete() error {
	if !filepath.IsAbs(cfg.StateDir) {
		return fmt.Errorf("guard state directory %q: want an absolute path", cfg.StateDir)
	}
	if cfg.Cert == "" || cfg.Key == "" || cfg.Pool == "" {
		return errors.New("guard configuration: certificate, key and pool must be named")
	}
	if err := cfg.Daemon.check(); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	if cfg.Engine != nil {
		if err := cfg.Engine.check(); err != nil {
			return fmt.Errorf("container engine: %w", err)
		}
	}
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	if cfg.Grace == 0 {
		cfg.Grace = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func (c Command) check() error {
	if !filepath.IsAbs(c.Path) || len(c.Argv) == 0 {
		return fmt.Errorf("command %q %q: want an absolute path and a name", c.Path, c.Argv)
	}
	return nil
}

// digest tells one command from another.
func (c Command) digest() string {
	b, _ := json.Marshal(c) // strings always encode
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// writeFile replaces path in one step with mode 0600.
func writeFile(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
