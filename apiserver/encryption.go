package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	encryptionmetrics "k8s.io/apiserver/pkg/server/options/encryptionconfig/metrics"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
)

// encryption is what an EncryptionConfiguration says. Where it names a
// resource its first provider encrypts; the others, and what this server
// sealed by itself before, can still be read. What it does not name is kept as
// if there were no file.
type encryption struct {
	path   string
	peer   string
	loaded atomic.Pointer[loadedEncryption]
	turn   sync.Mutex // held while the file is loaded anew
}

type loadedEncryption struct {
	*encryptionconfig.EncryptionConfiguration

	close context.CancelFunc // ends the connections to key services
}

func (s *Server) makeEncryption() error {
	if s.cfg.EncryptionFile == "" {
		return nil
	}
	e := &encryption{path: s.cfg.EncryptionFile, peer: string(s.cfg.Peer)}
	raw, err := os.ReadFile(e.path)
	if err != nil {
		return fmt.Errorf("read encryption configuration: %w", err)
	}
	s.loaded[e.path] = raw
	if err := e.load(s.base); err != nil {
		return err
	}
	s.encryption = e
	return nil
}

// load reads the file and has its providers used from now on.
func (e *encryption) load(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	c, err := encryptionconfig.LoadEncryptionConfig(ctx, e.path, true, e.peer)
	if err != nil {
		cancel()
		return fmt.Errorf("load encryption configuration: %w", err)
	}
	next := &loadedEncryption{EncryptionConfiguration: c, close: cancel}
	old := e.loaded.Load()
	if old != nil { // at start the key services may come later
		if err := next.healthy(ctx); err != nil {
			cancel()
			return fmt.Errorf("check new encryption providers: %w", err)
		}
	}
	e.loaded.Store(next)
	if old != nil {
		time.AfterFunc(old.KMSCloseGracePeriod, old.close)
	}
	return nil
}

func (l *loadedEncryption) healthy(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/healthz", http.NoBody)
	if err != nil {
		return err
	}
	var all []error
	for _, c := range l.HealthChecks {
		all = append(all, c.Check(r))
	}
	return errors.Join(all...)
}

// check is the health check of the key services.
func (e *encryption) check(r *http.Request) error {
	var all []error
	for _, c := range e.loaded.Load().HealthChecks {
		all = append(all, c.Check(r))
	}
	return errors.Join(all...)
}

// reload loads the file anew if it has changed. What is not good changes
// nothing.
func (e *encryption) reload(ctx context.Context) error {
	e.turn.Lock()
	defer e.turn.Unlock()
	hash, err := encryptionconfig.GetEncryptionConfigHash(e.path)
	if err == nil && hash == e.loaded.Load().EncryptionFileContentHash {
		return nil
	}
	if err == nil {
		err = e.load(ctx)
	}
	if err != nil {
		encryptionmetrics.RecordEncryptionConfigAutomaticReloadFailure(e.peer)
		return err
	}
	encryptionmetrics.RecordEncryptionConfigAutomaticReloadSuccess(e.peer, hash)
	return nil
}

// named returns what the file says of a resource, nil for nothing: the
// resource itself, else all of its group, else all.
func (e *encryption) named(r schema.GroupResource) value.Transformer {
	all := e.loaded.Load().Transformers
	for _, gr := range []schema.GroupResource{r, {Group: r.Group, Resource: "*"}, {Group: "*", Resource: "*"}} {
		if t := all[gr]; t != nil {
			return t
		}
	}
	return nil
}

// transformer is how a resource is kept. own is how it is without a file; nil
// means in plain.
func (e *encryption) transformer(r schema.GroupResource, own value.Transformer) value.Transformer {
	if own == nil {
		own = identity.NewEncryptCheckTransformer()
	}
	return &byFile{file: e, resource: r, own: own}
}

// byFile implements value.Transformer.
type byFile struct {
	file     *encryption
	resource schema.GroupResource
	own      value.Transformer
}

// TransformFromStorage implements value.Transformer. What this server sealed by
// itself is stale once the file names the resource.
func (c *byFile) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, bool, error) {
	t := c.file.named(c.resource)
	if t == nil || bytes.HasPrefix(data, []byte(sealPrefix)) {
		out, stale, err := c.own.TransformFromStorage(ctx, data, dataCtx)
		return out, stale || t != nil, err
	}
	return t.TransformFromStorage(ctx, data, dataCtx)
}

// TransformToStorage implements value.Transformer.
func (c *byFile) TransformToStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, error) {
	if t := c.file.named(c.resource); t != nil {
		return t.TransformToStorage(ctx, data, dataCtx)
	}
	return c.own.TransformToStorage(ctx, data, dataCtx)
}
