package director

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lvs-operator/lvs-operator/internal/gossip"
	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

// Metrics are what a director counts of its own work. A nil *Metrics counts
// nothing.
type Metrics struct {
	passes      prometheus.Histogram
	operations  *prometheus.CounterVec
	active      *prometheus.GaugeVec
	transitions *prometheus.CounterVec
	virtualIPs  prometheus.Gauge
	answering   prometheus.Gauge
	quorumsLost prometheus.Gauge
	claims      prometheus.Counter
	renewed     *prometheus.GaugeVec
	relaying    *prometheus.GaugeVec
	shared      prometheus.Gauge
	members     prometheus.Gauge
	cutOff      prometheus.Gauge
	gossip      *prometheus.CounterVec
}

// NewMetrics makes the director's metrics and registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		passes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "lvs_director_pass_duration_seconds",
			Help:    "Time to bring one VIP from what the kernel holds to what is planned.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lvs_director_kernel_operations_total",
			Help: "Changes made to the kernel, by verb and result.",
		}, []string{"verb", "result"}),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "lvs_director_active",
			Help: "1 while this director announces the VIPs of the group.",
		}, []string{"group"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lvs_director_transitions_total",
			Help: "Changes between active and standby, by reason.",
		}, []string{"reason"}),
		virtualIPs: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lvs_director_vips",
			Help: "VIPs in the kernel that may be announced.",
		}),
		answering: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lvs_director_kernel_answers",
			Help: "1 while the kernel itself answers for the VIPs because no peer is there.",
		}),
		quorumsLost: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lvs_director_quorums_lost",
			Help: "Services, each a VIP with a port, for which too few real servers are up.",
		}),
		claims: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "lvs_director_foreign_claims_total",
			Help: "Claims of a VIP heard from another MAC address.",
		}),
		renewed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "lvs_director_lease_renewed_timestamp_seconds",
			Help: "When this director last took or renewed the group's Lease, in Unix time; 0 if it never did.",
		}, []string{"group"}),
		relaying: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "lvs_director_relaying",
			Help: "1 while packets of unknown connections go to the director that had the group before.",
		}, []string{"group"}),
	}
	m.amongPeers()
	registry.MustRegister(m.passes, m.operations, m.active, m.transitions, m.virtualIPs, m.answering, m.quorumsLost, m.claims, m.renewed, m.relaying, m.shared)
	registry.MustRegister(m.members, m.gossip, m.cutOff)
	return m
}

// amongPeers makes the metrics of what a director has to do with the others.
func (m *Metrics) amongPeers() {
	m.members = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "lvs_director_gossip_members",
		Help: "Other directors of the pool that are alive by gossip.",
	})
	m.cutOff = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "lvs_director_isolated",
		Help: "1 while nobody on the announcement network answers this director who used to.",
	})
	m.gossip = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "lvs_director_gossip_events_total",
		Help: "Messages of gossip sent, received and refused, and faults, such as packets in another key.",
	}, []string{"event"})
	m.shared = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "lvs_director_connection_sync",
		Help: "1 while the kernel shares its connections with the other directors.",
	})
}

func (m *Metrics) pass(d time.Duration, err error) {
	if m == nil || err != nil {
		return
	}
	m.passes.Observe(d.Seconds())
}

func (m *Metrics) operation(op netstate.Op, err error) {
	if m == nil {
		return
	}
	result := "done"
	if err != nil {
		result = "failed"
	}
	m.operations.WithLabelValues(verb(op), result).Inc()
}

func (m *Metrics) role(group string, announcing bool, reason string) {
	if m == nil {
		return
	}
	m.active.WithLabelValues(group).Set(number(announcing))
	m.transitions.WithLabelValues(reason).Inc()
}

// groups begins to tell of so many groups, of none of which the director is active.
func (m *Metrics) groups(count int) {
	if m == nil {
		return
	}
	m.active.Reset()
	m.renewed.Reset()
	m.relaying.Reset()
	for number := range count {
		m.active.WithLabelValues(strconv.Itoa(number)).Set(0)
	}
}

func (m *Metrics) heardClaim() {
	if m != nil {
		m.claims.Inc()
	}
}

func (m *Metrics) sharing(running bool) {
	if m != nil {
		m.shared.Set(number(running))
	}
}

func (m *Metrics) serving(vips, quorumsLost int, kernelAnswers bool) {
	if m == nil {
		return
	}
	m.virtualIPs.Set(float64(vips))
	m.quorumsLost.Set(float64(quorumsLost))
	m.answering.Set(number(kernelAnswers))
}

// lease tells when the Lease was last renewed, zero for never, and whether there
// is a director to relay to.
func (m *Metrics) lease(group string, renewed time.Time, relaying bool) {
	if m == nil {
		return
	}
	seconds := 0.0
	if !renewed.IsZero() {
		seconds = float64(renewed.UnixMilli()) / 1000
	}
	m.renewed.WithLabelValues(group).Set(seconds)
	m.relaying.WithLabelValues(group).Set(number(relaying))
}

// living tells how many peers are alive by gossip.
func (m *Metrics) living(members int) {
	if m != nil {
		m.members.Set(float64(members))
	}
}

func (m *Metrics) isolated(isolated bool) {
	if m == nil {
		return
	}
	m.cutOff.Set(0)
	if isolated {
		m.cutOff.Set(1)
	}
}

func (m *Metrics) gossiped(event gossip.Event) {
	if m != nil {
		m.gossip.WithLabelValues(string(event)).Inc()
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// verb returns the verb and kind of an operation, which is what its metric is
// labelled with: the entry would be without bound.
func verb(op netstate.Op) string {
	switch op := op.(type) {
	case netstate.GuardChange:
		return op.Verb.String() + " guard"
	case netstate.AddressChange:
		return op.Verb.String() + " address"
	case netstate.ServiceChange:
		return op.Verb.String() + " service"
	case netstate.DestinationChange:
		return op.Verb.String() + " destination"
	default:
		return "other"
	}
}
