package supervisor

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is one mapping of the process, as proc_pid_smaps(5) shows it.
type mapping struct {
	from, to  uintptr
	writable  bool
	file      string
	anonymous bool // has pages that differ from the file: relocations that the loader wrote and then made read-only
}

// dropProgramPages removes the pages of the program's own file, code and constants, from resident memory
// (MADV_DONTNEED). They stay in the page cache, so a page that is used again costs a minor fault. Mappings that
// are writable, or that have pages that differ from the file, are not changed: their content is not in the file.
func dropProgramPages() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("finding the program's own file: %w", err)
	}
	mappings, err := mappings()
	if err != nil {
		return err
	}
	for _, m := range mappings {
		if m.file != program || m.writable || m.anonymous {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("giving back the program's pages: %w", errno)
		}
	}
	return nil
}

func mappings() ([]mapping, error) {
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, fmt.Errorf("reading the process's mappings: %w", err)
	}
	defer func() { _ = smaps.Close() }()
	var list []mapping
	for lines := bufio.NewScanner(smaps); ; {
		if !lines.Scan() {
			return list, lines.Err()
		}
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			m, err := parseMapping(fields)
			if err != nil {
				return nil, err
			}
			list = append(list, m)
		case len(fields) == 3 && fields[0] == "Anonymous:" && len(list) > 0:
			list[len(list)-1].anonymous = fields[1] != "0"
		}
	}
}

// parseMapping reads address, permissions and path of one mapping's first line.
func parseMapping(fields []string) (mapping, error) {
	low, high, _ := strings.Cut(fields[0], "-")
	from, fromErr := strconv.ParseUint(low, 16, 64)
	to, toErr := strconv.ParseUint(high, 16, 64)
	if fromErr != nil || toErr != nil || to <= from {
		return mapping{}, fmt.Errorf("reading the process's mappings: %q is no range", fields[0])
	}
	m := mapping{from: uintptr(from), to: uintptr(to), writable: strings.Contains(fields[1], "w"), anonymous: true}
	if len(fields) == 6 {
		m.file = fields[5]
	}
	return m, nil
}
