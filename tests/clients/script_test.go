package clients

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs the programs: Helm, kubectl and an older kubectl. Each
// script has a namespace of its own, named as it is.
func TestScripts(t *testing.T) {
	m := startMesh(t)
	bin := t.TempDir()
	for name, program := range map[string]string{"kubectl": *skein, "skein": *skein, "helm": *helm, "oldkubectl": *oldKubectl} {
		if program == "" {
			t.Fatalf("-%s names no program", name)
		}
		if err := os.Symlink(program, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	chart, err := filepath.Abs("testdata/chart")
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range m.peers {
		_ = i
		t.Run(p.name, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir: "testdata/script",
				Setup: func(e *testscript.Env) error {
					e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
					e.Setenv("HOME", e.WorkDir)
					e.Setenv("KUBECONFIG", filepath.Join(e.WorkDir, "kubeconfig"))
					e.Setenv("CHART", chart)
					e.Setenv("PEER", p.name)
					raw, err := os.ReadFile(p.kubeconfig)
					if err != nil {
						return err
					}
					return os.WriteFile(filepath.Join(e.WorkDir, "kubeconfig"), raw, 0o600)
				},
			})
		})
	}
}
