package apiserver

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	apiserverinstall "k8s.io/apiserver/pkg/apis/apiserver/install"
)

// Plugins that a file can configure, by upstream's names.
const (
	podSecurityPlugin = "PodSecurity"
	quotaPlugin       = "ResourceQuota"
	mutatingPlugin    = "MutatingAdmissionWebhook"
	validatingPlugin  = "ValidatingAdmissionWebhook"
)

// pluginFiles are configurations by plugin.
type pluginFiles map[string][]byte

// of returns a plugin's configuration, nil if it has none.
func (f pluginFiles) of(plugin string) io.Reader {
	data, ok := f[plugin]
	if !ok {
		return nil
	}
	return bytes.NewReader(data)
}

// readAdmissionFile reads an AdmissionConfiguration. Unlike upstream it
// refuses plugins that it could not configure: a limit that is silently not
// there is worse than a server that does not start.
func readAdmissionFile(path string) (pluginFiles, error) {
	if path == "" {
		return pluginFiles{}, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read admission configuration: %w", err)
	}
	scheme := runtime.NewScheme()
	apiserverinstall.Install(scheme)
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	obj, err := runtime.Decode(codecs.UniversalDecoder(), raw)
	if err != nil {
		return nil, fmt.Errorf("decode admission configuration %s: %w", path, err)
	}
	config, ok := obj.(*apiserverapi.AdmissionConfiguration)
	if !ok {
		return nil, fmt.Errorf("admission configuration %s: is a %T", path, obj)
	}
	files := pluginFiles{}
	known := []string{podSecurityPlugin, quotaPlugin, mutatingPlugin, validatingPlugin}
	for _, p := range config.Plugins {
		if !slices.Contains(known, p.Name) {
			return nil, fmt.Errorf("admission configuration %s: plugin %q cannot be configured here, only %v", path, p.Name, known)
		}
		switch {
		case p.Configuration != nil:
			files[p.Name] = p.Configuration.Raw
		case p.Path != "":
			at := p.Path
			if !filepath.IsAbs(at) {
				at = filepath.Join(filepath.Dir(path), at)
			}
			if files[p.Name], err = os.ReadFile(at); err != nil {
				return nil, fmt.Errorf("read configuration of plugin %s: %w", p.Name, err)
			}
		}
	}
	return files, nil
}
