package actorkit

// Outbox queues messages for one receiver, in order, until the owner's select loop sends them, so that a
// slow receiver never blocks the loop. The owner selects on
//
//	case o.Out() <- o.Head():
//		o.Sent()
//
// and is the only user of the Outbox.
type Outbox[M any] struct {
	Box   chan<- M
	queue []M
}

// Put appends a message.
func (o *Outbox[M]) Put(m M) { o.queue = append(o.queue, m) }

// Out returns the channel to send on, or nil, which blocks forever in a select, if the queue is empty.
func (o *Outbox[M]) Out() chan<- M {
	if len(o.queue) == 0 {
		return nil
	}
	return o.Box
}

// Head returns the message to send next, or the zero value.
func (o *Outbox[M]) Head() M {
	if len(o.queue) == 0 {
		var none M
		return none
	}
	return o.queue[0]
}

// Sent removes the head.
func (o *Outbox[M]) Sent() { o.queue = o.queue[1:] }
