package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// HealthCheck is a question that each director asks every real server again
// and again. A check never overlaps itself: with a timeout longer than the
// interval the next try waits for the end of the one before.
type HealthCheck struct {
	// name tells the checks of a VirtualServer apart.
	// +kubebuilder:default=default
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +optional
	Name string `json:"name,omitempty"`

	// type is what is asked. TCP: whether a connection to the port can be
	// made; it is closed at once (keepalived: TCP_CHECK).
	// +kubebuilder:default=TCP
	// +optional
	Type HealthCheckType `json:"type,omitempty"`

	// port is the port that is asked, 1 to 65535. Left out, each port that is
	// served is asked by itself, and decides for that port alone.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	// +optional
	Port int32 `json:"port,omitempty"`

	// interval is the time from the start of one try to the start of the next,
	// 100ms to 1h. keepalived: delay_loop.
	// +kubebuilder:default="2s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1h')",message="must be from 100ms to 1h"
	// +optional
	Interval metav1.Duration `json:"interval,omitzero"`

	// timeout is how long a try may take before it counts as failed, 10ms to
	// 5m. keepalived: connect_timeout.
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('5m')",message="must be from 10ms to 5m"
	// +optional
	Timeout metav1.Duration `json:"timeout,omitzero"`

	// failureThreshold is how many tries in a row must fail before a real
	// server that was up is down, 1 to 100. keepalived: retry + 1.
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	FailureThreshold int32 `json:"failureThreshold,omitempty"`

	// successThreshold is how many tries in a row must succeed before a real
	// server that was down is up, 1 to 100. keepalived's is always 1.
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +optional
	SuccessThreshold int32 `json:"successThreshold,omitempty"`

	// retryInterval is the time between tries, instead of interval, from the
	// first failure of a real server that is up until it is down or has
	// answered again, 10ms to 1h. keepalived: delay_before_retry.
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h))+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('1h')",message="must be from 10ms to 1h"
	// +optional
	RetryInterval metav1.Duration `json:"retryInterval,omitzero"`

	// initialState is what a real server that is new to a director counts as
	// until its first verdict. Down: it gets no connections before it has
	// passed the check (keepalived: alpha). Up: it gets them at once. A real
	// server that a restarted director finds in the kernel keeps its state.
	// +kubebuilder:default=Down
	// +optional
	InitialState InitialState `json:"initialState,omitempty"`
}

// HealthCheckType is a kind of health check.
//
// +kubebuilder:validation:Enum=TCP
type HealthCheckType string

// HealthCheckTCP makes a connection and closes it.
const HealthCheckTCP HealthCheckType = "TCP"

// InitialState is what a real server counts as before its first verdict.
//
// +kubebuilder:validation:Enum=Down;Up
type InitialState string

// What a real server can count as before its first verdict.
const (
	InitialStateDown InitialState = "Down"
	InitialStateUp   InitialState = "Up"
)
