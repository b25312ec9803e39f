package defaulting

import flowcontrolv1 "k8s.io/api/flowcontrol/v1"

// The defaults of the fairness between requests.
const (
	matchingPrecedence = 1000
	concurrencyShares  = 30
	queues             = 64
	handSize           = 8
	queueLength        = 50
)

// FlowSchema defaults in which order schemas are asked.
func FlowSchema(f *flowcontrolv1.FlowSchema) { set(&f.Spec.MatchingPrecedence, matchingPrecedence) }

// PriorityLevelConfiguration defaults how much a level of requests gets.
func PriorityLevelConfiguration(c *flowcontrolv1.PriorityLevelConfiguration) {
	if e := c.Spec.Exempt; e != nil {
		point(&e.NominalConcurrencyShares, 0)
		point(&e.LendablePercent, 0)
	}
	l := c.Spec.Limited
	if l == nil {
		return
	}
	point(&l.NominalConcurrencyShares, concurrencyShares)
	point(&l.LendablePercent, 0)
	if q := l.LimitResponse.Queuing; q != nil {
		set(&q.Queues, queues)
		set(&q.HandSize, handSize)
		set(&q.QueueLengthLimit, queueLength)
	}
}
