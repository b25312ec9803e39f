package cri

import "testing"

func TestATerminationMessageFromTheLogIsWhatTheContainerWrote(t *testing.T) {
	for name, c := range map[string]struct{ log, want string }{
		"whole lines keep their ends":         {"t1 stdout F a\nt2 stderr F b c\n", "a\nb c\n"},
		"a part's end is the log's":           {"t1 stdout P DONE\n", "DONE"},
		"parts make one line":                 {"t1 stdout P a\nt2 stdout F b\n", "ab\n"},
		"what is no line of a log is no text": {"garbage\n", ""},
	} {
		if got := string(logText([]byte(c.log))); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
