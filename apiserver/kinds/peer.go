package kinds

import (
	"encoding/hex"
	"net/netip"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	meshv1 "skein.dev/skein/api/mesh/v1alpha1"
	"skein.dev/skein/apiserver/registry"
)

// Peer declares the machines of the mesh.
func Peer() registry.Kind {
	return registry.Kind{
		Resource: meshv1.SchemeGroupVersion.WithResource("peers"), Kind: "Peer", Singular: "peer",
		Categories: []string{"mesh"},
		New:        func() runtime.Object { return &meshv1.Peer{} }, NewList: func() runtime.Object { return &meshv1.PeerList{} },
		Columns: append([]metav1.TableColumnDefinition{
			str("Class", "Whether the peer holds the cluster's state."), str("Address", "The address that peers dial."),
			str("Zone", "The failure domain of the peer."), ageColumn(),
		}, wide(str("Server-ID", "The raft server id of the peer's data directory."))...),
		Row: row(func(p *meshv1.Peer) []any {
			return []any{
				string(p.Spec.Class), or(strings.Join(p.Spec.Addresses, ","), none), or(p.Spec.Zone, none),
				age(p.CreationTimestamp), p.Spec.ServerID,
			}
		}),
		Default: defaults(func(p *meshv1.Peer) {
			if p.Spec.Class == "" {
				p.Spec.Class = meshv1.Full
			}
			if p.Spec.Port == 0 {
				p.Spec.Port = 6443
			}
		}),
		Strategy: rules[*meshv1.Peer]{
			create: func(p *meshv1.Peer) { p.Generation = 1 },
			update: func(p, old *meshv1.Peer) { bump(&p.ObjectMeta, &old.ObjectMeta, p.Spec, old.Spec) },
			validate: func(p *meshv1.Peer) field.ErrorList {
				errs := apivalidation.ValidateObjectMeta(&p.ObjectMeta, false, apivalidation.NameIsDNSLabel, field.NewPath("metadata"))
				return append(errs, validatePeer(&p.Spec, field.NewPath("spec"))...)
			},
			validateUpdate: func(p, old *meshv1.Peer) field.ErrorList {
				errs := apivalidation.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
				return append(errs, validatePeer(&p.Spec, field.NewPath("spec"))...)
			},
		}.strategy(),
	}
}

func validatePeer(s *meshv1.PeerSpec, path *field.Path) (errs field.ErrorList) {
	if s.Class != meshv1.Full {
		errs = append(errs, field.NotSupported(path.Child("class"), s.Class, []meshv1.Class{meshv1.Full}))
	}
	if len(s.Addresses) == 0 {
		errs = append(errs, field.Required(path.Child("addresses"), "a peer must be reachable"))
	}
	for i, a := range s.Addresses {
		if _, err := netip.ParseAddr(a); err != nil {
			errs = append(errs, field.Invalid(path.Child("addresses").Index(i), a, "must be an IP address"))
		}
	}
	for i, c := range s.PodCIDRs {
		if _, err := netip.ParsePrefix(c); err != nil {
			errs = append(errs, field.Invalid(path.Child("podCIDRs").Index(i), c, "must be a CIDR"))
		}
	}
	if s.Port < 1 || s.Port > 65535 {
		errs = append(errs, field.Invalid(path.Child("port"), s.Port, "must be between 1 and 65535"))
	}
	if raw, err := hex.DecodeString(s.Fingerprint); err != nil || len(raw) != 32 {
		errs = append(errs, field.Invalid(path.Child("fingerprint"), s.Fingerprint, "must be the hex SHA-256 of a public key"))
	}
	return errs
}
