// Package apiserver gives tests an API server that has our CustomResourceDefinitions.
package apiserver
