package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"skein.dev/skein/api/peerid"
)

// ErrPin is wrapped when the server at an address is not of the cluster whose
// hash the caller holds.
var ErrPin = errors.New("the server there is not of the token's cluster")

// RemoteError is a refusal that the server explained.
type RemoteError struct {
	Status  int    `json:"-"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// Error is the server's message, on one line with its hint.
func (e *RemoteError) Error() string {
	if e.Hint != "" {
		return e.Message + " (" + e.Hint + ")"
	}
	return e.Message
}

const maxReply = 8 << 20

// Post sends in as JSON to https://addr/path and decodes the answer into out.
// The server is trusted if it presents an API server's certificate signed by
// the authority whose key has the hash caHash, which it must present too.
// That is all a joiner knows of the cluster, so the name in addr does not
// count. A refusal is a *RemoteError.
func Post(ctx context.Context, addr, caHash, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request to %s: %w", addr, err)
	}
	req.Header.Set("Content-Type", "application/json")
	tr := &http.Transport{
		TLSClientConfig: Pinned(caHash), TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}
	defer tr.CloseIdleConnections()
	client := &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", addr, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", addr, err)
	}
	if resp.StatusCode != http.StatusOK {
		e := &RemoteError{Status: resp.StatusCode}
		if json.Unmarshal(data, e) != nil || e.Message == "" {
			e.Message = fmt.Sprintf("%s answered %s", addr, resp.Status)
		}
		return e
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("decode answer of %s: %w", addr, err)
	}
	return nil
}

// Pinned is the TLS configuration of a client that knows nothing but the hash
// of the serving authority's key.
func Pinned(caHash string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return verifyPin(s, caHash, time.Now()) },
	}
}

func verifyPin(s tls.ConnectionState, caHash string, now time.Time) error {
	roots := x509.NewCertPool()
	found := false
	for _, c := range s.PeerCertificates[1:] {
		if c.IsCA && peerid.Fingerprint(c) == caHash {
			roots.AddCert(c)
			found = true
		}
	}
	if !found {
		return ErrPin
	}
	// The same authority signs kubelets' certificates; only API servers have this name.
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, DNSName: "kubernetes", CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPin, err)
	}
	return nil
}
