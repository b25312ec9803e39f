package run

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Jobs come and go; nobody asks again about one that is gone.
func TestALedgerForgetsOwnersThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger(nil)
		for i := range 10_000 {
			if i%10 == 0 {
				time.Sleep(writeTimeout / 10)
			}
			l.Created(Key{Namespace: "default", Name: strconv.Itoa(i)}, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}})
		}
		if n := len(l.pending); n > 1000 {
			t.Errorf("%d owners are remembered, of whom 100 have written lately", n)
		}
		if _, young := l.pending[Key{Namespace: "default", Name: "9999"}]; !young {
			t.Error("a write just made is forgotten")
		}
	})
}
