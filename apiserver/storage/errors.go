package storage

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value"

	"skein.dev/skein/api/store"
)

// ErrClaimed is wrapped by the error of a write whose object claims a key
// that another object holds.
var ErrClaimed = errors.New("already claimed")

// ClaimError names the claim that could not be taken.
type ClaimError struct{ Key string }

func (e *ClaimError) Error() string { return fmt.Sprintf("%s: %v", e.Key, ErrClaimed) }

// Unwrap makes errors.Is(err, ErrClaimed) hold.
func (e *ClaimError) Unwrap() error { return ErrClaimed }

// CorruptError says that a stored value is no object and never will be:
// only an unsafe deletion removes it.
type CorruptError struct{ Cause error }

func (e *CorruptError) Error() string { return e.Cause.Error() }

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Cause }

// Deletable marks values that t cannot open as corrupt, so that they can be
// removed by an unsafe deletion; without it they are an internal error.
func Deletable(t value.Transformer) value.Transformer { return deletable{t} }

type deletable struct{ value.Transformer }

func (d deletable) TransformFromStorage(ctx context.Context, data []byte, dataCtx value.Context) ([]byte, bool, error) {
	out, stale, err := d.Transformer.TransformFromStorage(ctx, data, dataCtx)
	if err != nil {
		return nil, false, &CorruptError{Cause: fmt.Errorf("data from the storage is not transformable: %w", err)}
	}
	return out, stale, nil
}

// corrupted makes a decoding error the one by which the registry recognizes
// an object that only an unsafe deletion removes.
func corrupted(key string, err error) error {
	if c, ok := errors.AsType[*CorruptError](err); ok {
		return storage.NewCorruptObjError(key, c)
	}
	return err
}

// storeError turns an error of the store into the answer a client can act on.
func (s *Storage) storeError(err error) error {
	return StoreError(err)
}

// StoreError turns an error of the store into an API status: what can be
// retried says so and when.
func StoreError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNoQuorum):
		// Without Retry-After: client-go would repeat for a minute in
		// silence, and the user is better told at once.
		return status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, 0, err)
	case errors.Is(err, store.ErrClosed):
		return status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, 1, err)
	case errors.Is(err, store.ErrOverloaded):
		return apierrors.NewTooManyRequests(err.Error(), 1)
	case errors.Is(err, store.ErrTooLarge):
		return apierrors.NewRequestEntityTooLargeError(err.Error())
	case errors.Is(err, store.ErrFenced):
		return status(http.StatusForbidden, metav1.StatusReasonForbidden, 0, err)
	case errors.Is(err, store.ErrUnknown):
		return apierrors.NewTimeoutError(err.Error(), 1)
	case errors.Is(err, store.ErrNoSpace):
		return status(http.StatusInsufficientStorage, metav1.StatusReasonInternalError, 0, err)
	case errors.Is(err, store.ErrCompacted):
		return apierrors.NewResourceExpired("the requested resource version is no longer available")
	case errors.Is(err, context.DeadlineExceeded):
		return apierrors.NewTimeoutError("request did not complete within the allotted timeout", 1)
	}
	return err
}

func status(code int32, reason metav1.StatusReason, retry int32, err error) error {
	st := metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    code,
		Reason:  reason,
		Message: err.Error(),
	}
	if retry > 0 {
		st.Details = &metav1.StatusDetails{RetryAfterSeconds: retry}
	}
	return &apierrors.StatusError{ErrStatus: st}
}
