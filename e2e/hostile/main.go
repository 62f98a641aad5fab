//go:build linux

// Command hostile replaces the runtime in tests: it takes llama-server's arguments, and does what the file given as its
// model says. It can serve as a small runtime with faults, and it can attempt everything that a confined runtime must not
// be able to do, and report each attempt as a line of JSON on standard output (R4, T7).
//
// It is built without cgo, so that it is a single file.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

// Script is the content of the model file. The fields for attempts name what the test created as targets.
type Script struct {
	Attempt bool     `json:"attempt"` // try everything, report, then go on
	Only    []string `json:"only"`    // of the attempts, by name; none: all
	Except  []string `json:"except"`  // of the attempts, by name: those that would end it
	GPU     bool     `json:"gpu"`     // the rules for a GPU are in force
	// Targets of the attempts.
	Secret      string   `json:"secret"`      // a file with a secret
	Outside     string   `json:"outside"`     // a folder to write to
	Read        []string `json:"read"`        // files to read, "read file 0" and so on
	TCP         string   `json:"tcp"`         // a listening TCP address
	UDP         string   `json:"udp"`         // a listening UDP address
	UnixSockets []string `json:"unixSockets"` // listening sockets: D-Bus, ssh-agent, control; "@x" is abstract
	UnixDgram   string   `json:"unixDgram"`
	Memory      int64    `json:"memory"` // bytes that it must not be able to allocate

	Serve      bool          `json:"serve"`      // answer /health, /v1/models and completions
	StartAfter time.Duration `json:"startAfter"` // listen later
	NeverReady bool          `json:"neverReady"` // /health stays 503
	Mute       bool          `json:"mute"`       // completions are never answered,
	Answers    int64         `json:"answers"`    // except this number of the first ones
	CloseAfter time.Duration `json:"closeAfter"` // close the socket and its connections, and go on
	IgnoreTerm bool          `json:"ignoreTerm"`
	Flood      int           `json:"flood"` // lines printed at once, each of FloodBytes
	FloodBytes int           `json:"floodBytes"`
	Say        []string      `json:"say"`       // lines printed first
	ExitAfter  time.Duration `json:"exitAfter"` // with ExitCode
	ExitCode   int           `json:"exitCode"`
	Illegal    bool          `json:"illegal"` // end as by an unknown instruction
	Fork       bool          `json:"fork"`    // leave a grandchild in the group, if it can fork
	Share      int64         `json:"share"`   // bytes of shared memory taken, after StartAfter, which RLIMIT_DATA does not count
	Threads    int           `json:"threads"` // threads started, after StartAfter
	Padding    string        `json:"padding"` // makes the model as large as a test needs it
	Map        int64         `json:"map"`     // bytes of its model's pages held from the second completion on
	Linger     time.Duration `json:"linger"`  // how much later the second completion is answered
	DieOn      string        `json:"dieOn"`   // end by an illegal instruction when a request contains this text
	HoldOn     string        `json:"holdOn"`  // answer requests that contain this text HoldTime later
	HoldTime   time.Duration `json:"holdTime"`
	NoBind     bool          `json:"noBind"`     // make the attempts before anything is bound
	LeaderExit bool          `json:"leaderExit"` // end the first thread alone
	BindFirst  string        `json:"bindFirst"`  // use the first bind for this name, and serve there
}

// The main goroutine stays on the first thread, which leaderExit ends.
func init() { runtime.LockOSThread() }

func main() {
	flags := flag.NewFlagSet("hostile", flag.ContinueOnError)
	host := flags.String("host", "", "")
	model := flags.String("model", "", "")
	alias := flags.String("alias", "", "")
	for _, name := range []string{"ctx-size", "parallel", "threads-http", "cache-ram", "log-colors", "device", "threads", "port", "batch-size", "ubatch-size", "spec-type", "spec-ngram-simple-size-n", "spec-ngram-simple-size-m", "sleep-idle-seconds"} {
		flags.String(name, "", "")
	}
	for _, name := range []string{"offline", "no-webui", "no-slots", "embeddings", "no-warmup"} {
		flags.Bool(name, false, "")
	}
	if err := flags.Parse(os.Args[1:]); err != nil {
		fail(err)
	}
	data, err := os.ReadFile(*model)
	if err != nil {
		fail(err)
	}
	var script Script
	if err := json.Unmarshal(data, &script); err != nil {
		fail(err)
	}
	play(script, *host, *alias)
}

func fail(err error) {
	fmt.Println(err)
	os.Exit(1)
}
