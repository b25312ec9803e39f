package apiserver_test

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skein.dev/skein/apiserver"
	"skein.dev/skein/raftstore/storetest"
)

func payload(tb testing.TB) map[string]string {
	tb.Helper()
	raw := make([]byte, 512)
	if _, err := rand.Read(raw); err != nil {
		tb.Fatal(err)
	}
	return map[string]string{"data": hex.EncodeToString(raw)}
}

// clients returns how a benchmark reaches the server: over TLS with protobuf
// as programs do, or in process as the peer's components do.
func clients(b *testing.B, f *fixture) map[string]kubernetes.Interface {
	b.Helper()
	wire := f.admin(b)
	wire.ContentConfig = rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf", AcceptContentTypes: "application/vnd.kubernetes.protobuf,application/json"}
	return map[string]kubernetes.Interface{"tls": f.client(b, wire), "inProcess": f.client(b, f.ClientConfig("system:apiserver"))}
}

func BenchmarkCreateConfigMap(b *testing.B) {
	for _, store := range []string{"memory", "raft"} {
		f := start(b, func(c *apiserver.Config) {
			if store == "raft" {
				c.Store = storetest.New(b)
			}
		})
		var n atomic.Int64
		for how, c := range clients(b, f) {
			for _, parallel := range []int{1, 16} {
				b.Run(fmt.Sprintf("%s/%s/c=%d", store, how, parallel), func(b *testing.B) {
					b.SetParallelism(parallel)
					b.RunParallel(func(p *testing.PB) {
						for p.Next() {
							cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%d", n.Add(1))}, Data: payload(b)}
							if _, err := c.CoreV1().ConfigMaps("default").Create(b.Context(), cm, metav1.CreateOptions{}); err != nil {
								b.Error(err)
								return
							}
						}
					})
				})
			}
		}
	}
}

func BenchmarkGetConfigMap(b *testing.B) {
	f := start(b)
	cs := clients(b, f)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "get"}, Data: payload(b)}
	if _, err := cs["inProcess"].CoreV1().ConfigMaps("default").Create(b.Context(), cm, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	for how, c := range cs {
		b.Run(how, func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := c.CoreV1().ConfigMaps("default").Get(b.Context(), "get", metav1.GetOptions{}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
