package guard

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
)

// probeWithin bounds a probe whose ctx has no earlier end.
const probeWithin = 5 * time.Second

// maxAnswer bounds what a probe reads.
const maxAnswer = 16 << 10

// Probe asks the guard at addr (host:port) whether its machine lives. conf
// authenticates both ends; with no ServerName the host of addr is it. An
// error says that no answer came, not that the machine is dead.
func Probe(ctx context.Context, addr string, conf *tls.Config) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: conf}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return Status{}, fmt.Errorf("probe guard %s: %w", addr, err)
	}
	defer conn.Close()
	var st Status
	if err := readAnswer(ctx, conn, &st); err != nil {
		return Status{}, fmt.Errorf("probe guard %s: %w", addr, err)
	}
	return st, nil
}

// readAnswer decodes one value from conn before ctx ends.
func readAnswer(ctx context.Context, conn net.Conn, into any) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	return json.NewDecoder(io.LimitReader(conn, maxAnswer)).Decode(into)
}
