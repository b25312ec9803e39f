package cri

import (
	"bytes"
	"io"
	"os"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of termination messages, by the Container API's documentation.
const (
	maxMessageBytes  = 4096
	maxFallbackBytes = 2048
	maxFallbackLines = 80
)

// addMessage puts a container's termination message into its status: the
// file that it wrote, or the end of its log where the policy says so.
func addMessage(st *runtimeapi.ContainerStatus) {
	path := st.Annotations[AnnotationMessagePath]
	if path == "" {
		return
	}
	for _, m := range st.Mounts {
		if m.ContainerPath != path {
			continue
		}
		if b := tail(m.HostPath, maxMessageBytes); len(b) > 0 {
			st.Message = string(b)
			return
		}
	}
	if st.Annotations[AnnotationMessagePolicy] == "FallbackToLogsOnError" && st.ExitCode != 0 && st.LogPath != "" {
		if b := logText(tail(st.LogPath, 4*maxFallbackBytes)); len(b) > 0 {
			st.Message = string(b)
		}
	}
}

// tail returns up to n bytes from the end of a file, nothing if it cannot.
func tail(path string, n int64) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	if _, err := f.Seek(max(0, info.Size()-n), io.SeekStart); err != nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return nil
	}
	return b
}

// logText takes the text out of the last lines of a CRI log.
func logText(b []byte) []byte {
	lines := bytes.SplitAfter(b, []byte("\n"))
	lines = lines[max(0, len(lines)-maxFallbackLines-1):]
	var out []byte
	for _, l := range lines {
		// time stream tag text
		f := bytes.SplitN(l, []byte(" "), 4)
		if len(f) < 4 {
			continue
		}
		text := f[3]
		if string(f[2]) == "P" { // a part of a line: its end is the log's, not the container's
			text = bytes.TrimSuffix(text, []byte("\n"))
		}
		out = append(out, text...)
	}
	return out[max(0, len(out)-maxFallbackBytes):]
}
