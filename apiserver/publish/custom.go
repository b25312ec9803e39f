package publish

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/emicklei/go-restful/v3"
	apiextensionshelpers "k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	builder2 "k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	handler2 "k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// custom is one group version of custom resources: the definitions, by name,
// that serve it.
type custom struct {
	version string
	crds    []*apiextensionsv1.CustomResourceDefinition
}

// custom returns the group versions of custom resources by their
// documents' names. Names of kinds built in are left out.
func (p *Publisher) custom() (map[string]custom, error) {
	all, err := p.cfg.CRDs()
	if err != nil {
		return nil, err
	}
	groups := map[string]custom{}
	for _, crd := range all {
		if !apiextensionshelpers.IsCRDConditionTrue(crd, apiextensionsv1.Established) {
			continue
		}
		for _, v := range crd.Spec.Versions {
			name := "apis/" + crd.Spec.Group + "/" + v.Name
			if !v.Served || p.services[name] != nil {
				continue
			}
			groups[name] = custom{v.Name, append(groups[name].crds, crd)}
		}
	}
	for _, g := range groups {
		slices.SortFunc(g.crds, func(a, b *apiextensionsv1.CustomResourceDefinition) int { return cmp.Compare(a.Name, b.Name) })
	}
	return groups, nil
}

// hash stands for the content without building it: a definition's generation
// grows with every change of what it describes.
func (c custom) hash() string {
	var b strings.Builder
	for _, crd := range c.crds {
		_, _ = fmt.Fprintf(&b, "%s/%s/%s/%d\n", c.version, crd.Name, crd.UID, crd.Generation)
	}
	return sum([]byte(b.String()))
}

func (c custom) build() (*document, error) {
	var docs []*spec3.OpenAPI
	for _, crd := range c.crds {
		doc, err := builder.BuildOpenAPIV3(crd, c.version, builder.Options{V2: false})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", crd.Name, err)
		}
		docs = append(docs, doc)
	}
	merged, err := builder.MergeSpecsV3(docs...)
	if err != nil {
		return nil, err
	}
	raw, err := merged.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return &document{hash: c.hash(), json: raw}, nil
}

// serveV2Locked is the one document of OpenAPI v2.
func (p *Publisher) serveV2Locked() (http.Handler, error) {
	groups, err := p.custom()
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(groups))
	hashes := make([]string, 0, len(names))
	for _, name := range names {
		hashes = append(hashes, groups[name].hash())
	}
	state := strings.Join(hashes, "/")
	if p.v2 == nil || p.v2For != state {
		if p.v2, err = p.buildV2(names, groups); err != nil {
			return nil, err
		}
		p.v2For = state
	}
	return p.v2, nil
}

func (p *Publisher) buildV2(names []string, groups map[string]custom) (http.Handler, error) {
	var services []*restful.WebService // servers of one chain have some in common
	for _, name := range slices.Sorted(maps.Keys(p.services)) {
		services = append(services, p.services[name])
	}
	doc, err := builder2.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices(services), p.cfg.ConfigV2)
	if err != nil {
		return nil, err
	}
	doc.Definitions = handler2.PruneDefaults(doc.Definitions)
	var more []*spec.Swagger
	for _, name := range names {
		for _, crd := range groups[name].crds {
			one, err := builder.BuildOpenAPIV2(crd, groups[name].version, builder.Options{V2: true})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", crd.Name, err)
			}
			more = append(more, one)
		}
	}
	if doc, err = builder.MergeSpecs(doc, more...); err != nil {
		return nil, err
	}
	var at path
	handler2.NewOpenAPIService(doc).RegisterOpenAPIVersionedService(V2, &at)
	return at.handler, nil
}

// path takes the one handler that a service registers.
type path struct{ handler http.Handler }

var _ common.PathHandler = (*path)(nil)

// Handle implements common.PathHandler.
func (p *path) Handle(_ string, h http.Handler) { p.handler = h }
