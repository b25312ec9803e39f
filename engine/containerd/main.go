// Package containerd is containerd's server as a program inside skein: the
// guard starts skein under the name "containerd" and main comes here.
//
// Its invariant: it is containerd with its own command line, so that whoever
// knows containerd knows this process.
package containerd

import (
	"context"
	"runtime/debug"
	"strings"

	"github.com/containerd/containerd/v2/cmd/containerd/command"
	"github.com/containerd/containerd/v2/version"
)

// Program is the name, argv[0], under which a process becomes containerd.
const Program = "containerd"

const module = "github.com/containerd/containerd/v2"

// Main runs containerd with its command line (args[0] is the program's name)
// and blocks until a signal ends it.
func Main(ctx context.Context, args []string) error {
	// containerd learns its version from its own build, which this is not; a
	// Node's containerRuntimeVersion shows it.
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == module {
				version.Version = strings.TrimPrefix(dep.Version, "v")
			}
		}
	}
	return command.App().Run(ctx, args)
}
