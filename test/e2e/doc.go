// Package e2e tests the operator as its users run it: a real cluster in the
// lab, the chart installed by helm, and traffic from hosts outside.
//
// There is one lab for all tests, with two director nodes of which one is in
// the pool at first, and a worker.
package e2e
