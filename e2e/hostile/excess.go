//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// share allocates shared memory in pieces, writes to every page, and prints the total.
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

// mapModel maps its model repeatedly and touches every page each time: resident memory that costs the machine nothing, and
// that neither RLIMIT_DATA nor a control group counts.
func mapModel(bytes int64) {
	const model = 3
	var file unix.Stat_t
	if err := unix.Fstat(model, &file); err != nil {
		fail(err)
	}
	for taken := int64(0); taken < bytes; taken += file.Size {
		if _, err := unix.Mmap(model, 0, int(file.Size), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
			fail(err)
		}
	}
	fmt.Println("mapped all")
}

// startThreads starts idle threads. The Go runtime aborts when the system refuses it a thread.
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
