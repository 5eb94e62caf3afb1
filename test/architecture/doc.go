// Package architecture holds the tests of who may depend on whom, where linters
// do not look: behind the packages that are imported.
package architecture
