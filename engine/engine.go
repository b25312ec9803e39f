// Package engine is the container engine of a peer: the containerd inside the
// skein binary, or any CRI runtime that the user names.
//
// Its invariant: a peer's engine shares no file, socket, cgroup or mount with
// that of another peer on the same machine, and the daemon's life and death
// do not touch it: it is started by the guard and only spoken to from here.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"skein.dev/skein/engine/containerd"
	"skein.dev/skein/engine/programs"
)

// maxStateDir keeps the longest socket path, a shim's "<state>/s/<64 hex
// digits>", within the 107 bytes that the kernel takes.
const maxStateDir = 40

// Config places an engine. DataDir and StateDir are the peer's; the engine
// makes folders of its own in them.
type Config struct {
	// DataDir keeps images, containers and the unpacked programs. Absolute.
	DataDir string
	// StateDir keeps sockets and what a reboot may lose: best on a tmpfs such
	// as /run. Absolute, at most 40 bytes (see maxStateDir).
	StateDir string
	// Endpoint is the unix socket of another CRI runtime ("unix:///..." or a
	// path). Empty means the embedded containerd.
	Endpoint string
	// Executable is the skein binary that becomes containerd. Empty means
	// this process' own.
	Executable string
	// CNIConfDir is where containerd looks for network configurations, the
	// first by name wins. Empty means <DataDir>/cni/net.d.
	CNIConfDir string
	// CNIBinDirs are searched for network plugins after the unpacked
	// programs. Nil means /opt/cni/bin.
	CNIBinDirs []string
	// LogLevel is containerd's. Empty means "info".
	LogLevel string
	// Log may be nil.
	Log *slog.Logger
}

// Engine speaks to one peer's container engine. It is safe for concurrent use.
type Engine struct {
	cfg Config
	log *slog.Logger
}

// New checks cfg and fills its defaults in; it touches nothing.
func New(cfg Config) (*Engine, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{cfg: cfg, log: cfg.Log}
	if !e.Embedded() {
		e.cfg.Endpoint = "unix://" + strings.TrimPrefix(cfg.Endpoint, "unix://")
		if !filepath.IsAbs(socketPath(e.cfg.Endpoint)) {
			return nil, fmt.Errorf("runtime endpoint %q: want unix:// and an absolute path", cfg.Endpoint)
		}
		return e, nil
	}
	if !filepath.IsAbs(cfg.DataDir) || !filepath.IsAbs(cfg.StateDir) {
		return nil, fmt.Errorf("engine directories %q and %q: want absolute paths", cfg.DataDir, cfg.StateDir)
	}
	if len(cfg.StateDir) > maxStateDir {
		return nil, fmt.Errorf("state directory %s: %d bytes, but the sockets in it leave room for %d", cfg.StateDir, len(cfg.StateDir), maxStateDir)
	}
	if cfg.CNIConfDir == "" {
		e.cfg.CNIConfDir = filepath.Join(cfg.DataDir, "cni", "net.d")
	}
	if cfg.CNIBinDirs == nil {
		e.cfg.CNIBinDirs = []string{"/opt/cni/bin"}
	}
	if cfg.LogLevel == "" {
		e.cfg.LogLevel = "info"
	}
	if cfg.Executable == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find own executable: %w", err)
		}
		e.cfg.Executable = self
	}
	return e, nil
}

// Embedded tells whether the engine is the containerd that the guard starts;
// if not, there is no Process and nothing to Prepare.
func (e *Engine) Embedded() bool { return e.cfg.Endpoint == "" }

// Endpoint is the CRI socket as "unix:///path".
func (e *Engine) Endpoint() string {
	if !e.Embedded() {
		return e.cfg.Endpoint
	}
	return "unix://" + filepath.Join(e.cfg.StateDir, "c.sock")
}

// CNIConfDir is where the network's configuration belongs.
func (e *Engine) CNIConfDir() string { return e.cfg.CNIConfDir }

// ProgramsDir is where [Engine.Prepare] unpacks guard, cni, shim, runc and pause.
func (e *Engine) ProgramsDir() string { return filepath.Join(e.cfg.DataDir, "programs") }

// Process is how the guard starts containerd.
type Process struct {
	Path string   // the file to execute
	Argv []string // Argv[0] makes skein containerd
	Env  []string // the whole environment, nothing is inherited
}

// Process returns containerd's command; call [Engine.Prepare] before it is
// started. The zero Process means that there is none to start.
func (e *Engine) Process() Process {
	if !e.Embedded() {
		return Process{}
	}
	path := e.ProgramsDir() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	p := Process{
		Path: e.cfg.Executable,
		Argv: []string{containerd.Program, "--config", e.configPath(), "--log-level", e.cfg.LogLevel},
		Env:  []string{"PATH=" + path},
	}
	// The proxy is for image pulls: containerd is the one that makes them.
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(strings.ToUpper(kv), "="); name == "HTTP_PROXY" || name == "HTTPS_PROXY" || name == "NO_PROXY" {
			p.Env = append(p.Env, kv)
		}
	}
	return p
}

func (e *Engine) configPath() string { return filepath.Join(e.cfg.StateDir, "containerd.toml") }

// Prepare unpacks the programs and writes containerd's configuration and
// folders. It may run while containerd does.
func (e *Engine) Prepare(ctx context.Context) error {
	if !e.Embedded() {
		return nil
	}
	if err := programs.Unpack(e.ProgramsDir()); err != nil {
		return err
	}
	s := e.settings()
	for _, dir := range []string{s.Root, s.State, s.ShimSockets, s.RegistryHosts, s.CNIConfDir} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make engine directory: %w", err)
		}
	}
	if err := os.WriteFile(e.configPath(), []byte(render(s)), 0o600); err != nil {
		return fmt.Errorf("write containerd configuration: %w", err)
	}
	if s.RestrictOOMScore {
		e.log.WarnContext(ctx, "no permission to lower oom scores, pods keep at least this process' own")
	}
	return nil
}

func (e *Engine) settings() settings {
	dir := e.cfg.StateDir
	return settings{
		Root:             filepath.Join(e.cfg.DataDir, "containerd"),
		State:            filepath.Join(dir, "containerd"),
		Socket:           socketPath(e.Endpoint()),
		ShimSockets:      filepath.Join(dir, "s"),
		Temp:             filepath.Join(dir, "tmp"), // short as well: runc's console sockets are made in it
		RuncRoot:         filepath.Join(dir, "runc"),
		Runc:             filepath.Join(e.ProgramsDir(), programs.Runc),
		PauseImage:       PauseImage,
		RegistryHosts:    filepath.Join(e.cfg.DataDir, "registry"),
		CNIBinDirs:       append([]string{e.ProgramsDir()}, e.cfg.CNIBinDirs...),
		CNIConfDir:       e.cfg.CNIConfDir,
		RestrictOOMScore: !mayLowerOOMScores(),
	}
}

// mayLowerOOMScores tells whether this process has CAP_SYS_RESOURCE in effect;
// the guard starts containerd with the same capabilities.
func mayLowerOOMScores() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func socketPath(endpoint string) string { return strings.TrimPrefix(endpoint, "unix://") }

// ErrExternal is returned where an act needs containerd and the runtime at
// the configured endpoint is another.
var ErrExternal = errors.New("the external runtime is not containerd")
