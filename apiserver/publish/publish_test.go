package publish_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emicklei/go-restful/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"skein.dev/skein/apiserver/publish"
)

func get(t *testing.T, p *publish.Publisher, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w
}

func TestDocumentsAreForgottenWhenNobodyAsksForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ws := new(restful.WebService)
		ws.Path("/apis/a.example/v1")
		ws.Route(ws.GET("/things").To(func(*restful.Request, *restful.Response) {}))
		p := publish.New(publish.Config{
			Services: []*restful.WebService{ws}, Keep: 10 * time.Minute,
			ConfigV3: &common.OpenAPIV3Config{
				Info:           &spec.Info{InfoProps: spec.InfoProps{Title: "t", Version: "v"}},
				GetDefinitions: func(common.ReferenceCallback) map[string]common.OpenAPIDefinition { return nil },
			},
			CRDs: func() ([]*apiextensionsv1.CustomResourceDefinition, error) { return nil, nil },
		})
		first := get(t, p, publish.V3)
		if first.Code != http.StatusOK || p.Built() != 1 {
			t.Fatalf("index: %d %s, %d built", first.Code, first.Body, p.Built())
		}
		time.Sleep(9 * time.Minute)
		if w := get(t, p, publish.V3+"/apis/a.example/v1"); w.Code != http.StatusOK {
			t.Fatalf("document: %d %s", w.Code, w.Body)
		}
		time.Sleep(9 * time.Minute)
		if p.Built() != 1 {
			t.Error("a document in use was forgotten")
		}
		time.Sleep(2 * time.Minute)
		if p.Built() != 0 {
			t.Error("a document that nobody uses is kept")
		}
		if again := get(t, p, publish.V3); again.Body.String() != first.Body.String() || p.Built() != 0 {
			t.Errorf("the index from memory: %s, want %s, with nothing built (%d)", again.Body, first.Body, p.Built())
		}
		p.Close()
	})
}
