//go:build linux

package main

import "golang.org/x/sys/unix"

func call32(number, a, b uintptr) int32

// foreignCalls uses the other system-call tables of the processor, which a list of forbidden calls would miss.
func foreignCalls() []attempt {
	// arch/x86/entry/syscalls/syscall_32.tbl, and the bit of x32.
	const getpid32, socket32, x32Bit = 20, 359, 0x40000000
	refused := func(result int32) error {
		if result < 0 {
			return unix.Errno(-result)
		}
		return nil
	}
	return []attempt{
		{"use the 32-bit table", func() error { return refused(call32(getpid32, 0, 0)) }},
		{"make a TCP socket by the 32-bit table", func() error { return refused(call32(socket32, unix.AF_INET, unix.SOCK_STREAM)) }},
		{"use the x32 table", func() error {
			_, _, errno := unix.RawSyscall(x32Bit|unix.SYS_GETPID, 0, 0, 0)
			if errno != 0 {
				return errno
			}
			return nil
		}},
	}
}
