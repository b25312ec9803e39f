package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	listers "k8s.io/client-go/listers/core/v1"

	"skein.dev/skein/api/member"
	"skein.dev/skein/api/role"
	"skein.dev/skein/api/status"
	"skein.dev/skein/gossip"
	"skein.dev/skein/raftstore"
)

// quorumWithin is how long the status waits for a linearizable read before it
// says that there is no quorum.
const quorumWithin = 2 * time.Second

// statusServer answers `skein status`.
type statusServer struct {
	self    member.Name
	cluster string
	store   *raftstore.Store
	pool    *gossip.Pool
	nodes   listers.NodeLister
	apiOnly func(peer string) bool
	records func() map[member.Name]string // peers on record and their addresses
	log     *slog.Logger
}

func (s *statusServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(s.status(r.Context())); err != nil {
		s.log.DebugContext(r.Context(), "status was not delivered", "err", err)
	}
}

func (s *statusServer) status(ctx context.Context) status.Mesh {
	ctx, cancel := context.WithTimeout(ctx, quorumWithin)
	defer cancel()
	_, err := s.store.Current(ctx)
	st := s.store.Status()
	m := status.Mesh{
		Cluster: s.cluster, Answered: string(s.self), Quorum: err == nil,
		Revision: int64(st.Revision),
		Store: status.Store{
			Appends: st.Appends, Bytes: st.Bytes, Incarnation: st.Incarnation, Hash: st.Hash,
		},
	}
	for _, a := range s.store.Assignments() {
		switch a.Role {
		case role.Scheduler:
			m.Leaders.Scheduler = a.Holder
		case role.Controllers:
			m.Leaders.Controllers = a.Holder
		}
	}
	suffrage := map[member.ServerID]string{}
	for _, id := range st.Voters {
		suffrage[id] = "voter"
	}
	for _, id := range st.Nonvoters {
		suffrage[id] = "non-voter"
	}
	if st.Leader != "" {
		suffrage[st.Leader] = "leader"
	}
	records := s.records()
	for _, p := range s.pool.Peers() {
		row := status.Peer{Name: string(p.Name), Address: records[p.Name], Health: string(p.State), Version: p.Version, Raft: "none"}
		if row.Address == "" && len(p.Addresses) > 0 {
			row.Address = p.Addresses[0].String()
		}
		if kind, ok := suffrage[p.ServerID]; ok {
			row.Raft = kind
		}
		if p.ServerID == st.Leader && st.Leader != "" {
			m.Leaders.Store = string(p.Name)
		}
		row.Ready, row.APIOnly = s.ready(row.Name), s.apiOnly(row.Name)
		m.Peers = append(m.Peers, row)
	}
	return m
}

func (s *statusServer) ready(name string) bool {
	node, err := s.nodes.Get(name)
	if err != nil {
		return false
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
