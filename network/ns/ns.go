// Package ns runs code in a network namespace.
//
// Its invariant: a thread that entered another namespace is never given back
// to the Go scheduler, so no other goroutine finds itself there.
package ns

import (
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
)

// Do runs fn in the network namespace at path, or with an empty path in that
// of the process, and returns its error. fn must not start goroutines that
// depend on the namespace: only its own thread is there.
func Do(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		// Not unlocked on purpose: the thread ends with this goroutine.
		runtime.LockOSThread()
		done <- enter(path, fn)
	}()
	return <-done
}

// Fresh runs fn in a network namespace of its own, which ends with the call.
func Fresh(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked on purpose, as in Do
		h, err := netns.New()
		if err != nil {
			done <- fmt.Errorf("make network namespace: %w", err)
			return
		}
		defer h.Close()
		done <- fn()
	}()
	return <-done
}

func enter(path string, fn func() error) error {
	h, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer h.Close()
	if err := netns.Set(h); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return fn()
}

// Open returns a handle of the network namespace at path, or with an empty
// path the handle that means "where the process is". The caller closes it.
func Open(path string) (netns.NsHandle, error) {
	if path == "" {
		return netns.None(), nil
	}
	h, err := netns.GetFromPath(path)
	if err != nil {
		return h, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return h, nil
}
