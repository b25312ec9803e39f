package controllers_test

import (
	"errors"
	"strings"
	"testing"

	"skein.dev/skein/controllers"
)

func TestSelect(t *testing.T) {
	for list, want := range map[string]map[string]bool{
		"":                           {"job-controller": true, "token-cleaner-controller": false},
		"*":                          {"job-controller": true, "token-cleaner-controller": false},
		"*,token-cleaner-controller": {"job-controller": true, "token-cleaner-controller": true},
		"*,-job-controller":          {"job-controller": false, "cronjob-controller": true},
		"-job,*":                     {"job-controller": false, "cronjob-controller": true},
		"job":                        {"job-controller": true, "cronjob-controller": false},
		"-job":                       {"job-controller": false, "cronjob-controller": false},
		"job,-job-controller,*":      {"job-controller": true},
	} {
		var words []string
		if list != "" {
			words = strings.Split(list, ",")
		}
		s, err := controllers.Select(words)
		if err != nil {
			t.Fatalf("%q: %v", list, err)
		}
		for name, runs := range want {
			if s.Runs(name) != runs {
				t.Errorf("%q: %s runs: %v, want %v", list, name, !runs, runs)
			}
		}
	}
	if _, err := controllers.Select([]string{"*", "-jobs"}); !errors.Is(err, controllers.ErrUnknownController) || !strings.Contains(err.Error(), `"jobs"`) {
		t.Errorf("an unknown name gives %v", err)
	}
}
