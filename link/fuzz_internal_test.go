package link

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// said is a connection whose other end has said all it will.
type said struct {
	net.Conn // nil: nothing else may be called

	r io.Reader
}

func (s said) Read(p []byte) (int, error)       { return s.r.Read(p) }
func (s said) SetReadDeadline(time.Time) error  { return nil }
func (s said) SetDeadline(time.Time) error      { return nil }
func (s said) SetWriteDeadline(time.Time) error { return nil }
func (s said) Write(p []byte) (int, error)      { return len(p), nil }
func (s said) Close() error                     { return nil }
func (s said) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s said) LocalAddr() net.Addr              { return &net.TCPAddr{} }

// greeting is a real client's first flight.
func greeting(f *testing.F, protos ...string) []byte {
	f.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: "x", NextProtos: protos, MinVersion: tls.VersionTLS12}).Handshake()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(server, head); err != nil {
		f.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		f.Fatal(err)
	}
	return append(head, body...)
}

// FuzzGreetingIsReplayed peeks at what a stranger says first: whatever it is,
// who gets the connection afterwards reads all of it.
func FuzzGreetingIsReplayed(f *testing.F) {
	f.Add(greeting(f))
	f.Add(greeting(f, "h2", "http/1.1"))
	f.Add(greeting(f, "skein-raft/1"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte{0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, again, err := peek(said{r: bytes.NewReader(data)}, time.Now())
		if err != nil {
			return
		}
		got, err := io.ReadAll(again)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes are left for the server", len(got), len(data))
		}
	})
}

// FuzzHello reads what is said after the handshake: it is bounded.
func FuzzHello(f *testing.F) {
	var good bytes.Buffer
	if err := writeMessage(&good, hello{Mesh: Mesh{Cluster: "c", Incarnation: "i"}, To: "x"}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		var h hello
		if err := readMessage(r, &h); err != nil {
			return
		}
		if read := len(data) - r.Len(); read > maxHello+4 {
			t.Fatalf("read %d bytes of a stranger's greeting", read)
		}
		var b bytes.Buffer
		if err := writeMessage(&b, h); err != nil {
			t.Fatal(err)
		}
		var again hello
		if err := readMessage(&b, &again); err == nil && again != h {
			t.Fatalf("%+v came back as %+v", h, again)
		}
	})
}
