// Command cni is the program the container runtime runs to connect a pod.
//
// Its invariant: it stays small and static, because it is started twice a pod.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"skein.dev/skein/network/cni"
)

func main() {
	skel.PluginMainFuncs(cni.Funcs(), version.All, "Skein CNI plugin: a routed veth pair for each pod")
}
