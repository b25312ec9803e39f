package apiserver

import "net/http"

// stackRoom is a little more than most requests need of the stack.
const stackRoom = 14 << 10

// roomy grows the request's goroutine to the stack that it will need, at
// once and while there is hardly anything on it to move. By itself it grows
// by doubling, each time deep in the chain, and moving dozens of frames four
// times over is a seventh of what a GET costs.
func roomy(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reserve(len(r.Method))
		h.ServeHTTP(w, r)
	})
}

// reserve has a frame so large that the stack must grow for it. Touching it at
// places that the compiler cannot know keeps it from being optimized away;
// clearing it costs a hundredth of what it saves.
//
//go:noinline
func reserve(n int) byte {
	var room [stackRoom]byte
	room[n%stackRoom] = 1
	return room[(n+1)%stackRoom]
}
