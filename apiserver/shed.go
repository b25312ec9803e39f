package apiserver

import (
	"reflect"
	"unsafe"

	"github.com/emicklei/go-restful/v3"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// shed lets go of what the routes of complete servers hold twice or for
// nothing: two thirds of what they hold.
func shed(servers ...*genericapiserver.GenericAPIServer) {
	var all []*restful.WebService
	for _, g := range servers {
		all = append(all, g.Handler.GoRestfulContainer.RegisteredWebServices()...)
	}
	shedRoutes(all)
}

// shedRoutes does that to services, of which some may be named twice.
func shedRoutes(services []*restful.WebService) {
	known := map[described]*restful.Parameter{}
	seen := map[*restful.WebService]bool{}
	for _, ws := range services {
		if seen[ws] {
			continue
		}
		seen[ws] = true
		routes := ws.Routes() // the very ones: the library makes no services that change
		for i := range routes {
			shareParameters(&routes[i], known)
			dropExpression(&routes[i])
		}
	}
}

// described is what one parameter says, as far as it can be compared.
type described struct {
	name, text, dataType, format, collection string
	kind                                     int
	required, multiple                       bool
}

// shareParameters has equal parameters of routes be one: thousands describe
// the same dozens, such as `pretty` of every single one.
func shareParameters(r *restful.Route, known map[described]*restful.Parameter) {
	for i, p := range r.ParameterDocs {
		d := p.Data()
		if len(d.AllowableValues) > 0 || len(d.PossibleValues) > 0 || len(d.Extensions) > 0 ||
			d.DefaultValue != "" || d.Pattern != "" || d.Minimum != nil || d.Maximum != nil ||
			d.MinLength != nil || d.MaxLength != nil || d.MinItems != nil || d.MaxItems != nil || d.UniqueItems {
			continue
		}
		key := described{d.Name, d.Description, d.DataType, d.DataFormat, d.CollectionFormat, d.Kind, d.Required, d.AllowMultiple}
		if known[key] == nil {
			known[key] = p
		}
		r.ParameterDocs[i] = known[key]
	}
}

// dropExpression drops the compiled regular expression that the library makes
// of every route's path: four KiB each, for its other router and its answers
// to OPTIONS, neither of which the API servers use. There is no other way.
func dropExpression(r *restful.Route) {
	field := reflect.ValueOf(r).Elem().FieldByName("pathExpr")
	if field.IsValid() && field.Kind() == reflect.Pointer {
		reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().SetZero()
	}
}
