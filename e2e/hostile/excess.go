//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// share takes shared memory piece by piece, writes to every page of it, and tells how much it has.
func share(bytes int64) {
	const piece = 16 << 20
	for taken := int64(0); taken < bytes; taken += piece {
		memory, err := unix.Mmap(-1, 0, piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
		if err != nil {
			fail(err)
		}
		for i := 0; i < len(memory); i += os.Getpagesize() {
			memory[i] = 1
		}
		fmt.Println("shared", (taken+piece)>>20, "MiB")
	}
	fmt.Println("shared all")
}

// startThreads starts threads that only exist. The Go runtime dies when it is refused one.
func startThreads(n int) {
	for range n {
		begun := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(begun)
			select {}
		}()
		<-begun
	}
	fmt.Println("threads all")
}
