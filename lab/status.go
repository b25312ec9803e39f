package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Status is what the lab looks like from outside its mesh.
type Status struct {
	Dir string `json:"dir"`
	// Any is the loopback port that leads to the API of a peer that answers.
	Any   int          `json:"any"`
	Peers []PeerStatus `json:"peers"`
}

// PeerStatus is one peer and its processes.
type PeerStatus struct {
	Peer
	// Processes are the peer's, containers included; none means it is off.
	Processes int `json:"processes"`
}

// Status reads the lab's state; it fails with ErrNoLab if there is none.
func (l *Lab) Status() (Status, error) {
	s, err := readState(l.cfg.Dir)
	if err != nil {
		return Status{}, err
	}
	out := Status{Dir: l.cfg.Dir, Any: s.Any}
	for _, p := range s.Peers {
		pids, err := processes(p.Cgroup)
		if err != nil {
			return Status{}, err
		}
		out.Peers = append(out.Peers, PeerStatus{Peer: p, Processes: len(pids)})
	}
	return out, nil
}

// failover is the context that leads to any peer that answers.
const failover = "lab"

// Kubeconfig writes an administrator's kubeconfig that works on the machine
// itself and returns its path. It has one context a peer, of the peer's name,
// and the current one, "lab", leads to any peer that answers.
func (l *Lab) Kubeconfig() (string, error) {
	s, err := readState(l.cfg.Dir)
	if err != nil {
		return "", err
	}
	out := clientcmdapi.NewConfig()
	var found *clientcmdapi.Cluster
	for _, p := range s.Peers {
		if !p.Made {
			continue
		}
		cfg, err := clientcmd.LoadFromFile(p.Kubeconfig())
		if err != nil {
			return "", fmt.Errorf("read kubeconfig of %s: %w", p.Name, err)
		}
		kctx := cfg.Contexts[cfg.CurrentContext]
		if kctx == nil || cfg.Clusters[kctx.Cluster] == nil || cfg.AuthInfos[kctx.AuthInfo] == nil {
			return "", fmt.Errorf("read kubeconfig of %s: its current context is incomplete", p.Name)
		}
		found = cfg.Clusters[kctx.Cluster]
		l.add(out, p.Name, p.API, found, cfg.AuthInfos[kctx.AuthInfo])
	}
	if found == nil {
		return "", errors.New("make kubeconfig: no peer of the lab is part of a mesh yet")
	}
	// One of the administrators' certificates will do.
	for _, user := range out.AuthInfos {
		l.add(out, failover, s.Any, found, user)
		break
	}
	out.CurrentContext = failover
	path := filepath.Join(l.cfg.Dir, "kubeconfig.yaml")
	tmp := fmt.Sprintf("%s.%08x", path, rand.Uint32())
	if err := clientcmd.WriteToFile(*out, tmp); err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	return path, nil
}

func (l *Lab) add(out *clientcmdapi.Config, name string, port int, like *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) {
	c := like.DeepCopy()
	c.Server, c.LocationOfOrigin = "https://"+loopback(port), ""
	u := user.DeepCopy()
	u.LocationOfOrigin = ""
	out.Clusters[name] = c
	out.AuthInfos[name] = u
	out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
}
