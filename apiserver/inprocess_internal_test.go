package apiserver

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
)

// A client that gives up while its answer begins leaves nobody behind who
// waits for it to read.
func TestAnInProcessRequestThatIsGivenUpEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		given := make(chan struct{})
		s := &Server{base: t.Context(), handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			<-given
			var err error
			for range 3 {
				if _, err = w.Write(make([]byte, maxUnread)); err != nil {
					break
				}
			}
			ended <- err
		})}
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, inProcessHost+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		cancelled := make(chan struct{})
		go func() {
			defer close(cancelled)
			synctest.Wait()
			cancel()
		}()
		resp, err := (&inProcess{server: s, user: &user.DefaultInfo{}}).RoundTrip(r)
		if err == nil {
			_ = resp.Body.Close()
			t.Fatal("an answer after the end of its context")
		}
		<-cancelled
		close(given)
		synctest.Wait()
		select {
		case err := <-ended:
			if err == nil {
				t.Error("three times as much was written as may wait to be read")
			}
		default:
			t.Fatal("the handler still waits for a reader")
		}
	})
}

type idle struct{ admission.Interface }

// A plugin that is late is waited for; it runs, and so would every other one
// that is made in its place.
func TestAPluginThatIsLateIsMadeOnce(t *testing.T) {
	made, late := 0, 2
	o := &onDemand{
		always: true,
		make:   func() (admission.Interface, error) { made++; return idle{}, nil },
		prepare: func(admission.Interface) (func() func() error, error) {
			return func() func() error {
				return func() error {
					if late--; late >= 0 {
						return errors.New("late")
					}
					return nil
				}
			}, nil
		},
	}
	for range 2 {
		if _, err := o.get(); err == nil {
			t.Error("a plugin that is not ready judges")
		}
	}
	if p, err := o.get(); err != nil || p == nil {
		t.Errorf("once it is ready: %v, %v", p, err)
	}
	if made != 1 {
		t.Errorf("made %d times", made)
	}
}
