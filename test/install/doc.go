// Package install tests what users install: the chart, the kustomize bases and
// the project's description. The tests with build tag install run the programs
// that the variables HELM and KUBECTL name.
package install
