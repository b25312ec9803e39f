package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"skein.dev/skein/engine"
	"skein.dev/skein/engine/programs"
	"skein.dev/skein/guard"
	"skein.dev/skein/identity"
)

// LoadConfig returns the settings that the peer in dataDir was made with; it
// fails with fs.ErrNotExist if there is none.
func LoadConfig(dataDir string) (Config, error) {
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return Config{}, fmt.Errorf("resolve data directory: %w", err)
	}
	c := DefaultConfig()
	if _, err := loadRecord(dataDir); err != nil {
		return c, err
	}
	fs := pflag.NewFlagSet("config", pflag.ContinueOnError)
	c.AddFlags(fs)
	if err := LoadFile(ConfigPath(dataDir), fs); err != nil {
		return c, err
	}
	c.DataDir = dataDir
	return c, c.Complete()
}

// Launch is what starts a peer's processes.
type Launch struct {
	Guard  string       // the guard's program
	Config guard.Config // what it is told
}

// Prepare makes ready what the guard of the peer starts, with exe as the
// skein program: programs, directories, containerd's configuration. It may
// run while an older peer does.
func Prepare(ctx context.Context, c Config, exe string) (*Launch, error) {
	for _, dir := range []string{c.DataDir, c.StateDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	e, err := newEngine(c, exe, nil)
	if err != nil {
		return nil, err
	}
	if err := programs.Unpack(e.ProgramsDir()); err != nil {
		return nil, err
	}
	keys := c.keys()
	l := &Launch{
		Guard: filepath.Join(e.ProgramsDir(), programs.Guard),
		Config: guard.Config{
			StateDir: c.StateDir,
			Daemon: guard.Command{
				Path: exe, Argv: []string{"skein", "daemon", "--data-dir", c.DataDir},
				Env: unprofiled(os.Environ()), Log: filepath.Join(c.DataDir, LogFile), Cgroup: c.CgroupParent + "/daemon",
			},
			Listen: net.JoinHostPort("", strconv.Itoa(c.GuardPort)),
			Cert:   keys.Path(identity.UsePeer), Key: keys.Path(identity.UsePeer), Pool: keys.CAPath(identity.Peers),
			Incarnation: filepath.Join(c.StateDir, incarnationFile),
			Cgroup:      c.CgroupParent + "/guard",
		},
	}
	if c.APIOnly() {
		// No pods to keep apart from: it stays in the cgroup it was started in.
		l.Config.Cgroup, l.Config.Daemon.Cgroup = "", ""
		return l, nil
	}
	if e.Embedded() {
		if err := e.Prepare(ctx); err != nil {
			return nil, err
		}
		p := e.Process()
		l.Config.Engine = &guard.Command{
			Path: p.Path, Argv: p.Argv, Env: p.Env,
			Log: filepath.Join(c.DataDir, "containerd.log"), Cgroup: c.CgroupParent + "/engine",
		}
	}
	return l, nil
}

// unprofiled is env with heap profiling off, unless it says something of
// that: the runtime keeps a table of 1.5 MiB for it from the first allocations
// on, and a daemon serves no profiles.
func unprofiled(env []string) []string {
	const debug, off = "GODEBUG=", "memprofilerate=0"
	out := slices.Clone(env)
	for i, e := range out {
		if rest, ok := strings.CutPrefix(e, debug); ok {
			if rest != "" && !strings.Contains(rest, "memprofilerate=") {
				out[i] = debug + rest + "," + off
			} else if rest == "" {
				out[i] = debug + off
			}
			return out
		}
	}
	return append(out, debug+off)
}

// newEngine is the peer's container engine; log may be nil.
func newEngine(c Config, exe string, log *slog.Logger) (*engine.Engine, error) {
	return engine.New(engine.Config{
		DataDir: c.DataDir, StateDir: c.StateDir, Endpoint: c.RuntimeEndpoint, Executable: exe,
		LogLevel: "warn", Log: log,
	})
}

// ContainerEngine is the container engine of the peer that c describes, for commands
// that speak to it beside the daemon.
func ContainerEngine(c Config) (*engine.Engine, error) {
	if c.APIOnly() {
		return nil, errNoEngine
	}
	return newEngine(c, "", nil)
}
