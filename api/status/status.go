// Package status is the answer of `skein status` and of the API path
// /mesh/v1/status: what one peer knows of the mesh.
//
// Its invariant: the JSON form is a promise to programs; fields are added,
// never renamed or removed.
package status

// Path is where every peer serves its Mesh.
const Path = "/mesh/v1/status"

// Mesh is the mesh as the answering peer sees it.
type Mesh struct {
	// Cluster is the cluster's id.
	Cluster string `json:"cluster"`
	// Revision is the newest one the answering peer has applied.
	Revision int64 `json:"revision"`
	// Quorum says that the answering peer could make a linearizable read.
	Quorum bool `json:"quorum"`
	// Leaders are names of peers, empty where nobody leads.
	Leaders Leaders `json:"leaders"`
	Peers   []Peer  `json:"peers"`
	// Answered names the peer this answer comes from.
	Answered string `json:"answered"`
	// Store are figures of the answering peer's log, for who measures.
	Store Store `json:"store"`
}

// Leaders names the holder of each leadership.
type Leaders struct {
	Store       string `json:"store"`
	Scheduler   string `json:"scheduler"`
	Controllers string `json:"controllers"`
}

// Peer is one machine of the mesh.
type Peer struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	// Health is a member.State.
	Health string `json:"health"`
	// Raft is "leader", "voter", "non-voter" or "none".
	Raft string `json:"raft"`
	// Ready is the Node's Ready condition.
	Ready bool `json:"ready"`
	// APIOnly says that the peer is only an API server and has no Node.
	APIOnly bool   `json:"apiOnly,omitempty"`
	Version string `json:"version"`
}

// Store counts what the answering peer wrote to its log since it started.
type Store struct {
	Appends     uint64 `json:"appends"`
	Bytes       uint64 `json:"bytes"`
	Incarnation string `json:"incarnation"`
	Hash        string `json:"hash"`
}
