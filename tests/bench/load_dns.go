package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

// queries asks for one name, each worker on a socket of its own.
func (o loadOptions) queries(ctx context.Context) (loadResult, error) {
	if o.server == "" || o.name == "" {
		return loadResult{}, errors.New("load of dns: server or name is missing")
	}
	sockets := make([]net.Conn, o.workers)
	defer func() {
		for _, s := range sockets {
			if s != nil {
				_ = s.Close()
			}
		}
	}()
	var d net.Dialer
	for i := range sockets {
		var err error
		if sockets[i], err = d.DialContext(ctx, "udp", o.server); err != nil {
			return loadResult{}, fmt.Errorf("open socket: %w", err)
		}
	}
	return o.drive(ctx, func(i int) request { return asker(sockets[i], o.name) }), nil
}

// asker asks and waits for the answer with the question's id.
func asker(conn net.Conn, name string) request {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	buf := make([]byte, dns.MaxMsgSize)
	return func(_ context.Context, n int64) error {
		q.Id = uint16(n)
		raw, err := q.Pack()
		if err != nil {
			return fmt.Errorf("pack question: %w", err)
		}
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
		if _, err := conn.Write(raw); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		for { // a late answer to a question before is passed over; the deadline ends it
			size, err := conn.Read(buf)
			if err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			var a dns.Msg
			if err := a.Unpack(buf[:size]); err != nil {
				return fmt.Errorf("unpack answer: %w", err)
			}
			if a.Id != q.Id {
				continue
			}
			if a.Rcode != dns.RcodeSuccess || len(a.Answer) == 0 {
				return fmt.Errorf("answer %s with %d records", dns.RcodeToString[a.Rcode], len(a.Answer))
			}
			return nil
		}
	}
}
