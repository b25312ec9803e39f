package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Dir is the directory that holds a peer's keyring and certificates:
//
//	cluster.json          id and incarnation
//	ca-<authority>.pem    certificate and key of an authority
//	service-account.pem   the key that signs service account tokens
//	secrets.json          sealing and gossip keys
//	<use>.pem             certificate chain and key of this peer
//
// The directory is 0700, its files are 0600, and each is replaced by rename.
type Dir string

const (
	clusterFile = "cluster.json"
	saFile      = "service-account.pem"
	secretsFile = "secrets.json"
)

type secrets struct {
	Sealing []SealingKey `json:"sealing"`
	Gossip  [][]byte     `json:"gossip"`
}

// Exists reports whether a keyring has been created in d.
func (d Dir) Exists() (bool, error) {
	_, err := os.Stat(filepath.Join(string(d), clusterFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for keyring: %w", err)
	}
	return true, nil
}

// Create writes k as a new directory, whole or not at all. It fails with
// fs.ErrExist if there is a keyring already.
func (d Dir) Create(k *Keyring) error {
	if err := k.check(); err != nil {
		return err
	}
	if ok, err := d.Exists(); err != nil {
		return err
	} else if ok {
		return fmt.Errorf("create keyring in %s: %w", string(d), fs.ErrExist)
	}
	if err := os.MkdirAll(filepath.Dir(string(d)), 0o755); err != nil {
		return fmt.Errorf("create keyring: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(string(d)), filepath.Base(string(d))+".new-")
	if err != nil {
		return fmt.Errorf("create keyring: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := Dir(tmp).writeKeyring(k); err != nil {
		return err
	}
	// An empty directory of that name may have been left by a failed start.
	if err := os.Remove(string(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create keyring: %w", err)
	}
	if err := os.Rename(tmp, string(d)); err != nil {
		return fmt.Errorf("create keyring: %w", err)
	}
	return syncDir(filepath.Dir(string(d)))
}

func (d Dir) writeKeyring(k *Keyring) error {
	for _, a := range Authorities() {
		p, err := k.CAs[a].pair()
		if err != nil {
			return err
		}
		if err := d.write("ca-"+string(a)+".pem", p.PEM()); err != nil {
			return err
		}
	}
	sa, err := keyPEM(k.ServiceAccount)
	if err != nil {
		return err
	}
	if err := d.write(saFile, sa); err != nil {
		return err
	}
	if err := d.writeJSON(secretsFile, secrets{Sealing: k.Sealing, Gossip: k.Gossip}); err != nil {
		return err
	}
	return d.writeJSON(clusterFile, k.Cluster)
}

// Load reads the keyring. It fails with fs.ErrNotExist if there is none.
func (d Dir) Load() (*Keyring, error) {
	k := &Keyring{CAs: make(map[Authority]CA)}
	if err := d.readJSON(clusterFile, &k.Cluster); err != nil {
		return nil, err
	}
	for _, a := range Authorities() {
		data, err := d.read("ca-" + string(a) + ".pem")
		if err != nil {
			return nil, err
		}
		p, err := ParsePair(data)
		if err != nil {
			return nil, fmt.Errorf("authority %s: %w", a, err)
		}
		if k.CAs[a], err = p.ca(); err != nil {
			return nil, fmt.Errorf("authority %s: %w", a, err)
		}
	}
	data, err := d.read(saFile)
	if err != nil {
		return nil, err
	}
	if k.ServiceAccount, err = parseKey(data); err != nil {
		return nil, fmt.Errorf("service account: %w", err)
	}
	var s secrets
	if err := d.readJSON(secretsFile, &s); err != nil {
		return nil, err
	}
	k.Sealing, k.Gossip = s.Sealing, s.Gossip
	return k, k.check()
}

// SetCluster replaces the cluster's id and incarnation, after a recovery.
func (d Dir) SetCluster(c Cluster) error { return d.writeJSON(clusterFile, c) }

// Pair reads this peer's certificate for use.
func (d Dir) Pair(use Use) (Pair, error) {
	data, err := d.read(string(use) + ".pem")
	if err != nil {
		return Pair{}, err
	}
	p, err := ParsePair(data)
	if err != nil {
		return Pair{}, fmt.Errorf("certificate %s: %w", use, err)
	}
	return p, nil
}

// Put writes this peer's certificate for use.
func (d Dir) Put(use Use, p Pair) error { return d.write(string(use)+".pem", p.PEM()) }

// Path is the file that holds certificate and key for use.
func (d Dir) Path(use Use) string { return filepath.Join(string(d), string(use)+".pem") }

// CAPath is the file that holds the certificate, and the key, of a.
func (d Dir) CAPath(a Authority) string { return filepath.Join(string(d), "ca-"+string(a)+".pem") }

// Ensure issues what is missing, is past two thirds of its life, or no longer
// says what it must (an address has changed), and returns all certificates
// and which of them are new. A renewed certificate keeps its key: the mesh
// knows peers by it.
func (d Dir) Ensure(k *Keyring, m Machine, now time.Time) (all map[Use]Pair, renewed []Use, err error) {
	all = make(map[Use]Pair)
	for _, use := range Uses() {
		have, err := d.Pair(use)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		if err == nil && k.upToDate(use, m, have, now) {
			all[use] = have
			continue
		}
		p, err := k.Renew(use, m, have, now)
		if err != nil {
			return nil, nil, err
		}
		if err := d.Put(use, p); err != nil {
			return nil, nil, err
		}
		all[use] = p
		renewed = append(renewed, use)
	}
	return all, renewed, nil
}

// Renew makes m's certificate for use around the key of old, or around a new
// key if old is empty.
func (k *Keyring) Renew(use Use, m Machine, old Pair, now time.Time) (Pair, error) {
	var key *ecdsa.PrivateKey
	var err error
	if len(old.Key) == 0 {
		key, err = newKey()
	} else {
		key, err = parseKey(old.Key)
	}
	if err != nil {
		return Pair{}, err
	}
	return k.issueFor(use, m, key, now)
}

// RenewAt is when a certificate is due: two thirds through its life.
func RenewAt(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)
}

func (k *Keyring) upToDate(use Use, m Machine, p Pair, now time.Time) bool {
	leaf, err := p.Leaf()
	if err != nil || !now.Before(RenewAt(leaf)) {
		return false
	}
	a, want, err := template(use, m)
	if err != nil || leaf.CheckSignatureFrom(k.CAs[a].Cert) != nil {
		return false
	}
	return leaf.Subject.CommonName == want.Subject.CommonName &&
		slices.Equal(leaf.DNSNames, want.DNSNames) &&
		slices.EqualFunc(leaf.IPAddresses, want.IPAddresses, net.IP.Equal) &&
		slices.Equal(leaf.Subject.Organization, want.Subject.Organization) &&
		len(leaf.URIs) == len(want.URIs) && (len(want.URIs) == 0 || leaf.URIs[0].String() == want.URIs[0].String())
}

func (d Dir) read(name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(string(d), name))
	if err != nil {
		return nil, fmt.Errorf("read keyring: %w", err)
	}
	return data, nil
}

func (d Dir) readJSON(name string, into any) error {
	data, err := d.read(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read keyring: decode %s: %w", name, err)
	}
	return nil
}

func (d Dir) writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write keyring: encode %s: %w", name, err)
	}
	return d.write(name, append(data, '\n'))
}

// write replaces a file so that after a crash it is either the old or the new one.
func (d Dir) write(name string, data []byte) error {
	path := filepath.Join(string(d), name)
	f, err := os.CreateTemp(string(d), "."+name+".*") // created 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(string(d))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
