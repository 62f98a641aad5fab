package actorkit

// Outbox holds messages for one receiver, in order, until its owner's select has sent them: so a
// receiver that does not take its messages never holds the owner's loop. The owner selects on
//
//	case o.Out() <- o.Head():
//		o.Sent()
//
// and is the only one to use the Outbox.
type Outbox[M any] struct {
	Box   chan<- M
	queue []M
}

// Put adds a message.
func (o *Outbox[M]) Put(m M) { o.queue = append(o.queue, m) }

// Out is the channel to send on; nil, which no select takes, when nothing waits.
func (o *Outbox[M]) Out() chan<- M {
	if len(o.queue) == 0 {
		return nil
	}
	return o.Box
}

// Head is the message to send next, or nothing.
func (o *Outbox[M]) Head() M {
	if len(o.queue) == 0 {
		var none M
		return none
	}
	return o.queue[0]
}

// Sent takes the head away.
func (o *Outbox[M]) Sent() { o.queue = o.queue[1:] }
