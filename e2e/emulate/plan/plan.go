// Package plan is what the host tells the guest of an emulated machine, and how the guest answers on
// its console.
package plan

// Where the guest finds things.
const (
	File    = "/plan.json"
	Hostile = "/runtime" // folder of the hostile runtime
)

// Lines of the console that are not a test's. Facts and Ended are followed by JSON.
const (
	FactsLine = "guest-facts "
	BeginLine = "guest-begin " // and the name of the suite
	EndedLine = "guest-ended "
	ErrorLine = "guest-error "
	// LayersLine is printed by TestWhichLayerStops.
	LayersLine = "LAYERS "
)

// Suite is one run of a test binary.
type Suite struct {
	Name    string
	Program string
	Args    []string
	// User runs it as an ordinary user, in a control group that was delegated as systemd does for a
	// user's services; otherwise it is root's, in a group of a service.
	User bool
}

// Facts are what the guest saw of its kernel.
type Facts struct {
	Release     string   `json:"release"`
	Landlock    int      `json:"landlock"` // ABI, 0: none
	Seccomp     bool     `json:"seccomp"`
	Controllers []string `json:"controllers"` // of cgroup v2
}

// Ended is how a suite ended.
type Ended struct {
	Name   string `json:"name"`
	Status int    `json:"status"`
}
