package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// verdict is what the filter returns to the kernel: an action and its data (seccomp(2)).
type verdict uint32

const (
	allow  verdict = unix.SECCOMP_RET_ALLOW
	refuse verdict = unix.SECCOMP_RET_ERRNO | verdict(unix.EPERM)
	// absent answers as a kernel that lacks the call does, so that the C library falls back.
	absent verdict = unix.SECCOMP_RET_ERRNO | verdict(unix.ENOSYS)
	// ask leaves the decision to the holder of the notification descriptor. The kernel returns ENOSYS when no
	// process holds it.
	ask verdict = unix.SECCOMP_RET_USER_NOTIF
)

// condition holds when the argument, under the mask, has the value.
type condition struct {
	argument    int
	mask, value uint64
}

// is compares an argument that the kernel takes as a 32-bit integer (int, unsigned int, pid_t). The kernel ignores the
// upper half of the register, in which compilers leave anything, so the comparison ignores it as well.
func is(argument int, value uint32) condition {
	return condition{argument, 1<<32 - 1, uint64(value)}
}

// bits compares some bits of such an argument.
func bits(argument int, mask, value uint32) condition {
	return condition{argument, uint64(mask), uint64(value)}
}

// null compares a pointer: all 64 bits count.
func null(argument int) condition { return condition{argument, 1<<64 - 1, 0} }

// rule gives a call its verdict when all conditions hold. Rules of the same call are tried in order. A call for which no
// rule holds is refused.
type rule struct {
	call    string
	verdict verdict
	when    []condition
}

// processor is what differs between the tables of system calls.
type processor struct {
	name   string
	audit  uint32 // AUDIT_ARCH_* of the calling convention (linux/audit.h)
	column int    // in callNumbers
}

var (
	amd64 = processor{"amd64", unix.AUDIT_ARCH_X86_64, 0}
	arm64 = processor{"arm64", unix.AUDIT_ARCH_AARCH64, 1}
)

var processors = map[string]processor{amd64.name: amd64, arm64.name: arm64}

// number returns the number of a call, and whether this processor has the call.
func (p processor) number(call string) (uint32, bool, error) {
	numbers, ok := callNumbers[call]
	if !ok {
		return 0, false, fmt.Errorf("no system call is named %q", call)
	}
	if numbers[p.column] == none {
		return 0, false, nil
	}
	return uint32(numbers[p.column]), true, nil
}
