package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// payloadSize is the size of a ConfigMap's only value.
const payloadSize = 1024

// creates makes ConfigMaps in a namespace of its own. It stays: deleting its
// thousands of objects would be a load beside what is measured next.
func (o loadOptions) creates(ctx context.Context) (loadResult, error) {
	c, err := o.client()
	if err != nil {
		return loadResult{}, err
	}
	ns, err := c.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}, metav1.CreateOptions{})
	if err != nil {
		return loadResult{}, fmt.Errorf("create namespace: %w", err)
	}
	maps := c.CoreV1().ConfigMaps(ns.Name)
	return o.drive(ctx, func(int) request {
		return func(ctx context.Context, n int64) error {
			return createMap(ctx, maps, "m"+strconv.FormatInt(n, 10))
		}
	}), nil
}

// gets reads one ConfigMap over and over, linearizably.
func (o loadOptions) gets(ctx context.Context) (loadResult, error) {
	c, err := o.client()
	if err != nil {
		return loadResult{}, err
	}
	maps := c.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	made, err := maps.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}, Data: map[string]string{"payload": payload()},
	}, metav1.CreateOptions{})
	if err != nil {
		return loadResult{}, fmt.Errorf("create object to get: %w", err)
	}
	res := o.drive(ctx, func(int) request {
		return func(ctx context.Context, _ int64) error {
			_, err := maps.Get(ctx, made.Name, metav1.GetOptions{})
			return err
		}
	})
	if err := maps.Delete(context.WithoutCancel(ctx), made.Name, metav1.DeleteOptions{}); err != nil {
		return res, fmt.Errorf("delete object: %w", err)
	}
	return res, nil
}

func createMap(ctx context.Context, maps typed.ConfigMapInterface, name string) error {
	_, err := maps.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"payload": payload()},
	}, metav1.CreateOptions{})
	return err
}

func configOf(path string) (*rest.Config, error) {
	if path == "" {
		return nil, errors.New("no kubeconfig is named")
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	return cfg, nil
}

func (o loadOptions) client() (*kubernetes.Clientset, error) {
	cfg, err := o.config()
	if err != nil {
		return nil, err
	}
	cfg.QPS = -1 // no limit of the client's own
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = cfg.ContentType
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return c, nil
}

// payload is random text of payloadSize bytes, which hardly compresses.
func payload() string {
	raw := make([]byte, payloadSize*3/4)
	_, _ = rand.Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}
