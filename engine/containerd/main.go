// Package containerd is containerd's server as a program inside skein: the
// guard starts skein under the name "containerd" and main comes here.
//
// Its invariant: it is containerd with its own command line, so that whoever
// knows containerd knows this process.
package containerd

import (
	"context"

	"github.com/containerd/containerd/v2/cmd/containerd/command"
)

// Program is the name, argv[0], under which a process becomes containerd.
const Program = "containerd"

// Main runs containerd with its command line (args[0] is the program's name)
// and blocks until a signal ends it.
func Main(ctx context.Context, args []string) error {
	return command.App().Run(ctx, args)
}
