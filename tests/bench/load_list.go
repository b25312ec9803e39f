package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// fill makes as many ConfigMaps as the count says in the namespace.
func (o loadOptions) fill(ctx context.Context) (loadResult, error) {
	c, err := o.client()
	if err != nil {
		return loadResult{}, err
	}
	_, err = c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: o.namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return loadResult{}, fmt.Errorf("create namespace: %w", err)
	}
	maps := c.CoreV1().ConfigMaps(o.namespace)
	return o.drive(ctx, func(int) request {
		return func(ctx context.Context, n int64) error {
			return createMap(ctx, maps, "m"+strconv.FormatInt(n, 10))
		}
	}), nil
}

// raw is an HTTP client that leaves answers as they come.
func (o loadOptions) raw() (*http.Client, string, error) {
	cfg, err := o.config()
	if err != nil {
		return nil, "", err
	}
	cfg.DisableCompression = true // ours asks for it by itself
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, "", fmt.Errorf("make client: %w", err)
	}
	return hc, cfg.Host, nil
}

func (o loadOptions) get(ctx context.Context, hc *http.Client, url string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	r.Header.Set("Accept", o.accept)
	if o.gzip {
		r.Header.Set("Accept-Encoding", "gzip")
	}
	res, err := hc.Do(r)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("GET %s: %s", url, res.Status), res.Body.Close())
	}
	return res, nil
}

// lists reads the namespace's ConfigMaps whole, over and over.
func (o loadOptions) lists(ctx context.Context) (loadResult, error) {
	hc, host, err := o.raw()
	if err != nil {
		return loadResult{}, err
	}
	url := host + "/api/v1/namespaces/" + o.namespace + "/configmaps"
	var size int64
	res := o.drive(ctx, func(int) request {
		return func(ctx context.Context, _ int64) error {
			res, err := o.get(ctx, hc, url)
			if err != nil {
				return err
			}
			n, err := io.Copy(io.Discard, res.Body)
			size = n // one worker
			return errors.Join(err, res.Body.Close())
		}
	})
	res.Bytes = size
	return res, nil
}

// watches opens as many watches as there are workers and then makes as many
// ConfigMaps as the count says, one after the other; what takes time is from
// the beginning of each request to its event at each watch.
func (o loadOptions) watches(ctx context.Context) (loadResult, error) {
	c, err := o.client()
	if err != nil {
		return loadResult{}, err
	}
	maps := c.CoreV1().ConfigMaps(o.namespace)
	hc, host, err := o.raw()
	if err != nil {
		return loadResult{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	a := &arrivals{sent: make([]time.Time, o.count), took: make([][]time.Duration, o.count)}
	var opened, ended sync.WaitGroup
	opened.Add(o.workers)
	for range o.workers {
		ended.Go(func() {
			open := sync.OnceFunc(opened.Done)
			defer open()
			a.failed(o.follow(ctx, hc, host, open, a))
		})
	}
	opened.Wait()
	begin := time.Now()
	for n := range o.count {
		a.begin(n)
		if err := createMap(ctx, maps, watchedName(n)); err != nil {
			return loadResult{}, fmt.Errorf("create what is watched: %w", err)
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil { // each alone
			return loadResult{}, err
		}
	}
	ended.Wait() // every watch ends itself with the last event
	return a.result(time.Since(begin)), nil
}

const watchedPrefix = "watched-"

func watchedName(n int64) string { return watchedPrefix + strconv.FormatInt(n, 10) + ".x" }

// follow reads one watch until it has seen the last object.
func (o loadOptions) follow(ctx context.Context, hc *http.Client, host string, open func(), a *arrivals) error {
	res, err := o.get(ctx, hc, host+"/api/v1/namespaces/"+o.namespace+"/configmaps?watch=true&resourceVersion=0&sendInitialEvents=false&resourceVersionMatch=NotOlderThan")
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	open()
	lines := bufio.NewReaderSize(res.Body, 8<<10)
	for {
		line, err := lines.ReadBytes('\n')
		now := time.Now()
		if n, ok := watched(line); ok && a.saw(n, now) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch ended: %w", err)
		}
	}
}

// watched finds the number of the object in an event. Decoding it would cost
// more than what is measured.
func watched(line []byte) (int64, bool) {
	_, rest, ok := bytes.Cut(line, []byte(`"name":"`+watchedPrefix))
	if !ok {
		return 0, false
	}
	digits, _, ok := bytes.Cut(rest, []byte("."))
	n, err := strconv.ParseInt(string(digits), 10, 64)
	return n, ok && err == nil
}

// arrivals are the times of events.
type arrivals struct {
	mu   sync.Mutex // guards the fields below
	sent []time.Time
	took [][]time.Duration
	errs int
	last error
}

func (a *arrivals) begin(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent[n] = time.Now()
}

// saw reports whether n was the last.
func (a *arrivals) saw(n int64, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n < 0 || n >= int64(len(a.sent)) {
		return false
	}
	a.took[n] = append(a.took[n], now.Sub(a.sent[n]))
	return n == int64(len(a.sent))-1
}

func (a *arrivals) failed(err error) {
	if err == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.errs, a.last = a.errs+1, err
}

func (a *arrivals) result(took time.Duration) loadResult {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []time.Duration
	for _, t := range a.took {
		all = append(all, t...)
	}
	res := summarize(all, took)
	if res.Errors = a.errs; a.last != nil {
		res.Error = a.last.Error()
	}
	return res
}

// definitions makes small CustomResourceDefinitions until the count is there
// and waits until all are served.
func (o loadOptions) definitions(ctx context.Context) (loadResult, error) {
	cfg, err := o.config()
	if err != nil {
		return loadResult{}, err
	}
	c, err := crdclient.NewForConfig(cfg)
	if err != nil {
		return loadResult{}, fmt.Errorf("make client: %w", err)
	}
	crds := c.ApiextensionsV1().CustomResourceDefinitions()
	return o.drive(ctx, func(int) request {
		return func(ctx context.Context, n int64) error {
			crd := definition(n)
			if _, err := crds.Create(ctx, crd, metav1.CreateOptions{}); err != nil {
				return fmt.Errorf("create definition: %w", err)
			}
			for {
				got, err := crds.Get(ctx, crd.Name, metav1.GetOptions{})
				if err != nil {
					return fmt.Errorf("get definition: %w", err)
				}
				for _, cond := range got.Status.Conditions {
					if cond.Type == apiextensionsv1.Established && cond.Status == apiextensionsv1.ConditionTrue {
						return nil
					}
				}
				if err := wait(ctx, 20*time.Millisecond); err != nil {
					return err
				}
			}
		}
	}), nil
}

func definition(n int64) *apiextensionsv1.CustomResourceDefinition {
	name := "bench" + strconv.FormatInt(n, 10)
	text := apiextensionsv1.JSONSchemaProps{Type: "string"}
	return &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: name + "s.bench.skein.dev"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "bench.skein.dev", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: name + "s", Singular: name, Kind: "Bench" + strconv.FormatInt(n, 10)},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object",
					Properties: map[string]apiextensionsv1.JSONSchemaProps{
						"spec": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"colour": text, "size": text, "shape": text}},
					},
				}},
			}},
		},
	}
}

// config reads the kubeconfig.
func (o loadOptions) config() (*rest.Config, error) {
	path := o.kubeconfig
	if path == "" {
		path = os.Getenv("KUBECONFIG")
	}
	return configOf(path)
}
