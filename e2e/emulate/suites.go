package main

import (
	"strings"

	"companion/e2e/emulate/plan"
)

// exclusion is a test that proves nothing on some machines, with the reason. It is left out there, or it runs and skips
// itself; no other test may skip.
type exclusion struct {
	test, reason string
	runs         bool
	on           func(machine) bool
}

var exclusions = []exclusion{
	{"TestNoOrphans", "kills within 80 ms of a start, which takes longer in an emulator", false, everywhere},
	{"TestCallNumbers", "compares with the source of a module", false, everywhere},
	{"TestProgramDecidesAsThePolicy", "depends on no kernel", false, everywhere},
	{"TestProgramHeaders", "needs a program with a loader, and the guest has a static shell", true, everywhere},
	{"TestLoaderIsOfTheSystem", "needs a program with a loader, and the guest has a static shell", true, everywhere},
	{"TestThreadEndsAlone", "the kernel tells the end of a thread since 6.9", true, beforeEnding},
	{"TestRuntimePriority", "the kernel limits how often a session's priority changes", true, everywhere},
	{"TestLookupsReachNoOtherMount", "is for root, and the suite of an ordinary user skips it", true, everywhere},
	{"TestOrdinaryUser", "is for root, and the suite of an ordinary user skips it", true, everywhere},
	{"TestEnding", "the kernel tells the end of a thread since 6.9", true, beforeEnding},
	{"TestHostileRuntimeIsConfined", "skips after it has seen what seccomp alone refuses", true, withoutLandlock},
	{"TestHostileRuntimeWithGPU", "skips after it has seen what seccomp alone refuses", true, withoutLandlock},
	{"TestCanariesDecide", "spoils the rules of Landlock", false, withoutLandlock},
	{"TestSandboxLevel", "asks for Landlock", false, withoutLandlock},
	{"TestFileRuleOpensNoFolder", "asks for Landlock", false, withoutLandlock},
	{"TestArtifactLowersNoLevel", "spoils the rules of Landlock", false, withoutLandlock},
	{"TestUnpinnedFolderStaysClosed", "asks for Landlock", false, withoutLandlock},
}

func everywhere(machine) bool { return true }

func withoutLandlock(m machine) bool { return m.landlock == 0 }

// beforeEnding detects kernels before 6.9 by the Landlock ABI that came with 6.10.
func beforeEnding(m machine) bool { return m.landlock < 5 }

// excluded names the tests of the list that run on the machine, or those that do not.
func excluded(m machine, runs bool) []string {
	var names []string
	for _, e := range exclusions {
		if e.on(m) && e.runs == runs {
			names = append(names, e.test)
		}
	}
	return names
}

// suites are the suites that run on the machine. Everything runs as an ordinary user; tests that behave differently for
// root run again as root.
func suites(m machine) []plan.Suite {
	arguments := func(more ...string) []string {
		skip := "-test.skip=^(" + strings.Join(excluded(m, false), "|") + ")$"
		return append([]string{"-test.v", "-test.timeout=8m", skip}, more...)
	}
	return []plan.Suite{
		{Name: "sandbox", Program: "/test/sandbox", Args: arguments(), User: true},
		{Name: "spawn", Program: "/test/spawn", Args: arguments(), User: true},
		{Name: "spawn as root", Program: "/test/spawn", Args: arguments("-test.run=Cgroup|Limit|Group|Hostile|Inherits|Level|Ordinary|Lookups|Layer|Bind|Folder|EndsWith")},
	}
}
