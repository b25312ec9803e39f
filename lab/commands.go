package lab

import "path/filepath"

// Commands makes the command lines that act on a peer. Each runs in the
// peer's namespaces and cgroup with KUBECONFIG set to the peer's own.
type Commands interface {
	// First makes a mesh on p; the command ends when p is ready.
	First(p Peer) []string
	// Token prints a join token; it runs on a peer of the mesh.
	Token(p Peer) []string
	// Join makes p a peer of the mesh of at; the command ends when p is ready.
	Join(p, at Peer, token string) []string
	// Start starts p, which was made before; the command ends when p is ready,
	// and fails if p runs.
	Start(p Peer) []string
	// Stop stops p in order; its containers may go on.
	Stop(p Peer) []string
	// Import loads an image file on p, which is ready.
	Import(p Peer, file string) []string
}

// Skein is the Commands of the skein program at Program.
type Skein struct{ Program string }

var _ Commands = Skein{}

func (s Skein) flags(p Peer) []string {
	return []string{
		"--name", p.Name, "--address", p.Address.String(), "--data-dir", p.Dir, "--state-dir", p.StateDir(),
		"--kubeconfig-out", p.Kubeconfig(), "--cgroup-parent", p.Cgroup, "--detach",
		// The disk is the whole machine's: how full it is is not the lab's concern.
		"--eviction-hard", "memory.available<100Mi", "--image-gc-high-threshold", "100",
	}
}

// First implements Commands.
func (s Skein) First(p Peer) []string { return append([]string{s.Program, "up"}, s.flags(p)...) }

// Token implements Commands.
func (s Skein) Token(Peer) []string { return []string{s.Program, "token", "create", "--ttl", "1h"} }

// Join implements Commands.
func (s Skein) Join(p, at Peer, token string) []string {
	return append([]string{s.Program, "join", at.Address.String(), "--token", token}, s.flags(p)...)
}

// Start implements Commands.
func (s Skein) Start(p Peer) []string {
	return []string{s.Program, "start", "--data-dir", p.Dir, "--detach"}
}

// Stop implements Commands.
func (s Skein) Stop(p Peer) []string { return []string{s.Program, "stop", "--data-dir", p.Dir} }

// Import implements Commands.
func (s Skein) Import(p Peer, file string) []string {
	if abs, err := filepath.Abs(file); err == nil {
		file = abs
	}
	return []string{s.Program, "image", "import", "--data-dir", p.Dir, file}
}
