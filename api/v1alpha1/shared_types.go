package v1alpha1

// IPAddress is an IPv4 or IPv6 address in the one form that netip.Addr.String
// writes, without a zone and not IPv4-mapped. It is an address that a single
// host can have on a network: neither unspecified nor loopback, link-local,
// multicast or broadcast.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=45
// +kubebuilder:validation:XValidation:rule="isIP(self)",message="must be an IPv4 or IPv6 address, without a zone and not IPv4-mapped"
// +kubebuilder:validation:XValidation:rule="!isIP(self) || ip.isCanonical(self)",message="must be written in canonical form: lower case, no leading zeros, the longest run of zero groups as ::"
// +kubebuilder:validation:XValidation:rule="!isIP(self) || ip(self).isGlobalUnicast()",message="must be an ordinary unicast address: not unspecified, loopback, link-local, multicast or broadcast"
type IPAddress string

// AddressRange is a set of addresses of one family: a single address
// ("192.168.11.200"), a range with both ends in it
// ("192.168.11.200-192.168.11.220") or a network in CIDR notation
// ("192.168.11.0/24"). A range that ends before it begins holds no address.
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=91
// +kubebuilder:validation:XValidation:rule="self.matches('[-/]') || isIP(self) && ip.isCanonical(self)",message="must be an address in canonical form, a range ADDRESS-ADDRESS or a network ADDRESS/LENGTH"
// +kubebuilder:validation:XValidation:rule="!self.contains('/') || isCIDR(self) && string(cidr(self).masked()) == self",message="must be a network in CIDR notation, in canonical form and without host bits"
// +kubebuilder:validation:XValidation:rule="!self.contains('-') || isIP(self.substring(0, self.indexOf('-'))) && ip.isCanonical(self.substring(0, self.indexOf('-')))",message="must begin with an address in canonical form"
// +kubebuilder:validation:XValidation:rule="!self.contains('-') || isIP(self.substring(self.indexOf('-') + 1)) && ip.isCanonical(self.substring(self.indexOf('-') + 1))",message="must end with an address in canonical form"
// +kubebuilder:validation:XValidation:rule="!self.contains('-') || self.substring(0, self.indexOf('-')).contains(':') == self.substring(self.indexOf('-') + 1).contains(':')",message="must begin and end with addresses of one family"
type AddressRange string
