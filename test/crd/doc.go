// Package crd tests the API as a user meets it: the generated
// CustomResourceDefinitions against a real API server (build tag envtest,
// KUBEBUILDER_ASSETS names the folder with etcd, kube-apiserver and kubectl),
// and what can be said of them without one.
package crd
