package apiserver

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"

	"github.com/emicklei/go-restful/v3"
)

func TestRoutesShareWhatTheySayAndStillLead(t *testing.T) {
	t.Parallel()
	ws := new(restful.WebService).Path("/apis/x/v1")
	for _, path := range []string{"/things/{name}", "/others/{name}"} {
		ws.Route(ws.GET(path).
			Param(ws.QueryParameter("pretty", "indents the answer").DataType("string")).
			Param(ws.QueryParameter("kind", "differs").DataType("string").PossibleValues([]string{path})).
			To(func(r *restful.Request, w *restful.Response) { _, _ = w.Write([]byte(path + r.PathParameter("name"))) }))
	}
	c := restful.NewContainer()
	c.Router(restful.CurlyRouter{}) // as the API servers have it
	c.Add(ws)
	shedRoutes([]*restful.WebService{ws, ws})
	a, b := ws.Routes()[0], ws.Routes()[1]
	if a.ParameterDocs[0] != b.ParameterDocs[0] {
		t.Error("equal parameters are two")
	}
	if a.ParameterDocs[1] == b.ParameterDocs[1] {
		t.Error("different parameters are one")
	}
	for _, r := range ws.Routes() {
		if f := reflect.ValueOf(r).FieldByName("pathExpr"); !f.IsValid() || !f.IsNil() {
			t.Errorf("route %s keeps its expression, or the library has changed", r.Path)
		}
	}
	for path, want := range map[string]int{
		"/apis/x/v1/things/a": http.StatusOK, "/apis/x/v1/others/b": http.StatusOK, "/apis/x/v1/none/c": http.StatusNotFound,
	} {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s: got %d, want %d", path, w.Code, want)
		}
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodDelete, "/apis/x/v1/things/a", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("another method: got %d, want 405", w.Code)
	}
}
