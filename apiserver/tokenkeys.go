package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"k8s.io/apiserver/pkg/storage/value"

	"skein.dev/skein/api/store"
	"skein.dev/skein/api/tokenkey"
	"skein.dev/skein/apiserver/authn"
)

// tokenKeysKey is where the store has the keys once the first one was
// replaced. It is no object: whoever may read Secrets may not sign for others.
const tokenKeysKey = "/skein/token-keys"

// storedKey is one key in the store.
type storedKey struct {
	DER     []byte     `json:"der"`
	Created *time.Time `json:"created,omitempty"`
}

// tokenKeys are the keys of service account tokens. Until the first rotation
// it is the one that all full peers have from their keyring; from then on
// those of the store, sealed as Secrets are, so that a new key reaches every
// peer as fast as any write.
type tokenKeys struct {
	server *Server
	own    *authn.Key
}

// parsedKeys is what one state of the store says.
type parsedKeys struct {
	keys   []*authn.Key
	stored []storedKey
}

// current are the keys in the replica, the one that signs first. If they cannot
// be read there is none: the peer's own one may have been dropped, because
// somebody has stolen it.
func (t *tokenKeys) current() []*authn.Key {
	p, err := t.read(t.server.cfg.Store.Local())
	if err != nil {
		t.server.cfg.Log.ErrorContext(t.server.base, "token keys are unreadable: no token is good", "error", err)
		return nil
	}
	return p.keys
}

func (t *tokenKeys) read(view store.View) (*parsedKeys, error) {
	e := view.Get(tokenKeysKey)
	if e == nil {
		der, err := x509.MarshalECPrivateKey(t.own.Private())
		if err != nil {
			return nil, fmt.Errorf("encode token key: %w", err)
		}
		return &parsedKeys{keys: []*authn.Key{t.own}, stored: []storedKey{{DER: der}}}, nil
	}
	got, err := e.Decoded(func(e *store.Entry) (any, error) { return t.parse(e.Value) })
	if err != nil {
		return nil, err
	}
	p, ok := got.(*parsedKeys)
	if !ok {
		return nil, fmt.Errorf("token keys are a %T", got)
	}
	return p, nil
}

func (t *tokenKeys) parse(raw []byte) (*parsedKeys, error) {
	p := &parsedKeys{}
	if seal := t.server.seals; seal != nil {
		var err error
		if raw, _, err = seal.TransformFromStorage(t.server.base, raw, value.DefaultContext(tokenKeysKey)); err != nil {
			return nil, fmt.Errorf("open token keys: %w", err)
		}
	}
	if err := json.Unmarshal(raw, &p.stored); err != nil {
		return nil, fmt.Errorf("decode token keys: %w", err)
	}
	for _, s := range p.stored {
		private, err := x509.ParseECPrivateKey(s.DER)
		if err != nil {
			return nil, fmt.Errorf("decode token key: %w", err)
		}
		key, err := authn.NewKey(private)
		if err != nil {
			return nil, err
		}
		p.keys = append(p.keys, key)
	}
	if len(p.keys) == 0 {
		return nil, errors.New("decode token keys: there is none")
	}
	return p, nil
}

// errNoKey says that there is no key of an ID.
var errNoKey = errors.New("there is no such key")

// change writes what edit makes of the stored keys, and returns what stands
// then.
func (t *tokenKeys) change(ctx context.Context, edit func(*parsedKeys) ([]storedKey, error)) error {
	for {
		view, err := t.server.cfg.Store.Current(ctx)
		if err != nil {
			return err
		}
		p, err := t.read(view)
		if err != nil {
			return err
		}
		keys, err := edit(p)
		if err != nil {
			return err
		}
		raw, err := json.Marshal(keys)
		if err != nil {
			return fmt.Errorf("encode token keys: %w", err)
		}
		if seal := t.server.seals; seal != nil {
			if raw, err = seal.TransformToStorage(ctx, raw, value.DefaultContext(tokenKeysKey)); err != nil {
				return fmt.Errorf("seal token keys: %w", err)
			}
		}
		guard := store.Guard{Key: tokenKeysKey}
		if e := view.Get(tokenKeysKey); e != nil {
			guard.Mod = e.Mod
		}
		res, err := t.server.cfg.Store.Propose(ctx, store.Txn{
			Guards: []store.Guard{guard}, Ops: []store.Op{{Key: tokenKeysKey, Value: raw}},
		})
		if err != nil || res.Held {
			return err
		}
	}
}

// rotate makes a new key that signs from now on; the others still check.
func (t *tokenKeys) rotate(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make token key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode token key: %w", err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	return t.change(ctx, func(p *parsedKeys) ([]storedKey, error) {
		return append([]storedKey{{DER: der, Created: &now}}, p.stored...), nil
	})
}

// drop forgets a key; the tokens that it signed are good no longer.
func (t *tokenKeys) drop(ctx context.Context, id string) error {
	return t.change(ctx, func(p *parsedKeys) ([]storedKey, error) {
		i := slices.IndexFunc(p.keys, func(k *authn.Key) bool { return k.ID() == id })
		switch {
		case i < 0:
			return nil, errNoKey
		case i == 0:
			return nil, errors.New("it signs new tokens: make another one first")
		}
		return slices.Delete(slices.Clone(p.stored), i, i+1), nil
	})
}

// ServeHTTP implements http.Handler at tokenkey.Path, behind authorization.
func (t *tokenKeys) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.Method {
	case http.MethodGet:
	case http.MethodPost:
		err = t.rotate(r.Context())
	case http.MethodDelete:
		err = t.drop(r.Context(), r.URL.Query().Get("id"))
	default:
		http.Error(w, "only GET, POST and DELETE are known", http.StatusMethodNotAllowed)
		return
	}
	var list *parsedKeys
	if err == nil {
		list, err = t.read(t.server.cfg.Store.Local())
	}
	switch {
	case errors.Is(err, errNoKey):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	out := tokenkey.List{}
	for i, k := range list.keys {
		out.Keys = append(out.Keys, tokenkey.Key{ID: k.ID(), Created: list.stored[i].Created, Signs: i == 0})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the client has gone
}
