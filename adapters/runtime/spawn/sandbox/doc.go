// Package sandbox confines the calling process on Linux before it becomes the runtime (R4, R10): Landlock for files,
// TCP, signals and abstract sockets, a seccomp allow list for system calls, and canaries that attempt what must fail.
// The canaries decide the level, not the return values of the libraries, which degrade silently.
//
// Neither layer is enough alone. Landlock up to ABI 8 lets a process connect to any Unix socket that its user may reach
// (D-Bus, ssh-agent, our control socket), and up to ABI 9 it does not know UDP; seccomp sees no path. Apply is for the
// helper stage alone: it cannot be undone.
package sandbox

// Policy says what the confined process may still do. It travels from the daemon to the helper stage and holds no secret.
type Policy struct {
	Executable string   // path that resolves to the program itself: may be read and executed
	Loader     string   // ELF interpreter of the program, or empty: may be read and executed
	ReadFiles  []string // may be read, where they exist
	ReadDirs   []string // may be read with all below, where they exist
	ListDirs   []string // names in it and below may be listed; no file may be read
	Socket     string   // path of the back-end socket; the process can bind no other
	Devices    []string // GPU device files and folders; empty when no GPU is used
	ExecFD     int      // the descriptor that may be executed by execveat, once
	OwnNetwork bool     // the process was started in a network namespace of its own
	// AnonymousFile is how many bytes an anonymous file of a GPU driver may have; 0: no limit.
	AnonymousFile int64
	Canary        Canary
}

// Canary names what the confined process must not reach. The files are readable and writable by the user, so that a
// refusal can only come from the sandbox.
type Canary struct {
	Files []string
	Dir   string // nothing may be created in it
	// Outside are files and folders of the system and the user, which may be read before and not afterwards.
	Outside []string
}

// Layers are the parts of the confinement that can be left out one at a time, for tests that show what each stops. The
// program uses AllLayers.
type Layers struct{ Landlock, Seccomp, Limits bool }

// AllLayers leaves nothing out.
var AllLayers = Layers{Landlock: true, Seccomp: true, Limits: true}
