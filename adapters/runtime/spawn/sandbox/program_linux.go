package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets of struct seccomp_data (seccomp(2)). amd64 and arm64 are little-endian: the lower half of an argument is
// first.
const (
	numberOffset    = 0
	auditOffset     = 4
	argumentsOffset = 16
)

// loadHalf loads the half of an argument that starts at bit 0 or 32.
func loadHalf(argument int, shift uint) bpf.Instruction {
	return bpf.LoadAbsolute{Off: uint32(argumentsOffset + 8*argument + int(shift)/8), Size: 4}
}

// assemble translates the rules for one processor. The program compares the calling convention, then the number of the
// call with each call that has a rule. The code of a call ends in a verdict on every path, so a comparison of the number
// never sees an argument in the accumulator. Calls of the x32 table have a bit in their number that no rule has.
func assemble(p processor, rules []rule) ([]bpf.Instruction, error) {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: auditOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: p.audit, SkipTrue: 1},
		give(refuse),
		bpf.LoadAbsolute{Off: numberOffset, Size: 4},
	}
	calls, alternatives := byCall(rules)
	for _, call := range calls {
		number, exists, err := p.number(call)
		if err != nil {
			return nil, err
		}
		if !exists {
			continue
		}
		code, err := assembleCall(alternatives[call])
		if err != nil {
			return nil, fmt.Errorf("rules of %s: %w", call, err)
		}
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: uint8(len(code))})
		program = append(program, code...)
	}
	return append(program, give(refuse)), nil
}

// byCall returns the calls in the order of their first rule, and the rules of each.
func byCall(rules []rule) (calls []string, alternatives map[string][]rule) {
	alternatives = map[string][]rule{}
	for _, r := range rules {
		if alternatives[r.call] == nil {
			calls = append(calls, r.call)
		}
		alternatives[r.call] = append(alternatives[r.call], r)
	}
	return calls, alternatives
}

// maxSkip is the longest jump of classic BPF.
const maxSkip = 255

// assembleCall translates the rules of one call. It ends in a verdict on every path.
func assembleCall(rules []rule) ([]bpf.Instruction, error) {
	var code []bpf.Instruction
	for _, r := range rules {
		// From the end, where the distance to the next rule is known.
		one := []bpf.Instruction{give(r.verdict)}
		for i := len(r.when) - 1; i >= 0; i-- {
			for _, shift := range []uint{0, 32} {
				one = append(compareHalf(r.when[i], shift, len(one)), one...)
			}
		}
		code = append(code, one...)
		if len(r.when) == 0 { // no later rule is reached
			return within(code)
		}
	}
	return within(append(code, give(refuse)))
}

func within(code []bpf.Instruction) ([]bpf.Instruction, error) {
	if len(code) > maxSkip {
		return nil, fmt.Errorf("%d instructions, and at most %d can be jumped over", len(code), maxSkip)
	}
	return code, nil
}

// compareHalf skips the given number of instructions unless the half of the argument is as the condition says.
func compareHalf(c condition, shift uint, skip int) []bpf.Instruction {
	mask, value := uint32(c.mask>>shift), uint32(c.value>>shift)
	if mask == 0 {
		return nil
	}
	code := []bpf.Instruction{loadHalf(c.argument, shift)}
	if mask != 1<<32-1 {
		code = append(code, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
	}
	return append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipFalse: uint8(min(skip, maxSkip))})
}

func give(v verdict) bpf.Instruction { return bpf.RetConstant{Val: uint32(v)} }

// encode turns the program into the kernel's form.
func encode(program []bpf.Instruction) ([]unix.SockFilter, error) {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
}

// install puts the filter on the calling thread, which must have no_new_privs. With listen it returns the notification
// descriptor, which is closed on execution.
func install(filter []unix.SockFilter, listen bool) (listener int, err error) {
	flags := 0
	if listen {
		flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return -1, errno
	}
	if !listen {
		return -1, nil
	}
	return int(fd), nil
}

// filterSupported reports whether the kernel has seccomp filters. It passes no program: a kernel that has them checks
// the other arguments first and fails only at the program.
func filterSupported() bool {
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0)
	return errno == unix.EFAULT
}
