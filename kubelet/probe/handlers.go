package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Execer runs a command in a container and returns its output and exit code.
// It ends the command when timeout has passed, which is an error.
type Execer interface {
	Exec(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (output []byte, exit int32, err error)
}

const maxBody = 10 << 10 // of what a probe's answer is worth reading

// once asks once.
func (s *Set) once(ctx context.Context, t Target, p *corev1.Probe) (ok bool, output string) {
	timeout := seconds(p.TimeoutSeconds, 1)
	var err error
	switch {
	case p.Exec != nil:
		var out []byte
		var exit int32
		out, exit, err = s.cfg.Exec.Exec(ctx, t.ID, p.Exec.Command, timeout)
		if err == nil && exit != 0 {
			err = fmt.Errorf("%s", strings.TrimSpace(string(out)))
		}
	case p.HTTPGet != nil:
		err = HTTP(ctx, t.Container, t.IP, p.HTTPGet, timeout)
	case p.TCPSocket != nil:
		err = TCP(ctx, t.Container, t.IP, p.TCPSocket, timeout)
	case p.GRPC != nil:
		err = GRPC(ctx, t.IP, p.GRPC, timeout)
	default:
		err = errors.New("probe has no handler")
	}
	if err != nil {
		return false, err.Error()
	}
	return true, ""
}

// Port resolves a port that is a number or the name of a container's port.
func Port(c *corev1.Container, p intstr.IntOrString) (int, error) {
	n := p.IntValue()
	if p.Type == intstr.String {
		for _, cp := range c.Ports {
			if cp.Name == p.StrVal {
				n = int(cp.ContainerPort)
			}
		}
	}
	if n <= 0 || n > 65535 {
		return 0, fmt.Errorf("invalid port %s", p.String())
	}
	return n, nil
}

// HTTP does the request of an action; 200 to 399 is success.
func HTTP(ctx context.Context, c *corev1.Container, ip string, a *corev1.HTTPGetAction, timeout time.Duration) error {
	port, err := Port(c, a.Port)
	if err != nil {
		return err
	}
	host := ip
	if a.Host != "" {
		host = a.Host
	}
	scheme := strings.ToLower(string(a.Scheme))
	if scheme == "" {
		scheme = "http"
	}
	u, err := url.Parse("/" + strings.TrimPrefix(a.Path, "/"))
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(host, strconv.Itoa(port))
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("User-Agent", "kube-probe/1.37")
	req.Header.Set("Accept", "*/*")
	for _, h := range a.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	return do(req)
}

func do(req *http.Request) error {
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, Proxy: nil,
			// The documentation of probes: certificates are not verified.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse // elsewhere is not asked, and no failure
			}
			if len(via) >= 10 {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("HTTP probe failed with statuscode: %d%s", resp.StatusCode, short(body))
	}
	return nil
}

func short(b []byte) string {
	const most = 200
	s := strings.TrimSpace(string(b[:min(len(b), most)]))
	if s == "" {
		return ""
	}
	return ": " + s
}

// TCP opens a connection and closes it.
func TCP(ctx context.Context, c *corev1.Container, ip string, a *corev1.TCPSocketAction, timeout time.Duration) error {
	port, err := Port(c, a.Port)
	if err != nil {
		return err
	}
	host := ip
	if a.Host != "" {
		host = a.Host
	}
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return conn.Close()
}

// GRPC asks the health service of gRPC.
func GRPC(ctx context.Context, ip string, a *corev1.GRPCAction, timeout time.Duration) error {
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(ip, strconv.Itoa(int(a.Port))),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent("kube-probe/1.37"))
	if err != nil {
		return fmt.Errorf("open connection: %w", err)
	}
	defer func() { _ = conn.Close() }() // nothing was written
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req := &healthpb.HealthCheckRequest{}
	if a.Service != nil {
		req.Service = *a.Service
	}
	r, err := healthpb.NewHealthClient(conn).Check(ctx, req)
	if err != nil {
		return fmt.Errorf("health rpc probe failed: %s", status.Convert(err).Message())
	}
	if r.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("service unhealthy (responded with %q)", r.Status)
	}
	return nil
}
