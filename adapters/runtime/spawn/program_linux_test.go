package spawn

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"companion/messages"
)

// image is a program file: a header, program headers, and what they point to.
type image struct {
	header   elf.Header64
	segments []elf.Prog64
	data     string // directly after the program headers
}

// naming is the image of a program of this machine with one loader.
func naming(loader string) image {
	machine := elf.EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = elf.EM_AARCH64
	}
	return image{
		header: elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Phoff: 64, Phentsize: 56, Phnum: 1,
		},
		segments: []elf.Prog64{{Type: uint32(elf.PT_INTERP), Off: 64 + 56, Filesz: uint64(len(loader) + 1)}},
		data:     loader + "\x00",
	}
}

func (i image) file(t *testing.T) *os.File {
	t.Helper()
	var content bytes.Buffer
	if err := errors.Join(binary.Write(&content, binary.LittleEndian, i.header), binary.Write(&content, binary.LittleEndian, i.segments)); err != nil {
		t.Fatal(err)
	}
	content.WriteString(i.data)
	file, err := os.Create(filepath.Join(t.TempDir(), "server"))
	if err == nil {
		_, err = file.Write(content.Bytes())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// ownLoader is the loader of a dynamic program of this machine.
func ownLoader(t *testing.T) string {
	t.Helper()
	p, _ := program(t, Require)
	name, err := namedLoader(p.executable)
	if err != nil || name == "" {
		t.Skipf("sleep(1) of this machine names no loader: %v", err)
	}
	return name
}

// R4, T7: the kernel's loader is the one that gets a rule, and a program that another reader could read differently is
// refused: the kernel ignores the class of the file.
func TestProgramHeaders(t *testing.T) {
	loader := ownLoader(t)
	if got, err := interpreter(naming(loader).file(t)); err != nil || filepath.Dir(got) == "/" {
		t.Fatalf("got interpreter %q, %v, want one in a folder below /", got, err)
	}
	for name, spoil := range map[string]func(*image){
		"no magic":         func(i *image) { i.header.Ident[0] = '#' },
		"32-bit class":     func(i *image) { i.header.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS32) },
		"no class":         func(i *image) { i.header.Ident[elf.EI_CLASS] = 0 },
		"big-endian":       func(i *image) { i.header.Ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB) },
		"other machine":    func(i *image) { i.header.Machine = uint16(elf.EM_RISCV) },
		"a library object": func(i *image) { i.header.Type = uint16(elf.ET_REL) },
		"other entry size": func(i *image) { i.header.Phentsize = 32 },
		"no headers":       func(i *image) { i.header.Phnum = 0 },
		"too many headers": func(i *image) { i.header.Phnum, i.data = 1171, strings.Repeat("\x00", 1171*56) },
		"headers outside":  func(i *image) { i.header.Phoff = 1 << 40 },
		"headers negative": func(i *image) { i.header.Phoff = 1 << 63 },
		"two loaders": func(i *image) {
			i.header.Phnum = 2
			i.segments[0].Off += 56
			i.segments = append(i.segments, i.segments[0])
		},
		"name outside":     func(i *image) { i.segments[0].Off = 1 << 40 },
		"name negative":    func(i *image) { i.segments[0].Off = 1 << 63 },
		"name too long":    func(i *image) { i.segments[0].Filesz = 1 << 30 },
		"name empty":       func(i *image) { i.segments[0].Filesz = 1; i.data = "\x00" },
		"no zero byte":     func(i *image) { i.segments[0].Filesz-- },
		"zero byte inside": func(i *image) { i.data = loader + "\x00/\x00"; i.segments[0].Filesz += 2 },
	} {
		i := naming(loader)
		spoil(&i)
		if got, err := interpreter(i.file(t)); err == nil {
			t.Errorf("%s: the loader is %q, want a refusal", name, got)
		}
	}
	static := naming(loader)
	static.segments[0].Type = uint32(elf.PT_LOAD)
	if got, err := interpreter(static.file(t)); err != nil || got != "" {
		t.Errorf("a static program: got %q, %v, want no interpreter", got, err)
	}
}

// R4, T7: a program names as its loader what it wants to read: only a loader of the system gets a rule. A refusal has a
// reason of its own in both modes, and nothing is started.
func TestLoaderIsOfTheSystem(t *testing.T) {
	loader := ownLoader(t)
	dir := t.TempDir()
	own := filepath.Join(dir, "ld.so")
	linked := filepath.Join(dir, "ld-linux.so.2")
	if err := errors.Join(os.WriteFile(own, nil, 0o755), os.Symlink("/etc/passwd", linked)); err != nil {
		t.Fatal(err)
	}
	home, _ := os.UserHomeDir()
	for _, name := range []string{
		"/", "/etc", home, dir, "/proc", "/usr/lib", filepath.Dir(loader), "/etc/passwd", "/etc/hostname", "/proc/self/environ", "/dev/null",
		own, linked, "ld.so", ".", "/lib/../etc/passwd", filepath.Dir(loader) + "/./" + filepath.Base(loader), "/" + loader, loader + "/",
		"/lib/ld-not-here.so", "/proc/self/root" + loader + "/../../etc/passwd",
	} {
		for _, mode := range []Mode{Require, Prefer} {
			p, _ := program(t, mode)
			_ = p.executable.Close()
			p.executable = naming(name).file(t)
			_, err := p.plan()
			var refusal *Error
			if !errors.As(err, &refusal) || refusal.Reason != messages.ReasonBinaryUntrusted || refusal.Artifact != "sleep" {
				t.Errorf("loader %q, mode %s: got %v, want binary_untrusted of sleep", name, mode, err)
			} else if len(name) > 1 && strings.Contains(err.Error(), name) {
				t.Errorf("got an error with a path, want one without: %v", err)
			}
		}
	}
}

// T5: a program of many section headers, which the kernel does not read, takes no memory of the daemon's.
func TestSectionHeadersAreNotRead(t *testing.T) {
	const size = 256 << 20
	bomb := naming("")
	bomb.segments[0] = elf.Prog64{Type: uint32(elf.PT_LOAD)}
	bomb.header.Shoff, bomb.header.Shentsize = 64+56, 64
	sections := elf.Section64{Size: (size - 64 - 56) / 64} // their number, as e_shnum is 0
	var raw bytes.Buffer
	if err := binary.Write(&raw, binary.LittleEndian, sections); err != nil {
		t.Fatal(err)
	}
	bomb.data = raw.String()
	file := bomb.file(t)
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := interpreter(file); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("it took %d MiB, want less than 1", took>>20)
	}
}

// R4, T7: a rule for a file opens no folder, whatever the folder contains.
func TestFileRuleOpensNoFolder(t *testing.T) {
	p, plan := program(t, Require)
	plan.Policy.ReadFiles = append(plan.Policy.ReadFiles, plan.Policy.Canary.Dir, "/etc", "/")
	g, said, err := become(p, plan)
	if err != nil {
		t.Fatal(err)
	}
	defer g.abandon()
	if said.Sandbox.Landlock == 0 {
		t.Errorf("got level %+v, want Landlock: this test needs a kernel with it", said.Sandbox)
	}
}

// R4: mode prefer accepts what the kernel lacks, and not that the runtime's own files keep the sandbox from being made.
func TestArtifactLowersNoLevel(t *testing.T) {
	for _, mode := range []Mode{Require, Prefer} {
		for _, loader := range []string{"/nowhere", "/etc", "/dev/null"} {
			p, plan := program(t, mode)
			plan.Policy.Loader = loader
			g, said, err := become(p, plan)
			var refusal *Error
			if !errors.As(err, &refusal) || refusal.Reason != messages.ReasonSandboxUnavailable {
				t.Errorf("loader %s, mode %s: %+v, %v, want a refusal", loader, mode, said.Sandbox, err)
			}
			if err == nil {
				g.abandon()
			}
		}
	}
}
