// Package scenarios holds what users write beside what directors make of it:
// each file of testdata has Kubernetes objects as YAML, and the state, checks
// and rejections that are planned for them as text. It has no code but its
// test, which says how the files are read.
package scenarios
