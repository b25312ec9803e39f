package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"skein.dev/skein/network/cni"
)

// CNIConfig says what WriteCNIConfig writes.
type CNIConfig struct {
	// Dir is the runtime's directory of network configurations; it is made
	// if needed.
	Dir string
	// Ranges are the peer's own pod CIDRs.
	Ranges []netip.Prefix
	// DataDir is where the plugin keeps its allocations.
	DataDir string
	// MTU of the pods' interfaces; [Network.MTU] tells the right one.
	MTU int
	// Type is the plugin's program name; default [cni.Type].
	Type string
}

const conflistName = "10-skein.conflist"

// WriteCNIConfig makes the container runtime use Skein's pod network, unless
// dir holds another network's configuration: that one wins, ours is taken
// away, and its file name is returned. The file is replaced whole, and left
// alone when it is right already.
func WriteCNIConfig(c CNIConfig) (other string, err error) {
	if len(c.Ranges) == 0 {
		return "", errors.New("write network configuration: no pod CIDRs")
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return "", fmt.Errorf("create network configuration directory: %w", err)
	}
	path := filepath.Join(c.Dir, conflistName)
	other, err = otherConfig(c.Dir)
	if err != nil {
		return "", err
	}
	if other != "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return other, fmt.Errorf("give way to network configuration %s: %w", other, err)
		}
		return other, nil
	}
	want, err := c.render()
	if err != nil {
		return "", err
	}
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want) {
		return "", nil
	}
	// The name does not end like a configuration, so nobody reads half of it.
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, want, 0o644); err != nil {
		return "", fmt.Errorf("write network configuration: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", fmt.Errorf("write network configuration: %w", err)
	}
	return "", nil
}

func (c CNIConfig) render() ([]byte, error) {
	plugin := cni.Conf{Ranges: c.Ranges, DataDir: c.DataDir, MTU: c.MTU}
	plugin.Type = c.Type
	if plugin.Type == "" {
		plugin.Type = cni.Type
	}
	// types.PluginConf would print its empty ipam and dns: keep what is ours.
	raw, err := json.Marshal(plugin)
	if err != nil {
		return nil, fmt.Errorf("encode network configuration: %w", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("encode network configuration: %w", err)
	}
	delete(fields, "ipam")
	delete(fields, "dns")
	out, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.1.0", "name": "skein", "plugins": []any{fields},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode network configuration: %w", err)
	}
	return append(out, '\n'), nil
}

// otherConfig returns the name of the first configuration that is not ours.
func otherConfig(dir string) (string, error) {
	es, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("list network configurations: %w", err)
	}
	for _, e := range es {
		known := slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name()))
		if known && !e.IsDir() && e.Name() != conflistName {
			return e.Name(), nil
		}
	}
	return "", nil
}
