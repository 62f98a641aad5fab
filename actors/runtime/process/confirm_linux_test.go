package process

import (
	"reflect"
	"testing"

	"companion/adapters/runtime/spawn"
	"companion/adapters/runtime/spawn/spawntest"
	"companion/messages"
)

// A8, A9, X7: a new lifecycle actor that sends ConfirmProcess always gets an answer, also while a launch is being
// spawned or ended and then fails. Without the answer it would never start or stop anything.
func TestConfirmIsAlwaysAnswered(t *testing.T) {
	b := newBench(t)
	first, second := messages.Launch(1), messages.Launch(2)
	child, err := spawn.Spawn(New(b.deps).spec(messages.Spawn{Model: spawntest.Model(t, nil), Runtime: spawntest.Runtime(t)}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { kill(child.Handle); <-child.Exit }()
	up := event{started: &child}
	started := messages.RuntimeStarted{Launch: first, PID: child.Handle.PID()}
	exit := func(l messages.Launch) *messages.RuntimeExited { return &messages.RuntimeExited{Launch: l} }
	absent := messages.RuntimeAbsent{}
	for name, test := range map[string]struct {
		happens []any // messages to the actor, and events of the launch
		want    []messages.ToLifecycle
	}{
		"nothing runs":         {[]any{messages.ConfirmProcess{}}, []messages.ToLifecycle{absent}},
		"spawn fails":          {[]any{begun(first), messages.ConfirmProcess{}, event{exited: exit(first)}}, []messages.ToLifecycle{*exit(first), absent}},
		"spawn works":          {[]any{begun(first), messages.ConfirmProcess{}, up, event{exited: exit(first)}}, []messages.ToLifecycle{started, *exit(first)}},
		"runs":                 {[]any{begun(first), up, messages.ConfirmProcess{}}, []messages.ToLifecycle{started, started}},
		"killed while spawned": {[]any{begun(first), messages.Kill{Launch: first}, messages.ConfirmProcess{}, up, event{exited: exit(first)}}, []messages.ToLifecycle{started, *exit(first), absent}},
		"being ended":          {[]any{begun(first), up, messages.Kill{Launch: first}, messages.ConfirmProcess{}, event{exited: exit(first)}}, []messages.ToLifecycle{started, *exit(first), absent}},
		"asked twice":          {[]any{begun(first), messages.ConfirmProcess{}, messages.ConfirmProcess{}, event{exited: exit(first)}}, []messages.ToLifecycle{*exit(first), absent}},
		"another kill":         {[]any{messages.Kill{Launch: second}}, []messages.ToLifecycle{messages.RuntimeAbsent{Launch: second}}},
	} {
		t.Run(name, func(t *testing.T) {
			l := loop{actor: New(b.deps)}
			for _, h := range test.happens {
				switch h := h.(type) {
				case begun:
					l.current = newLaunch(messages.Spawn{Launch: messages.Launch(h)})
				case messages.ToProcess:
					l.take(t.Context(), h)
				case event:
					l.happened(t.Context(), h)
				}
			}
			if !reflect.DeepEqual(l.outbox, test.want) {
				t.Errorf("got %+v, want %+v", l.outbox, test.want)
			}
		})
	}
}

// begun stands for a launch that has begun, without a process.
type begun messages.Launch
