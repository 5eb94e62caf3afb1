package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"time"
)

// certificateLife is longer than any lab.
const certificateLife = 30 * 24 * time.Hour

// authority signs the lab's certificates; it lives as long as Up runs.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the lab's authority: %w", err)
	}
	template := certificateTemplate(pkix.Name{CommonName: "lvs-lab"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the lab's authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making the lab's authority: %w", err)
	}
	return &authority{certificate: certificate, key: key, pem: encodePEM("CERTIFICATE", der)}, nil
}

func certificateTemplate(subject pkix.Name) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      subject,
		NotBefore:    now.Add(-time.Hour), // guests' clocks may be behind
		NotAfter:     now.Add(certificateLife),
	}
}

// issue writes a key pair to file.crt and file.key.
func (a *authority) issue(file string, subject pkix.Name, usage x509.ExtKeyUsage, dnsNames []string, addresses []netip.Addr) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("making a certificate for %s: %w", subject.CommonName, err)
	}
	template := certificateTemplate(subject)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	template.DNSNames = dnsNames
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("making a certificate for %s: %w", subject.CommonName, err)
	}
	return errors.Join(writeFile(file+".crt", encodePEM("CERTIFICATE", der)), writeKey(file+".key", key))
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return writeFile(file, encodePEM("EC PRIVATE KEY", der))
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// kubeconfig is one for the given server and token.
func kubeconfig(server, token string, ca []byte) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: lab
  user:
    token: %s
contexts:
- name: lab
  context:
    cluster: lab
    user: lab
current-context: lab
`, server, base64.StdEncoding.EncodeToString(ca), token)
}

// writePKI makes everything that the control plane reads from its folder.
func (l *Lab) writePKI(tokens map[string]string) (*authority, error) {
	if err := os.MkdirAll(l.path("pki"), 0o700); err != nil {
		return nil, fmt.Errorf("making the lab's keys: %w", err)
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the lab's keys: %w", err)
	}
	var list []byte
	for _, user := range l.users() {
		list = fmt.Appendf(list, "%s,%s,%s,%q\n", tokens[user.name], user.name, user.name, user.group)
	}
	return ca, errors.Join(
		writeFile(l.path("pki", "ca.crt"), ca.pem),
		writeKey(l.path("pki", "service-accounts.key"), signer),
		writeFile(l.path("pki", "tokens.csv"), list),
		ca.issue(l.path("pki", "apiserver"), pkix.Name{CommonName: "kube-apiserver"}, x509.ExtKeyUsageServerAuth,
			[]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"},
			[]netip.Addr{netip.MustParseAddr(controlAddress), netip.MustParseAddr(apiServiceIP), netip.MustParseAddr("127.0.0.1")}),
		ca.issue(l.path("pki", "kubelet-client"), pkix.Name{CommonName: "kubelet-client", Organization: []string{"system:masters"}},
			x509.ExtKeyUsageClientAuth, nil, nil),
	)
}

// clientTLS trusts the lab's authority and nobody else.
func clientTLS(ca []byte) (*tls.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("the lab's authority is not a certificate")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
