package publish

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/emicklei/go-restful/v3"
	"github.com/munnerz/goautoneg"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// document is what is served of one group version. The publisher's lock
// guards proto; what it refers to never changes.
type document struct {
	hash  string
	json  []byte
	proto []byte // made of json when it is first asked for
}

func sum(raw []byte) string {
	s := sha256.Sum256(raw)
	return strings.ToUpper(hex.EncodeToString(s[:]))
}

// builtInLocked builds the document of a group version that never changes.
func (p *Publisher) builtInLocked(name string) (*document, error) {
	if d := p.docs[name]; d != nil {
		return d, nil
	}
	doc, err := builder3.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices([]*restful.WebService{p.services[name]}), p.describedLocked())
	if err != nil {
		return nil, err
	}
	if group, version, ok := groupVersion(name); ok {
		narrow(doc, group, version)
	}
	raw, err := doc.MarshalJSON()
	if err != nil {
		return nil, err
	}
	d := &document{hash: sum(raw), json: raw}
	p.docs[name], p.hashes[name] = d, d.hash
	return d, nil
}

// describedLocked is the configuration with the types, which are made once
// for all documents.
func (p *Publisher) describedLocked() *common.OpenAPIV3Config {
	c := *p.cfg.ConfigV3
	if c.Definitions == nil && p.types == nil {
		p.types = c.GetDefinitions(func(name string) spec.Ref {
			defined, _ := c.GetDefinitionName(name)
			return spec.MustCreateRef("#/components/schemas/" + common.EscapeJsonPointer(defined))
		})
	}
	if c.Definitions == nil {
		c.Definitions = p.types
	}
	return &c
}

// groupVersion splits a document's name, such as api/v1 or apis/apps/v1.
func groupVersion(name string) (group, version string, ok bool) {
	if version, ok = strings.CutPrefix(name, "api/"); ok {
		return "", version, true
	}
	if rest, isGroup := strings.CutPrefix(name, "apis/"); isGroup {
		group, version, ok = strings.Cut(rest, "/")
	}
	return group, version, ok
}

const kindsExtension = "x-kubernetes-group-version-kind"

// narrow leaves of the kinds that every group version has, which the types
// WatchEvent and DeleteOptions are marked with, those of this one and of v1.
func narrow(doc *spec3.OpenAPI, group, version string) {
	if doc.Components == nil {
		return
	}
	for _, schema := range doc.Components.Schemas {
		kinds, ok := schema.Extensions[kindsExtension].([]any)
		if !ok || len(kinds) < 2 {
			continue
		}
		var left []any
		for _, k := range kinds {
			gvk, ok := k.(map[string]any)
			if !ok || gvk["kind"] != "WatchEvent" && gvk["kind"] != "DeleteOptions" ||
				gvk["group"] == group && gvk["version"] == version || gvk["group"] == "" && gvk["version"] == "v1" {
				left = append(left, k)
			}
		}
		schema.Extensions[kindsExtension] = left
	}
}

// Media types of OpenAPI v3; the second is an old name that clients still use.
const (
	mediaJSON     = "application/json"
	mediaProto    = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
	mediaProtoOld = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
)

// chosen is the first media type of ours that a client takes, empty if none.
func chosen(accept string) string {
	if accept == "" {
		return mediaJSON
	}
	for _, c := range goautoneg.ParseAccept(accept) {
		switch c.Type + "/" + c.SubType {
		case mediaJSON, "*/*", "application/*":
			return mediaJSON
		case mediaProto, mediaProtoOld:
			return mediaProto
		}
	}
	return ""
}

// answer is d as a client wants it. Who names a hash may keep the answer for
// ever, and who names another is sent to the present one.
func (d *document) answer(r *http.Request, name string) (http.Handler, error) {
	media := chosen(r.Header.Get("Accept"))
	if media == "" {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Vary", "Accept")
			w.WriteHeader(http.StatusNotAcceptable)
		}), nil
	}
	hash := r.URL.Query().Get("hash")
	if hash != "" && hash != d.hash {
		return http.RedirectHandler(entry(name, d.hash).ServerRelativeURL, http.StatusMovedPermanently), nil
	}
	if media == mediaProto && d.proto == nil {
		var err error
		if d.proto, err = handler3.ToV3ProtoBinary(d.json); err != nil {
			return nil, err
		}
	}
	c := content{d.json, media, d.hash}
	if media == mediaProto {
		c.raw = d.proto
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		if hash != "" {
			w.Header().Set("Cache-Control", "public, immutable")
			w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
		}
		c.ServeHTTP(w, r)
	}), nil
}

// content is an answer that is complete.
type content struct {
	raw        []byte
	media, tag string
}

// ServeHTTP implements http.Handler.
func (c content) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", c.media)
	w.Header().Set("Etag", strconv.Quote(c.tag))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c.raw))
}
