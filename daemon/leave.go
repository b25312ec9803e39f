package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"skein.dev/skein/api/mesh/v1alpha1"
	"skein.dev/skein/api/status"
	"skein.dev/skein/gossip"
)

// Leave takes the peer that c describes out of the mesh: its pods are ended
// and run elsewhere, its vote is given up, its records go. It speaks through
// another peer, because this one loses its voice on the way. say tells each
// step. The peer still runs when Leave returns; stopping it is the caller's.
func Leave(ctx context.Context, c Config, say func(string)) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig: %w", err)
	}
	r, err := loadRecord(c.DataDir)
	if err != nil {
		return err
	}
	other, err := otherPeer(ctx, cfg, string(r.Name))
	if err != nil {
		return err
	}
	cfg.Host = other
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	peers, err := newPeerClient(cfg)
	if err != nil {
		return err
	}
	say("ending the pods of " + string(r.Name))
	if err := drain(ctx, client, string(r.Name)); err != nil {
		return err
	}
	say("giving up the vote")
	if _, err := peers.Patch(ctx, string(r.Name), types.MergePatchType, []byte(`{"spec":{"leaving":true}}`), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("mark peer %s as leaving: %w", r.Name, err)
	}
	if err := waitNoVote(ctx, client, string(r.Name)); err != nil {
		return err
	}
	say("removing the records")
	err = client.CoreV1().Nodes().Delete(ctx, string(r.Name), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove node: %w", err)
	}
	if err := peers.Delete(ctx, string(r.Name), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove peer: %w", err)
	}
	return nil
}

// otherPeer is the URL of a peer that is not self and answers.
func otherPeer(ctx context.Context, cfg *rest.Config, self string) (string, error) {
	peers, err := newPeerClient(cfg)
	if err != nil {
		return "", err
	}
	list, err := peers.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return "", fmt.Errorf("list peers: %w", err)
	}
	for i := range list.Items {
		p := &list.Items[i]
		if p.Name == self || p.Spec.Leaving {
			continue
		}
		there := rest.CopyConfig(cfg)
		there.Host = "https://" + net.JoinHostPort(p.Spec.Addresses[0], strconv.Itoa(int(p.Spec.Port)))
		there.Timeout = 5 * time.Second
		client, err := kubernetes.NewForConfig(there)
		if err != nil {
			return "", fmt.Errorf("make client: %w", err)
		}
		if _, err := client.Discovery().ServerVersion(); err == nil {
			return there.Host, nil
		}
	}
	return "", hinted{errors.New("no other peer answers: this one holds the cluster's only data"), "`skein reset` removes the cluster with it"}
}

// drain ends the pods of a node and waits until they are gone.
func drain(ctx context.Context, client kubernetes.Interface, node string) error {
	_, err := client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("close node %s: %w", node, err)
	}
	there := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()}
	for {
		pods, err := client.CoreV1().Pods(corev1.NamespaceAll).List(ctx, there)
		if err != nil {
			return fmt.Errorf("list pods of %s: %w", node, err)
		}
		if len(pods.Items) == 0 {
			return nil
		}
		for _, pod := range pods.Items {
			if pod.DeletionTimestamp != nil {
				continue
			}
			err := client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
				Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
			})
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				return fmt.Errorf("end pod %s/%s: %w", pod.Namespace, pod.Name, err)
			}
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the end of %d pods on %s: %w", len(pods.Items), node, err)
		}
	}
}

// waitNoVote waits until the store's leader has taken the peer out of raft.
func waitNoVote(ctx context.Context, client kubernetes.Interface, name string) error {
	for {
		kind, err := raftKind(ctx, client, name)
		if err == nil && kind == "none" {
			return nil
		}
		if end := pause(ctx, 100*time.Millisecond); end != nil {
			return fmt.Errorf("wait until %s has no part in the log (it is %s): %w", name, kind, errors.Join(err, end))
		}
	}
}

func raftKind(ctx context.Context, client kubernetes.Interface, name string) (string, error) {
	raw, err := client.Discovery().RESTClient().Get().AbsPath(status.Path).DoRaw(ctx)
	if err != nil {
		return "unknown", fmt.Errorf("ask for the mesh's status: %w", err)
	}
	var m status.Mesh
	if err := json.Unmarshal(raw, &m); err != nil {
		return "unknown", fmt.Errorf("read the mesh's status: %w", err)
	}
	for _, p := range m.Peers {
		if p.Name == name {
			return p.Raft, nil
		}
	}
	return "none", nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// sayGoodbye tells the others why this daemon stops, so that nobody takes it
// for dead: for good if its record says that it leaves.
func (p *peer) sayGoodbye(ctx context.Context) error {
	<-ctx.Done()
	what := gossip.Restarting
	if own := p.membership.find(string(p.record.Name)); own == nil || own.Spec.Leaving {
		what = gossip.Leaving
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return p.pool.Announce(ctx, what)
}

// find returns the record of a peer, or nil.
func (m *membership) find(name string) *v1alpha1.Peer {
	for _, p := range m.peers() {
		if p.Name == name {
			return p
		}
	}
	return nil
}
