package apiserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"time"

	"k8s.io/apiserver/pkg/storage/value"

	"skein.dev/skein/api/sealkey"
	"skein.dev/skein/api/store"
)

// secretsKey is what all keys of Secrets begin with.
const secretsKey = "/registry/core/secrets/"

// storedSealingKey is one key in the store.
type storedSealingKey struct {
	ID      string    `json:"id"`
	Key     []byte    `json:"key"`
	Created time.Time `json:"created"`
}

// rotate makes a new key, which seals from now on.
func (s *seals) rotate(ctx context.Context) error {
	fresh := storedSealingKey{Key: make([]byte, 32), Created: time.Now().UTC().Truncate(time.Second)}
	id := make([]byte, 8)
	_, _ = rand.Read(fresh.Key) // never fails
	_, _ = rand.Read(id)
	fresh.ID = hex.EncodeToString(id)
	for {
		view, err := s.store.Current(ctx)
		if err != nil {
			return err
		}
		o, err := s.in(ctx, view)
		if err != nil {
			return err
		}
		raw, err := json.Marshal(append([]storedSealingKey{fresh}, o.stored...))
		if err != nil {
			return fmt.Errorf("encode sealing keys: %w", err)
		}
		if raw, err = s.root.TransformToStorage(ctx, raw, value.DefaultContext(sealKeysKey)); err != nil {
			return fmt.Errorf("seal sealing keys: %w", err)
		}
		if held, err := s.put(ctx, view, sealKeysKey, raw); err != nil || held {
			return err
		}
	}
}

// put writes a value if its key is as it is in view.
func (s *seals) put(ctx context.Context, view store.View, key string, raw []byte) (held bool, err error) {
	guard := store.Guard{Key: key}
	if e := view.Get(key); e != nil {
		guard.Mod = e.Mod
	}
	res, err := s.store.Propose(ctx, store.Txn{Guards: []store.Guard{guard}, Ops: []store.Op{{Key: key, Value: raw}}})
	return res.Held, err
}

// values are those that may be sealed by this server itself.
func (s *seals) values(view store.View) iter.Seq[*store.Entry] {
	return func(yield func(*store.Entry) bool) {
		for e := range view.Ascend(secretsKey, secretsKey) {
			if bytes.HasPrefix(e.Value, []byte(sealPrefix)) && !yield(e) {
				return
			}
		}
		if e := view.Get(tokenKeysKey); e != nil {
			yield(e)
		}
	}
}

// anew seals with the first key what is under another. What changes meanwhile
// is sealed by who changes it. Objects get a new version and nothing else.
func (s *seals) anew(ctx context.Context) error {
	view, err := s.store.Current(ctx)
	if err != nil {
		return err
	}
	for e := range s.values(view) {
		data, stale, err := s.TransformFromStorage(ctx, e.Value, value.DefaultContext(e.Key))
		if err != nil {
			return fmt.Errorf("open %s: %w", e.Key, err)
		}
		if !stale {
			continue
		}
		if data, err = s.TransformToStorage(ctx, data, value.DefaultContext(e.Key)); err != nil {
			return fmt.Errorf("seal %s: %w", e.Key, err)
		}
		if _, err := s.put(ctx, view, e.Key, data); err != nil {
			return fmt.Errorf("write %s: %w", e.Key, err)
		}
	}
	return nil
}

// list says which keys there are, and how much each has sealed.
func (s *seals) list(ctx context.Context) (sealkey.List, error) {
	var out sealkey.List
	view, err := s.store.Current(ctx)
	if err != nil {
		return out, err
	}
	o, err := s.in(ctx, view)
	if err != nil {
		return out, err
	}
	for _, k := range o.stored {
		out.Keys = append(out.Keys, sealkey.Key{ID: k.ID, Created: &k.Created})
	}
	for _, k := range s.own {
		out.Keys = append(out.Keys, sealkey.Key{ID: k.ID})
	}
	out.Keys[0].Seals = true
	for e := range s.values(view) {
		for i := range out.Keys {
			if bytes.HasPrefix(e.Value, []byte(sealPrefix+out.Keys[i].ID+":")) {
				out.Keys[i].Values++
			}
		}
	}
	return out, nil
}

// ServeHTTP implements http.Handler at sealkey.Path, behind authorization.
func (s *seals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.Method {
	case http.MethodGet:
	case http.MethodPost:
		if err = s.rotate(r.Context()); err == nil {
			err = s.anew(r.Context())
		}
	case http.MethodPut:
		err = s.anew(r.Context())
	default:
		http.Error(w, "only GET, POST and PUT are known", http.StatusMethodNotAllowed)
		return
	}
	var list sealkey.List
	if err == nil {
		list, err = s.list(r.Context())
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list) // the client has gone
}
