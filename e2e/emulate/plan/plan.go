// Package plan defines what the host passes to the guest of an emulated machine, and what the guest prints on its console.
package plan

// Paths in the guest.
const (
	File    = "/plan.json"
	Hostile = "/runtime" // folder of the hostile runtime
)

// Lines of the console that do not come from a test. Facts and Ended are followed by JSON.
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
	// User runs it as an ordinary user, in a control group that is delegated as systemd does for a user's services;
	// otherwise it runs as root, in the group of a service.
	User bool
}

// Facts are the properties of the kernel that the guest found.
type Facts struct {
	Release     string   `json:"release"`
	Landlock    int      `json:"landlock"` // ABI, 0: none
	Seccomp     bool     `json:"seccomp"`
	Controllers []string `json:"controllers"` // of cgroup v2
}

// Ended is the result of a suite.
type Ended struct {
	Name   string `json:"name"`
	Status int    `json:"status"`
}
