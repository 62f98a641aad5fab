package frontdoor

import (
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/door/relay"
	"companion/messages"
)

// leaves lets the client of a request leave, and settles its connection after a second, unless the runtime notices nothing.
func (c *scenario) leaves(t *testing.T, body string, noticed bool) {
	t.Helper()
	w := c.watch(messages.Snapshot{Launch: c.launch}, printOf(t, body), false)
	w.sending()
	w.leave(relay.Result{Reason: messages.ReasonUpstreamFailed, Sent: true, Gone: true, Ending: &relay.Ending{}})
	time.Sleep(time.Second)
	w.settled(noticed)
}

// R11: a request whose client has left is in the runtime until it has answered a request that came after it had noticed, or
// until the launch ends. Nothing else shows that the runtime no longer works for it, and no time does.
func TestRequestOfAClientThatLeft(t *testing.T) {
	type step func(t *testing.T, c *scenario)
	sleep := func(d time.Duration) step { return func(*testing.T, *scenario) { time.Sleep(d) } }
	exchange := func(counts bool, took time.Duration, r relay.Result) step {
		return func(t *testing.T, c *scenario) {
			w := c.watch(messages.Snapshot{Launch: c.launch}, printOf(t, chatOf("another", "")), counts)
			w.sending()
			time.Sleep(took)
			w.leave(r)
		}
	}
	const long = noticeTime + time.Second
	for name, test := range map[string]struct {
		noticed bool
		steps   []step
		want    permission
	}{
		"at once":                             {true, nil, permittedAlone},
		"an hour later":                       {true, []step{sleep(time.Hour)}, permittedAlone},
		"a later request is answered":         {true, []step{sleep(long), exchange(false, 0, whole)}, permitted},
		"a later request is sent too early":   {true, []step{exchange(false, time.Hour, whole)}, permittedAlone},
		"a later request is refused":          {true, []step{sleep(long), exchange(false, 0, relay.Result{Reason: messages.ReasonBadRequest, Sent: true, Whole: true})}, permittedAlone},
		"the tokens of a request are counted": {true, []step{sleep(long), exchange(true, 0, whole)}, permittedAlone},
		"not noticed":                         {false, []step{sleep(time.Hour), exchange(false, 0, whole)}, permittedAlone},
		"the launch has ended": {false, []step{func(_ *testing.T, c *scenario) {
			c.RuntimeEnded(c.launch, false)
			c.launch++
		}}, permitted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := scenario{NewQuarantine(), 1}
				body := chatOf("deadly", "")
				c.leaves(t, body, test.noticed)
				for _, s := range test.steps {
					s(t, &c)
				}
				if got, want := c.RuntimeEnded(c.launch, true), test.want != permitted; got != want {
					t.Errorf("got an end with requests %v, want %v", got, want)
				}
				c.want(t, body, test.want)
				c.launch++
				if test.want == permitted {
					return
				}
				c.leaves(t, body, test.noticed)
				time.Sleep(time.Hour - time.Minute)
				c.RuntimeEnded(c.launch, true)
				c.want(t, body, refusedForItself)
			})
		})
	}
}

// R11: after its place is free for other requests, a request whose client has left still counts as in the runtime. The
// answer to another one frees it.
func TestClientThatLeftIsWatched(t *testing.T) {
	for name, noticed := range map[string]bool{"noticed": true, "not noticed": false} {
		t.Run(name, func(t *testing.T) {
			quarantine := NewQuarantine()
			r := start(t, llama(t), func(d *Deps) {
				d.Quarantine, d.Bounds.MaxInFlight, d.Bounds.EndTime = quarantine, 1, 200*time.Millisecond
			})
			backEnd, saw, release, _ := stubborn(t, false)
			r.behind(2, backEnd)
			first := r.send(r.say("first"))
			r.wait(1, 0)
			first.Close()
			<-saw
			if noticed {
				release()
			}
			r.wait(0, 0)
			quarantine.mu.Lock()
			left := quarantine.left
			if len(left) != 1 || left[0].launch != 2 || !left[0].gone || !left[0].closed.IsZero() != noticed {
				t.Errorf("got %d requests that left, the first %+v, want one of launch 2, noticed %v", len(left), left, noticed)
			}
			quarantine.mu.Unlock()
			if !quarantine.RuntimeEnded(2, true) {
				t.Error("the runtime dies: got no request in it, want the one whose client left")
			}
		})
	}
}
