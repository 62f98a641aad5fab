package control

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"companion/actors/actorkit"
	"companion/messages"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// noon is the start time of the clock in a synctest bubble, so that golden files hold exact times.
var noon = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func full() (messages.Snapshot, Views) {
	exit := &messages.ExitReport{At: noon.Add(-time.Minute), Code: -1, Signal: "killed",
		Reason: messages.ReasonProcessExited, LastLines: []string{"slot 0 released"}}
	return messages.Snapshot{
			State: messages.StateReady, Available: true, Reason: messages.ReasonOK, Since: noon.Add(-10 * time.Second),
			Facts:   messages.Facts{Verified: true, Ready: true, Bound: true, Token: true, LastHealth: noon.Add(-5 * time.Second)},
			BaseURL: "http://127.0.0.1:43121/v1", Launch: 2, BackEnd: messages.BackEnd{Network: "unix", Address: "/run/secret.sock"},
			Model:    messages.Model{Name: "gemma", Version: "1.0.0", Context: 4096, Share: 2016, Trained: 32768, Asked: 4096, ContextBy: messages.ContextConfigured, Control: "@@turn@@"},
			Restarts: 1, LastExit: exit, Wanted: true,
		}, Views{
			Door: func() messages.DoorView {
				return messages.DoorView{BaseURL: "http://127.0.0.1:43121/v1", InFlight: 1, Queued: 2, MaxInFlight: 2, QueueBound: 16,
					Verdicts: map[messages.Reason]int64{messages.ReasonOK: 12, messages.ReasonInvalidToken: 1}, EndedRuntime: 3,
					Applications: []messages.ApplicationView{{Name: "zed", RatePerMinute: 60, Requests: 2}},
					Latency:      []messages.LatencyBucket{{UpTo: 2500 * time.Microsecond, Count: 7}}, LatencyCount: 8, LatencySum: 9500 * time.Microsecond}
			},
			Process: func() messages.ProcessView {
				return messages.ProcessView{Name: "llama-server", Version: "b10068", PID: 2, BackEnd: "unix", Pinned: true,
					Sandbox: messages.Sandbox{Landlock: 7, Seccomp: true, Netns: true}, StartedAt: noon}
			},
			Observation: func() messages.Observation {
				return messages.Observation{At: noon, PID: 2, ResidentBytes: 3, CPUPercent: 4.5, GPUBytes: 6}
			},
			Session: func() messages.SessionView {
				return messages.SessionView{State: messages.SessionSignedIn, Reason: messages.ReasonOK,
					User: messages.User{Subject: "s1", ID: "1", Name: "Ada"}}
			},
			Manifest: func() messages.ManifestView {
				return messages.ManifestView{Version: 3, Expires: noon.Add(time.Hour), CheckedAt: noon.Add(-time.Hour), Reason: messages.ReasonOK}
			},
			Transfers: func() []messages.Transfer {
				return []messages.Transfer{{Name: "gemma", Bytes: 1, Total: 2, BytesPerSecond: 3, SecondsLeft: 4}}
			},
			Actors: func() []messages.ActorView {
				return []messages.ActorView{{Name: messages.ActorProcess, Restarts: 1, LastError: "planted"}}
			},
		}
}

func empty() (messages.Snapshot, Views) {
	return messages.Snapshot{State: messages.StateStopped, Reason: messages.ReasonNotReady, Since: noon}, Views{
		Door:        func() messages.DoorView { return messages.DoorView{} },
		Process:     func() messages.ProcessView { return messages.ProcessView{} },
		Observation: func() messages.Observation { return messages.Observation{} },
		Session:     func() messages.SessionView { return messages.SessionView{} },
		Manifest:    func() messages.ManifestView { return messages.ManifestView{} },
		Transfers:   func() []messages.Transfer { return nil },
		Actors:      func() []messages.ActorView { return nil },
	}
}

func statusOf(snapshot messages.Snapshot, views Views) messages.Status {
	status := viewer{Deps{Snapshot: actorkit.NewWatch(snapshot), Views: views, Version: "1.2.3",
		StartedAt: noon.Add(-time.Hour), Recency: 15 * time.Second}}.Status()
	status.PID = 1
	return status
}

// X3: the exact JSON of a daemon with every field set, and of one with none.
func TestStatusGolden(t *testing.T) {
	for name, parts := range map[string]func() (messages.Snapshot, Views){"full": full, "empty": empty} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, err := json.MarshalIndent(statusOf(parts()), "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, '\n')
				golden := "testdata/" + name + ".json"
				if *update {
					if err := os.WriteFile(golden, got, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("got %s\nwant %s", got, want)
				}
				if bytes.Contains(got, []byte("secret.sock")) {
					t.Error("got the path of the back end's socket in the status, want it hidden")
				}
			})
		})
	}
}

// X3: testdata/cli.json is the example of cli.md, byte for byte. The status always has all its keys, with values of
// the same kind. Additional keys are listed here.
func TestStatusShape(t *testing.T) {
	data, err := os.ReadFile("testdata/cli.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal(data, &want); err != nil || len(want) < 10 {
		t.Fatalf("got %v, want a readable example with 10 keys or more", err)
	}
	extras := map[string][]string{
		"full":  {"availableSeconds", "runtime.sandbox.netns", "runtime.sandbox.mounts", "model.context", "model.contextShare", "model.contextTrained", "model.contextAsked", "model.contextBy", "model.controlTokens", "frontDoor.endedRuntime", "frontDoor.applications", "frontDoor.latency", "frontDoor.latencyCount", "frontDoor.latencySumMilliseconds"},
		"empty": {"runtime.sandbox.netns", "runtime.sandbox.mounts"},
	}
	for name, parts := range map[string]func() (messages.Snapshot, Views){"full": full, "empty": empty} {
		encoded, err := json.Marshal(statusOf(parts()))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(encoded, &got); err != nil {
			t.Fatal(err)
		}
		gotKinds, wantKinds := kinds("", got), kinds("", want)
		for _, extra := range extras[name] {
			if _, ok := gotKinds[extra]; !ok {
				t.Errorf("%s: got no key %s, want it", name, extra)
			}
			delete(gotKinds, extra)
		}
		gotKeys, wantKeys := slices.Sorted(maps.Keys(gotKinds)), slices.Sorted(maps.Keys(wantKinds))
		if !slices.Equal(gotKeys, wantKeys) {
			t.Errorf("%s: got the keys\n%v, want\n%v", name, gotKeys, wantKeys)
		}
		for key, kind := range gotKinds {
			if want := wantKinds[key]; kind != want && kind != "null" && want != "null" {
				t.Errorf("%s: %s: got a %s, want a %s", name, key, kind, want)
			}
		}
	}
}

// kinds maps each key path of an object to the kind of its value. The keys of verdicts, and the content of arrays and
// of lastExit, are data and not shape.
func kinds(prefix string, object map[string]any) map[string]string {
	found := map[string]string{}
	for key, value := range object {
		path := prefix + key
		if value == nil || key == "lastExit" {
			found[path] = "null"
			continue
		}
		found[path] = reflect.TypeOf(value).Kind().String()
		if inner, ok := value.(map[string]any); ok && key != "verdicts" {
			maps.Copy(found, kinds(path+".", inner))
		}
	}
	return found
}

// A5: an old success, and one from the future, are not recent, so the status is not available, even if the last
// snapshot is: the machine may have slept since.
func TestHealthRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for age, want := range map[time.Duration]bool{0: true, 15 * time.Second: true, 15*time.Second + 1: false, -time.Second: false} {
			snapshot, views := full()
			snapshot.Facts.LastHealth = time.Now().Add(-age)
			got := statusOf(snapshot, views)
			if got.Facts.HealthRecent != want || got.CompanionAvailable != want || (got.Reason == messages.ReasonOK) != want {
				t.Errorf("a success %v ago: got recent %v, available %v, %s; want %v", age, got.Facts.HealthRecent, got.CompanionAvailable, got.Reason, want)
			}
		}
	})
}

// P3: an observation of another process, or a failed one, is not shown as the runtime's.
func TestObservationOfAnother(t *testing.T) {
	for name, seen := range map[string]messages.Observation{
		"another process": {PID: 3, ResidentBytes: 9, CPUPercent: 9, GPUBytes: 9},
		"failed":          {PID: 2, ResidentBytes: 9, CPUPercent: 9, GPUBytes: 9, Failed: true},
	} {
		snapshot, views := full()
		views.Observation = func() messages.Observation { return seen }
		runtime := statusOf(snapshot, views).Runtime
		if runtime.ResidentBytes != 0 || runtime.CPUPercent != 0 || runtime.GPUBytes != 0 {
			t.Errorf("%s: got %+v, want no figures", name, runtime)
		}
	}
}

func TestSessionUser(t *testing.T) {
	for _, test := range []struct {
		view messages.SessionView
		want messages.StatusSession
	}{
		{messages.SessionView{}, messages.StatusSession{State: messages.SessionUnknown}},
		{messages.SessionView{State: messages.SessionSignedIn, Reason: messages.ReasonOK, User: messages.User{Subject: "s", ID: "i", Name: "n"}},
			messages.StatusSession{State: messages.SessionSignedIn, User: "n"}},
		{messages.SessionView{State: messages.SessionSignedIn, Reason: messages.ReasonOK, User: messages.User{Subject: "s", ID: "i"}},
			messages.StatusSession{State: messages.SessionSignedIn, User: "i"}},
		{messages.SessionView{State: messages.SessionSignedIn, Reason: messages.ReasonOK, User: messages.User{Subject: "s"}},
			messages.StatusSession{State: messages.SessionSignedIn, User: "s"}},
		{messages.SessionView{State: messages.SessionSignedOut, Reason: messages.ReasonSignInNeeded, User: messages.User{Name: "old"}},
			messages.StatusSession{State: messages.SessionSignedOut, Reason: messages.ReasonSignInNeeded}},
	} {
		if got := session(test.view); got != test.want {
			t.Errorf("%+v: got %+v, want %+v", test.view, got, test.want)
		}
	}
}
