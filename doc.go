// Package skein is the root of the module; it holds only the tests that guard
// the architecture (imports_test.go).
package skein
