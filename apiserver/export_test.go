package apiserver

import "skein.dev/skein/apiserver/publish"

// Publisher lets tests look at what is kept of the API's description.
func (s *Server) Publisher() *publish.Publisher { return s.publisher }

// ReloadEncryption looks at the encryption file now.
func (s *Server) ReloadEncryption() { _ = s.encryption.reload(s.base) }
