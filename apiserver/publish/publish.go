// Package publish serves what the API looks like: OpenAPI v3, a document a
// group version behind an index of hashes, and OpenAPI v2, one document of all.
//
// Its invariant: nothing is built before somebody asks and nothing built is
// kept for long, because on most peers nobody ever asks; only the hashes stay.
// They are made of contents, so peers of one version agree on them.
package publish

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/emicklei/go-restful/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/handler3"
)

// Where the documents are served.
const (
	V3 = "/openapi/v3"
	V2 = "/openapi/v2"
)

// Config says what is published.
type Config struct {
	// Services are those of the kinds built in. They never change.
	Services []*restful.WebService
	// ConfigV2 and ConfigV3 say how their types are described. ConfigV3 need
	// not hold the Definitions: they are made with GetDefinitions.
	ConfigV2 *common.Config
	ConfigV3 *common.OpenAPIV3Config
	// CRDs returns all definitions of custom resources, read-only. The
	// established ones are published.
	CRDs func() ([]*apiextensionsv1.CustomResourceDefinition, error)
	// Others publishes the group versions of other servers; nil: there are none.
	Others http.Handler
	// Keep is how long documents are kept after the last request; 0: one
	// minute. Clients keep them themselves, by their hashes.
	Keep time.Duration
}

// Publisher serves the documents. It is an http.Handler for the paths that
// begin with V2 and V3, and safe for concurrent use.
type Publisher struct {
	cfg      Config
	services map[string]*restful.WebService // by path, such as apis/apps/v1

	mu     sync.Mutex // guards the fields below
	hashes map[string]string
	docs   map[string]*document
	types  map[string]common.OpenAPIDefinition // those of all documents
	v2     http.Handler
	v2For  string // the custom resources that v2 was built with
	timer  *time.Timer
	used   time.Time
}

// New returns a publisher. It builds nothing yet.
func New(c Config) *Publisher {
	if c.Keep == 0 {
		c.Keep = time.Minute
	}
	p := &Publisher{
		cfg: c, services: map[string]*restful.WebService{},
		hashes: map[string]string{}, docs: map[string]*document{},
	}
	for _, ws := range c.Services {
		path := strings.TrimPrefix(ws.RootPath(), "/")
		if p.services[path] == nil {
			p.services[path] = ws
		}
	}
	return p
}

// ServeHTTP implements http.Handler.
func (p *Publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := p.answer(r)
	if err != nil {
		http.Error(w, "describe the API: "+err.Error(), http.StatusInternalServerError)
		return
	}
	answer.ServeHTTP(w, r) // not under the lock: a client may be slow
}

func (p *Publisher) answer(r *http.Request) (http.Handler, error) {
	name, group := strings.CutPrefix(r.URL.Path, V3+"/")
	if group && name != "" {
		return p.group(r, name)
	}
	if r.URL.Path == V3 || group {
		others := p.others(r.Context())
		p.mu.Lock()
		defer p.mu.Unlock()
		p.keepLocked()
		return p.indexLocked(others)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keepLocked()
	return p.serveV2Locked()
}

// Built reports how many documents are in memory.
func (p *Publisher) Built() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.docs)
	if p.v2 != nil {
		n++
	}
	return n
}

// Close forgets what was built.
func (p *Publisher) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropLocked()
}

func (p *Publisher) keepLocked() {
	p.used = time.Now()
	if p.timer == nil {
		p.timer = time.AfterFunc(p.cfg.Keep, p.expire)
	}
}

// expire drops what was built, unless it was used meanwhile.
func (p *Publisher) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil {
		return
	}
	if left := p.cfg.Keep - time.Since(p.used); left > 0 {
		p.timer.Reset(left)
		return
	}
	p.dropLocked()
	debug.FreeOSMemory() // they are tens of megabytes; without this the heap would keep them
}

func (p *Publisher) dropLocked() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	clear(p.docs)
	p.types, p.v2, p.v2For = nil, nil, ""
}

// indexLocked is the list of group versions with their hashes.
func (p *Publisher) indexLocked(paths map[string]handler3.OpenAPIV3DiscoveryGroupVersion) (http.Handler, error) {
	crds, err := p.custom()
	if err != nil {
		return nil, err
	}
	for name, group := range crds {
		paths[name] = entry(name, group.hash())
	}
	for name := range p.services {
		hash, err := p.hashLocked(name)
		if err != nil {
			return nil, err
		}
		paths[name] = entry(name, hash)
	}
	raw, err := json.Marshal(&handler3.OpenAPIV3Discovery{Paths: paths})
	if err != nil {
		return nil, err
	}
	return content{raw, mediaJSON, sum(raw)}, nil
}

func entry(name, hash string) handler3.OpenAPIV3DiscoveryGroupVersion {
	u := url.URL{Path: V3 + "/" + name, RawQuery: url.Values{"hash": {hash}}.Encode()}
	return handler3.OpenAPIV3DiscoveryGroupVersion{ServerRelativeURL: u.String()}
}

// others asks the other publisher for its index.
func (p *Publisher) others(ctx context.Context) map[string]handler3.OpenAPIV3DiscoveryGroupVersion {
	var index handler3.OpenAPIV3Discovery
	if p.cfg.Others != nil {
		if r, err := http.NewRequestWithContext(ctx, http.MethodGet, V3, nil); err == nil {
			w := httptest.NewRecorder()
			p.cfg.Others.ServeHTTP(w, r)
			if w.Code == http.StatusOK && json.Unmarshal(w.Body.Bytes(), &index) != nil {
				index.Paths = nil
			}
		}
	}
	if index.Paths == nil {
		index.Paths = map[string]handler3.OpenAPIV3DiscoveryGroupVersion{}
	}
	return index.Paths
}

// hashLocked is that of a built-in group version, which is built for it once.
func (p *Publisher) hashLocked(name string) (string, error) {
	if h := p.hashes[name]; h != "" {
		return h, nil
	}
	d, err := p.builtInLocked(name)
	if err != nil {
		return "", err
	}
	return d.hash, nil
}

// group is the document of one group version.
func (p *Publisher) group(r *http.Request, name string) (http.Handler, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keepLocked()
	d, err := p.findLocked(name)
	switch {
	case err != nil:
		return nil, err
	case d != nil:
		return d.answer(r, name)
	case p.cfg.Others != nil:
		return p.cfg.Others, nil
	default:
		return http.NotFoundHandler(), nil
	}
}

func (p *Publisher) findLocked(name string) (*document, error) {
	if p.services[name] != nil {
		return p.builtInLocked(name)
	}
	crds, err := p.custom()
	if err != nil {
		return nil, err
	}
	group, ok := crds[name]
	if !ok {
		return nil, nil //nolint:nilnil // nobody here serves it
	}
	hash := group.hash()
	if d := p.docs[name]; d != nil && d.hash == hash {
		return d, nil
	}
	d, err := group.build()
	if err == nil {
		p.docs[name] = d
	}
	return d, err
}
