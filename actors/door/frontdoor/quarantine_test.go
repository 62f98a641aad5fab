package frontdoor

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"companion/adapters/door/openai"
	"companion/adapters/door/relay"
	"companion/messages"
)

var (
	whole    = relay.Result{Reason: messages.ReasonOK, Written: true, Sent: true, Whole: true}
	broken   = relay.Result{Reason: messages.ReasonUpstreamFailed, Sent: true, Lost: true}
	failed   = relay.Result{Reason: messages.ReasonUpstreamFailed, Sent: true, Written: true} // the runtime lives
	leftIt   = relay.Result{Reason: messages.ReasonUpstreamFailed, Sent: true, Gone: true}
	unsent   = relay.Result{Reason: messages.ReasonRuntimeUnavailable}
	gemma    = messages.Model{Name: "gemma", Version: "1", Context: 4096}
	schemaOf = func(name string) string {
		return `,"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object","properties":{"` + name + `":{"type":"string"}}}}}`
	}
)

// printOf fingerprints a client's body as the front door does: after the check.
func printOf(t testing.TB, body string) fingerprint {
	t.Helper()
	checked, _, bad := openai.Check(openai.Chat, []byte(body), openai.Serving{Model: gemma, Slots: 2}, nil)
	if bad != nil {
		t.Fatalf("checking %s: got %v, want no error", body, bad)
	}
	return fingerprintOf(routeChat, gemma, checked)
}

func chatOf(text, more string) string {
	return `{"messages":[{"role":"user","content":"` + text + `"}]` + more + `}`
}

// scenario simulates launches of a runtime that dies with the given requests in it.
type scenario struct {
	*Quarantine
	launch messages.Launch
}

// die lets the runtime die with the requests of bodies in it, and starts the next launch.
func (c *scenario) die(t testing.TB, bodies ...string) (counted bool) {
	t.Helper()
	var stays []*stay
	for _, b := range bodies {
		stays = append(stays, c.enters(c.launch, printOf(t, b)))
	}
	byRequest := c.RuntimeEnded(c.launch, true)
	for _, s := range stays {
		c.leave(s, broken)
	}
	c.launch++
	return !byRequest
}

// enters sends a request to the runtime of a launch.
func (q *Quarantine) enters(l messages.Launch, f fingerprint) *stay {
	s := &stay{launch: l, print: f}
	q.enter(s)
	return s
}

func (c *scenario) answer(t testing.TB, body string) {
	t.Helper()
	c.leave(c.enters(c.launch, printOf(t, body)), whole)
}

func (c *scenario) want(t testing.TB, body string, want permission) {
	t.Helper()
	f := printOf(t, body)
	if got := c.judge(&f); got != want {
		t.Errorf("%s: got permission %d, want %d", body, got, want)
	}
}

// R11: a request that was alone at a death is refused for an hour of the wall clock, and its death does not
// count; others are not refused.
func TestLoneRequestIsRefusedForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scenario{NewQuarantine(), 1}
		deadly, other := chatOf("deadly", ""), chatOf("other", "")
		c.want(t, deadly, permitted)
		if c.die(t, deadly) {
			t.Error("the death counts towards the crash loop, want that it does not")
		}
		c.want(t, deadly, refusedForItself)
		c.want(t, other, permitted)
		if got := c.refused(); got != 1 {
			t.Errorf("got %d refused requests, want 1", got)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		c.want(t, deadly, refusedForItself)
		time.Sleep(time.Nanosecond)
		c.want(t, deadly, permitted)
		if got := c.refused(); got != 0 {
			t.Errorf("after an hour: got %d refused requests, want 0", got)
		}
		if !c.die(t) {
			t.Error("a death without requests does not count towards the crash loop, want that it does")
		}
	})
}

// R11: with several requests in it none is refused after one death. Each runs alone the next time, which
// tells the deadly one from the others, and an answer clears a suspect.
func TestSuspectsRunAlone(t *testing.T) {
	c := scenario{NewQuarantine(), 1}
	deadly, honest := chatOf("deadly", ""), chatOf("honest", "")
	if c.die(t, deadly, honest) {
		t.Error("the death counts towards the crash loop, want that it does not")
	}
	c.want(t, deadly, permittedAlone)
	c.want(t, honest, permittedAlone)
	c.answer(t, honest)
	c.want(t, honest, permitted)
	c.die(t, deadly)
	c.want(t, deadly, refusedForItself)
	c.want(t, honest, permitted)
}

// R11: a request at two deaths is refused even when it was never alone.
func TestTwoDeaths(t *testing.T) {
	c := scenario{NewQuarantine(), 1}
	c.die(t, chatOf("deadly", ""), chatOf("first", ""))
	c.die(t, chatOf("deadly", ""), chatOf("second", ""))
	c.want(t, chatOf("deadly", ""), refusedForItself)
	c.want(t, chatOf("first", ""), permittedAlone)
	c.want(t, chatOf("second", ""), permittedAlone)
}

// R11: what a request is suspected of depends on how it left the runtime.
func TestWhoWasInTheRuntime(t *testing.T) {
	for name, test := range map[string]struct {
		result   relay.Result
		launch   messages.Launch // of the request; 2 dies
		later    time.Duration   // from the end of the request to the death
		answered bool            // before
		counted  bool
		want     permission
	}{
		"broken off":                       {broken, 2, time.Second, false, false, refusedForItself},
		"answered":                         {whole, 2, time.Second, false, true, permitted},
		"never sent":                       {unsent, 2, time.Second, false, true, permitted},
		"client left":                      {leftIt, 2, time.Second, false, false, permittedAlone},
		"broken off long ago":              {broken, 2, suspicionTime, false, false, permittedAlone},
		"in an earlier launch":             {broken, 1, time.Second, false, true, permitted},
		"broken off, but answered earlier": {broken, 2, time.Second, true, false, permittedAlone},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := NewQuarantine()
				f := printOf(t, chatOf("x", ""))
				if test.answered {
					q.leave(q.enters(test.launch, f), whole)
				}
				q.leave(q.enters(test.launch, f), test.result)
				time.Sleep(test.later)
				if got := !q.RuntimeEnded(2, true); got != test.counted {
					t.Errorf("the death counts towards the crash loop: got %v, want %v", got, test.counted)
				}
				if got := q.judge(&f); got != test.want {
					t.Errorf("got permission %d, want %d", got, test.want)
				}
			})
		})
	}
}

// R11: a caller evades the refusal neither by spelling the request in another way nor by fields that the
// runtime's end cannot depend on.
func TestSpellingsOfOneRequest(t *testing.T) {
	base := printOf(t, `{"messages":[{"role":"user","content":"deadly"}],"temperature":0.5,"max_tokens":5}`)
	for _, same := range []string{
		`{"messages":[{"role":"user","content":"deadly"}],"temperature":0.5,"max_tokens":5,"seed":7}`,
		`{"messages":[{"role":"user","content":"deadly"}],"temperature":0.5,"max_tokens":5,"cache_prompt":false}`,
		` { "max_tokens" : 5, "temperature" : 0.5 , "messages" : [ {"role":"user" , "content":"deadly"} ] } `,
		`{"messages":[{"role":"user","content":"dead\u006cy"}],"temperature":0.5,"max_tokens":5,"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"gemma","user":"a","metadata":{"a":"b"},"messages":[{"role":"user","content":"deadly"}],"temperature":0.5,"max_tokens":5}`,
	} {
		if got := printOf(t, same); got.whole != base.whole {
			t.Errorf("%s: got another digest, want that of the base", same)
		}
	}
	for _, other := range []string{
		`{"messages":[{"role":"user","content":"harmless"}],"temperature":0.5,"max_tokens":5}`,
		`{"messages":[{"role":"user","content":"deadly"}],"temperature":0.6,"max_tokens":5}`,
		`{"messages":[{"role":"user","content":"deadly"}],"temperature":0.5,"max_tokens":6}`,
		`{"messages":[{"role":"user","content":"deadly"}],"temperature":0.5,"max_tokens":5,"stop":"x"}`,
	} {
		if got := printOf(t, other); got.whole == base.whole {
			t.Errorf("%s: got the digest of the base, want another", other)
		}
	}
	checked, _, _ := openai.Check(openai.Chat, []byte(chatOf("x", "")), openai.Serving{Model: gemma, Slots: 2}, nil)
	if fingerprintOf(routeChat, gemma, checked).whole == fingerprintOf(routeCompletions, gemma, checked).whole {
		t.Error("two routes: got one digest, want two")
	}
	if fingerprintOf(routeChat, gemma, checked).whole == fingerprintOf(routeChat, messages.Model{Name: "other"}, checked).whole {
		t.Error("two models: got one digest, want two")
	}
}

// R11: a schema that ended the runtime with two texts is refused with every text, and a text that ended it
// with two schemas is refused with every schema; parts that the runtime has answered are not.
func TestVariedRequests(t *testing.T) {
	c := scenario{NewQuarantine(), 1}
	c.die(t, chatOf("text 1", schemaOf("deadly")))
	c.want(t, chatOf("text 2", schemaOf("deadly")), permitted)
	c.die(t, chatOf("text 2", schemaOf("deadly")))
	c.want(t, chatOf("text 3", schemaOf("deadly")), refusedForItself)
	c.want(t, chatOf("text 3", schemaOf("other")), permitted)
	c.want(t, chatOf("text 3", ""), permitted)

	c = scenario{NewQuarantine(), 1}
	c.die(t, chatOf("deadly", `,"temperature":0.1`))
	c.die(t, chatOf("deadly", `,"temperature":0.2`))
	c.want(t, chatOf("deadly", `,"temperature":0.3`), refusedForItself)

	c = scenario{NewQuarantine(), 1}
	c.answer(t, chatOf("text 0", schemaOf("honest")))
	for i := range carefulDeaths - 1 {
		c.die(t, chatOf(fmt.Sprint("text ", i+1), schemaOf("honest")))
	}
	c.want(t, chatOf("text 9", schemaOf("honest")), permitted)
}

// R11: white space, invisible characters and letter case make no other text of one that ended the runtime twice, in
// any of its spellings; the spelling that the runtime has answered is served, and excuses no other.
func TestSpellingsOfADeadlyText(t *testing.T) {
	c := scenario{NewQuarantine(), 1}
	c.answer(t, chatOf("the  DEADLY text", ""))
	c.die(t, chatOf("the deadly text", ""))
	c.want(t, chatOf("the deadly  text", ""), permitted)
	c.die(t, chatOf("the deadly  text", ""))
	for _, spelling := range []string{
		" the deadly text", "the\u00a0deadly text", `the\ndeadly\ttext`, `the\u2028deadly text`, "the dead\u200bly text", "thedeadlytext", "The Deadly TEXT", `the deadly text\u0000`,
	} {
		c.want(t, chatOf(spelling, ""), refusedForItself)
	}
	c.want(t, chatOf("the  DEADLY text", ""), permitted)
	for _, other := range []string{"the deadly test", "the deadly text.", "the deadly", `the \"deadly text`, "the dëadly text"} {
		c.want(t, chatOf(other, ""), permitted)
	}
	c.answer(t, chatOf("the  DEADLY text", `,"temperature":0.1`))
	c.want(t, chatOf("THE deadly text", ""), refusedForItself)
}

// R11: a long text is digested whole.
func TestLongTextsDiffer(t *testing.T) {
	long := strings.Repeat("long é ", 2000)
	for _, other := range [][2]string{{long + "a", long + "b"}, {"a" + long, "b" + long}} {
		if a, b := printOf(t, chatOf(other[0], "")), printOf(t, chatOf(other[1], "")); a.folded == b.folded {
			t.Error("two texts that differ at their beginning or end: got one digest, want two")
		}
	}
	if a, b := printOf(t, chatOf(long, "")), printOf(t, chatOf(strings.ReplaceAll(long, " ", "  "), "")); a.folded != b.folded || a.text == b.text {
		t.Error("two spellings of one text: got another folded digest or the same exact one, want one and two")
	}
}

// R11, A8: a caller with endless new deadly requests cannot make the runtime unavailable to the others. After three
// deaths requests run alone, so that no other request breaks off, and new schemas wait; plain requests and schemas
// that were answered go on. It ends five minutes after.
func TestEndlessDeadlyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scenario{NewQuarantine(), 1}
		honest := chatOf("honest", schemaOf("honest"))
		c.answer(t, honest)
		for i := range 100 {
			deadly := chatOf(fmt.Sprint("deadly ", i), schemaOf(fmt.Sprint("s", i)))
			want, wantHonest := permitted, permitted
			if i >= carefulDeaths {
				want, wantHonest = refusedForKind, permittedAlone
			}
			c.want(t, deadly, want)
			c.want(t, honest, wantHonest)
			c.want(t, chatOf("new", ""), wantHonest)
			if want == permitted && c.die(t, deadly) {
				t.Fatalf("death %d counts towards the crash loop, want that it does not", i)
			}
		}
		time.Sleep(carefulTime)
		c.want(t, chatOf("new", schemaOf("new")), permitted)
		for i := range 100 { // deadly texts, for which there is no such bound
			if c.die(t, chatOf(fmt.Sprint("deadly text ", i), "")) {
				t.Fatalf("death %d counts towards the crash loop, want that it does not", i)
			}
			c.want(t, chatOf("new", schemaOf("new")), map[bool]permission{true: permittedAlone, false: permitted}[i+1 >= carefulDeaths])
		}
	})
}

// R11: what is remembered is bounded, and the oldest goes first.
func TestQuarantineIsBounded(t *testing.T) {
	c := scenario{NewQuarantine(), 1}
	const many = 3 * maxAnswered
	for i := range many {
		f := fingerprint{whole: digest{byte(i), byte(i >> 8), byte(i >> 16), 1}, text: digest{byte(i), byte(i >> 8), byte(i >> 16), 2}}
		s := c.enters(c.launch, f)
		if i%2 == 0 {
			c.leave(s, leftIt)
			c.RuntimeEnded(c.launch, true)
			c.launch++
		} else {
			c.leave(s, whole)
		}
		c.leave(c.enters(c.launch, f), broken)
	}
	if got := len(c.noted.values); got > maxNoted || c.noted.order.Len() > maxNoted {
		t.Errorf("got %d noted digests, want at most %d", got, maxNoted)
	}
	if got := len(c.answered.values); got > maxAnswered {
		t.Errorf("got %d answered digests, want at most %d", got, maxAnswered)
	}
	if len(c.left) > maxDepartures || len(c.deaths) > 4*carefulDeaths+1 || len(c.inside) != 0 {
		t.Errorf("got %d departures, %d deaths and %d requests inside, want bounds and 0", len(c.left), len(c.deaths), len(c.inside))
	}
	newest := chatOf("newest", "")
	c.launch += 2
	c.die(t, newest)
	c.want(t, newest, refusedForItself)
}

// L6, R11: a request that must be alone waits until the runtime is empty, the ones behind it wait for it, and
// the order of arrival is kept; a request that gives up delays no other.
func TestAdmissionAlone(t *testing.T) {
	var a admission
	a.counts.MaxInFlight, a.counts.QueueBound = 2, 3
	enter := func(alone bool, want messages.Reason) *ticket {
		t.Helper()
		ticket, got := a.enter(need{alone: alone})
		if got != want {
			t.Fatalf("enter(alone %v): got %s, want %s", alone, got, want)
		}
		return ticket
	}
	state := func(want string, tickets ...*ticket) {
		t.Helper()
		var got strings.Builder
		for _, ticket := range tickets {
			select {
			case <-ticket.ready:
				got.WriteByte('r')
			default:
				got.WriteByte('w')
			}
		}
		if got.String() != want {
			t.Fatalf("got tickets %s, want %s (r: ready, w: waiting)", got.String(), want)
		}
	}
	enter(false, messages.ReasonOK)
	alone := enter(true, messages.ReasonAtCapacity)
	second := enter(false, messages.ReasonAtCapacity)
	third := enter(false, messages.ReasonAtCapacity)
	enter(false, messages.ReasonQueueFull)
	state("www", alone, second, third)
	a.leave(need{})
	state("rww", alone, second, third)
	a.leave(need{})
	state("rrr", alone, second, third)
	last := enter(true, messages.ReasonAtCapacity)
	behind := enter(false, messages.ReasonAtCapacity)
	a.leave(need{})
	state("ww", last, behind)
	a.giveUp(last)
	state("r", behind)
	a.leave(need{})
	a.leave(need{})
	enter(true, messages.ReasonOK)
	enter(false, messages.ReasonAtCapacity)
	if got := a.now(); got.InFlight != 1 || got.Queued != 1 {
		t.Errorf("got %+v, want 1 in flight and 1 queued", got)
	}
	a.counts.QueueBound = 1
	enter(false, messages.ReasonQueueFull)
}

// R11: a request that meets a runtime that another request has ended, before the end is known, is not blamed.
func TestRequestToADeadRuntimeIsNotBlamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scenario{NewQuarantine(), 1}
		deadly, honest := chatOf("deadly", ""), chatOf("honest", "")
		c.die(t, deadly, honest)
		c.want(t, honest, permittedAlone)
		c.leave(c.enters(c.launch, printOf(t, deadly)), broken)
		time.Sleep(10 * time.Millisecond)
		c.leave(c.enters(c.launch, printOf(t, honest)), broken)
		if !c.RuntimeEnded(c.launch, true) {
			t.Error("got a death without a request, want one with requests")
		}
		c.want(t, deadly, refusedForItself)
		c.want(t, honest, permittedAlone)
	})
}

// R11: a connection that a living runtime has ended excuses the next request for one death only, and its own request is not
// refused for that death.
func TestLateRequestIsExcusedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scenario{NewQuarantine(), 1}
		deadly := chatOf("deadly", "")
		for i, want := range []permission{permitted, permittedAlone, refusedForItself} {
			cover := chatOf(fmt.Sprint("cover ", i), "")
			c.leave(c.enters(c.launch, printOf(t, cover)), broken)
			time.Sleep(10 * time.Millisecond)
			c.leave(c.enters(c.launch, printOf(t, deadly)), broken)
			c.RuntimeEnded(c.launch, true)
			c.launch++
			c.want(t, deadly, want)
			c.want(t, cover, permittedAlone)
		}
	})
}

// R11: a request that was never sent is not noted, and one whose exchange panicked is.
func TestOnlyWhatWasSentIsNoted(t *testing.T) {
	for name, test := range map[string]struct {
		sends bool
		ended relay.Result
		want  permission
	}{
		"waits for a connection": {false, unsent, permitted},
		"nothing was sent":       {true, unsent, permitted},
		"sent":                   {true, broken, refusedForItself},
		"panicked":               {true, relay.Result{}, refusedForItself},
	} {
		t.Run(name, func(t *testing.T) {
			c := scenario{NewQuarantine(), 1}
			body := chatOf("honest", "")
			w := c.watch(messages.Snapshot{Launch: c.launch}, printOf(t, body), false)
			if test.sends {
				w.sending()
			}
			w.leave(test.ended)
			if got, want := c.RuntimeEnded(c.launch, true), test.want != permitted; got != want {
				t.Errorf("got a death with requests %v, want %v", got, want)
			}
			c.want(t, body, test.want)
		})
	}
}

// R11: a request that is in the runtime when the daemon ends it is not noted, however often and whether it was alone.
// Such an end does not count towards the crash loop, and the answer to the request afterwards changes nothing.
func TestEndByTheDaemonIsNotNoted(t *testing.T) {
	for name, told := range map[string]relay.Result{"broken": broken, "left": leftIt, "failed": failed} {
		t.Run(name, func(t *testing.T) {
			c := scenario{NewQuarantine(), 1}
			for _, bodies := range [][]string{{chatOf("honest", "")}, {chatOf("honest", "")}, {chatOf("honest", ""), chatOf("other", "")}} {
				before := c.enters(c.launch, printOf(t, bodies[0]))
				c.leave(before, told)
				var stays []*stay
				for _, b := range bodies {
					stays = append(stays, c.enters(c.launch, printOf(t, b)))
				}
				if !c.RuntimeEnded(c.launch, false) {
					t.Error("got an end without requests, want one with requests")
				}
				for _, s := range stays {
					c.leave(s, told)
				}
				c.launch++
				for _, b := range bodies {
					c.want(t, b, permitted)
				}
			}
			if c.RuntimeEnded(c.launch, true) {
				t.Error("the next launch: got an end with requests, want one without")
			}
		})
	}
}

// R11, R14: a request that woke the model is refused after two deaths, not after one: there may have been too little memory.
func TestRequestThatWakesTheModel(t *testing.T) {
	c := scenario{NewQuarantine(), 1}
	body := chatOf("honest", "")
	for _, want := range []permission{permittedAlone, refusedForItself} {
		w := c.watch(messages.Snapshot{Launch: c.launch, Asleep: true}, printOf(t, body), false)
		w.sending()
		c.RuntimeEnded(c.launch, true)
		w.leave(broken)
		c.launch++
		c.want(t, body, want)
	}
}

// R11: a failure that the runtime survives, such as an error in a stream, excuses no request that comes after it.
func TestFailureOfALivingRuntimeExcusesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scenario{NewQuarantine(), 1}
		deadly, cover := chatOf("deadly", ""), chatOf("cover", "")
		for range 2 {
			c.leave(c.enters(c.launch, printOf(t, cover)), failed)
			time.Sleep(10 * time.Millisecond)
			c.leave(c.enters(c.launch, printOf(t, deadly)), broken)
			if !c.RuntimeEnded(c.launch, true) {
				t.Error("got a death without a request, want one with requests")
			}
			c.launch++
		}
		c.want(t, deadly, refusedForItself)
	})
}

// R11: a request that came when the runtime had just ended another one's connection is a suspect if it is in the runtime at
// the death: neither of the two was alone.
func TestLateRequestInTheRuntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scenario{NewQuarantine(), 1}
		deadly, other := chatOf("deadly", ""), chatOf("other", "")
		dies := func() {
			c.leave(c.enters(c.launch, printOf(t, other)), broken)
			time.Sleep(10 * time.Millisecond)
			late := c.enters(c.launch, printOf(t, deadly))
			if !c.RuntimeEnded(c.launch, true) {
				t.Error("got a death without a request, want one with requests")
			}
			c.leave(late, broken)
			c.launch++
		}
		dies()
		c.want(t, deadly, permittedAlone)
		c.want(t, other, permittedAlone)
		c.answer(t, other)
		dies()
		c.want(t, deadly, refusedForItself)
		c.want(t, other, permittedAlone)
	})
}

// R11: a request that is sent again at once is not late: its first try was in time.
func TestRepeatedRequestIsNotLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scenario{NewQuarantine(), 1}
		deadly, other := chatOf("deadly", ""), chatOf("other", "")
		for range 2 {
			first := c.enters(c.launch, printOf(t, other))
			for range 2 {
				c.leave(c.enters(c.launch, printOf(t, deadly)), broken)
				time.Sleep(10 * time.Millisecond)
			}
			c.leave(first, broken)
			c.RuntimeEnded(c.launch, true)
			c.launch++
			c.answer(t, other)
		}
		c.want(t, deadly, refusedForItself)
	})
}

// R11: only a complete answer says that the runtime survives a request, its text and its schemas.
func TestRefusalsDoNotClear(t *testing.T) {
	for name, r := range map[string]relay.Result{
		"refused": {Reason: messages.ReasonBadRequest, Sent: true, Whole: true},
		"busy":    {Reason: messages.ReasonRuntimeUnavailable, Sent: true, Whole: true},
		"failed":  {Reason: messages.ReasonUpstreamFailed, Sent: true, Whole: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := scenario{Quarantine: NewQuarantine(), launch: 1}
			deaths := 0
			for i := range 10 {
				schema := schemaOf(fmt.Sprint("p", i))
				c.leave(c.enters(c.launch, printOf(t, chatOf("hi", schema+`,"temperature":2`))), r)
				time.Sleep(lateTime)
				body := chatOf(fmt.Sprint("hi", i), schema)
				if p := printOf(t, body); c.judge(&p) != refusedForKind {
					c.die(t, body)
					deaths++
				}
			}
			if deaths != carefulDeaths {
				t.Errorf("%s: new schemas ended the runtime %d times, want %d", name, deaths, carefulDeaths)
			}
			if n := len(c.left); n > 0 {
				t.Errorf("%s: %d requests count as left without an answer, want 0", name, n)
			}
		})
	}
}

// R11: a format that is in use stays known, no matter how many others are answered meanwhile.
func TestUsedFormatStaysAnswered(t *testing.T) {
	q := NewQuarantine()
	used := printOf(t, chatOf("used", schemaOf("used")))
	answer := func(f fingerprint) { q.leave(q.enters(1, f), whole) }
	for i := range 2 * maxAnswered {
		if i%1000 == 0 {
			if i > 0 && q.isNew(used.format) {
				t.Fatalf("the format in use is new after %d others, want known", i)
			}
			answer(used)
		}
		f := used
		f.whole[0], f.whole[1], f.text = byte(i), byte(i>>8), digest{}
		f.whole[2]++
		f.format = f.whole
		answer(f)
	}
	if q.isNew(used.format) || len(q.answered.values) != maxAnswered {
		t.Errorf("new: %v, with %d digests; want it known, and %d", q.isNew(used.format), len(q.answered.values), maxAnswered)
	}
}
