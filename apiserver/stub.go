package apiserver

import "k8s.io/apiserver/pkg/admission"

func (s *Server) admission() admission.Interface { return admission.NewChainHandler() }
