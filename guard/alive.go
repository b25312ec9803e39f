package guard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

const (
	answerWithin = 5 * time.Second
	maxAnswers   = 64 // at a time; more wait in the kernel
)

// serveAlive answers every peer that connects with one line of JSON and hangs
// up. It owns its goroutines and returns nil when ctx ends.
func (s *Supervisor) serveAlive(ctx context.Context, l net.Listener) error {
	keys := &keys{cfg: s.cfg}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return keys.config()
	}}
	return serve(ctx, l, func(ctx context.Context, raw net.Conn) {
		conn := tls.Server(raw, conf)
		if conn.HandshakeContext(ctx) != nil {
			return // who has no certificate of the mesh gets no answer and no log line
		}
		if json.NewEncoder(conn).Encode(s.status()) == nil {
			_ = conn.CloseWrite()
		}
	})
}

// serve calls answer for each connection, a bounded number at a time and each
// within answerWithin.
func serve(ctx context.Context, l net.Listener, answer func(context.Context, net.Conn)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer func() { stop(); _ = l.Close() }() // which of the two sees the end of ctx first is not known
	var answers sync.WaitGroup
	defer answers.Wait()
	slots := make(chan struct{}, maxAnswers)
	for {
		slots <- struct{}{}
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil
		}
		if err != nil {
			<-slots
			if wait(ctx, err) {
				continue
			}
			return fmt.Errorf("accept: %w", err)
		}
		answers.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			ctx, cancel := context.WithTimeout(ctx, answerWithin)
			defer cancel()
			_ = conn.SetDeadline(time.Now().Add(answerWithin))
			answer(ctx, conn)
		})
	}
}

// wait pauses after an accept that may work later, such as one for which
// there were no descriptors; for another it returns false.
func wait(ctx context.Context, err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
	return true
}

// keys reads certificate, key and pool again whenever one of the files changed.
type keys struct {
	cfg Config

	mu     sync.Mutex // guards the fields below
	seen   [3]stamp
	loaded *tls.Config
}

type stamp struct {
	size  int64
	mtime time.Time
}

func (k *keys) config() (*tls.Config, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var now [3]stamp
	for i, path := range []string{k.cfg.Cert, k.cfg.Key, k.cfg.Pool} {
		fi, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("read guard keys: %w", err)
		}
		now[i] = stamp{fi.Size(), fi.ModTime()}
	}
	if k.loaded != nil && now == k.seen {
		return k.loaded, nil
	}
	c, err := load(k.cfg)
	if err != nil {
		return nil, err
	}
	k.seen, k.loaded = now, c
	return c, nil
}

func load(cfg Config) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(cfg.Cert, cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("read guard certificate: %w", err)
	}
	pem, err := os.ReadFile(cfg.Pool)
	if err != nil {
		return nil, fmt.Errorf("read guard pool: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read guard pool %s: no certificate in it", cfg.Pool)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAnyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verify(cs.PeerCertificates, pool, time.Now())
		},
		SessionTicketsDisabled: true,
	}, nil
}

// verify accepts who has a certificate from the pool, expired or not: a clock
// that is wrong must not make a machine look dead, and the answer gives
// nothing away that a former peer could use.
func verify(chain []*x509.Certificate, pool *x509.CertPool, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("no certificate")
	}
	leaf := chain[0]
	if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore
	} else if now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}
