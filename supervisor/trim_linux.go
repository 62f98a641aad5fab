package supervisor

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dropProgramPages unmaps the pages of the program's own file, code and constants, until they are
// touched again. They are clean and stay in the page cache, so a page that is needed costs a minor
// fault; until then it does not count as resident. Writable mappings are left alone.
func dropProgramPages() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("finding the program's own file: %w", err)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("reading the process's mappings: %w", err)
	}
	defer func() { _ = maps.Close() }()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		// proc_pid_maps(5): address perms offset dev inode pathname
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[5] != program || strings.Contains(fields[1], "w") {
			continue
		}
		low, high, _ := strings.Cut(fields[0], "-")
		from, fromErr := strconv.ParseUint(low, 16, 64)
		to, toErr := strconv.ParseUint(high, 16, 64)
		if fromErr != nil || toErr != nil || to <= from {
			return fmt.Errorf("reading the process's mappings: %q is no range", fields[0])
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("giving back the program's pages: %w", errno)
		}
	}
	return lines.Err()
}
