package sandbox

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	testExecFD = 1024
	testPID    = 4711
)

// systemCall is what a filter sees: struct seccomp_data without the instruction pointer.
type systemCall struct {
	audit, number uint32
	args          [6]uint64
}

// decide evaluates the policy directly. It knows nothing of programs.
func (v variant) decide(c systemCall) verdict {
	if c.audit != v.own.audit {
		return refuse
	}
next:
	for _, r := range v.byNumber[c.number] {
		for _, w := range r.when {
			if c.args[w.argument]&w.mask != w.value {
				continue next
			}
		}
		return r.verdict
	}
	return refuse
}

// filter runs a program as the kernel does, and in the BPF machine of golang.org/x/net, which is slower.
type filter struct {
	t       testing.TB
	vm      *bpf.VM
	program []bpf.RawInstruction
	runs    int
}

func newFilter(t testing.TB, program []bpf.Instruction) *filter {
	t.Helper()
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		t.Fatal(err)
	}
	return &filter{t: t, vm: vm, program: raw}
}

// run decides one call, each 64th in both machines.
func (f *filter) run(c systemCall) verdict {
	words := [16]uint32{numberOffset / 4: c.number, auditOffset / 4: c.audit}
	for i, arg := range c.args {
		words[argumentsOffset/4+2*i], words[argumentsOffset/4+2*i+1] = uint32(arg), uint32(arg>>32)
	}
	got := f.interpret(&words)
	if f.runs++; f.runs%64 != 0 {
		return got
	}
	// The kernel's words are in the machine's order; the other machine loads big-endian ones.
	var data [64]byte
	for i, word := range words {
		binary.BigEndian.PutUint32(data[4*i:], word)
	}
	want, err := f.vm.Run(data[:])
	if err != nil {
		f.t.Fatal(err)
	}
	if got != verdict(uint32(want)) {
		f.t.Fatalf("%+v: got %#x, want %#x of the other machine", c, uint32(got), uint32(want))
	}
	return got
}

// interpret runs the part of classic BPF that the assembler uses (linux/bpf_common.h).
func (f *filter) interpret(words *[16]uint32) verdict {
	const loadWord, andConstant, jumpIfEqual, returnConstant = 0x20, 0x54, 0x15, 0x06
	var a uint32
	for pc := 0; ; pc++ {
		switch i := f.program[pc]; i.Op {
		case loadWord:
			a = words[i.K/4]
		case andConstant:
			a &= i.K
		case jumpIfEqual:
			if a == i.K {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		case returnConstant:
			return verdict(i.K)
		default:
			f.t.Fatalf("got instruction %#x, want one that the machine knows", i.Op)
		}
	}
}

// variant is one of the four programs: for amd64 or arm64, with or without a GPU.
type variant struct {
	own      processor
	gpu      bool
	rules    []rule
	byNumber map[uint32][]rule
}

func (v variant) String() string { return fmt.Sprintf("%s, GPU %v", v.own.name, v.gpu) }

func variants() []variant {
	var all []variant
	for _, own := range []processor{amd64, arm64} {
		for _, gpu := range []bool{false, true} {
			v := variant{own, gpu, rules(options{execFD: testExecFD, pid: testPID, gpu: gpu, asks: true}), map[uint32][]rule{}}
			for _, r := range v.rules {
				if number := callNumbers[r.call][own.column]; number != none {
					v.byNumber[uint32(number)] = append(v.byNumber[uint32(number)], r)
				}
			}
			all = append(all, v)
		}
	}
	return all
}

// words are the values that calls are made of.
type words struct {
	low     []uint32 // halves that the policy may compare
	high    []uint32 // halves that the kernel ignores: garbage
	numbers []uint32
}

func (v variant) words() words {
	var w words
	for _, r := range v.rules {
		if number := callNumbers[r.call][v.own.column]; number != none {
			w.numbers = append(w.numbers, uint32(number))
		}
		for _, c := range r.when {
			value := uint32(c.value)
			w.low = append(w.low, value, value-1, value+1, value|unix.CLONE_NEWUSER, ^uint32(c.mask), value|^uint32(c.mask))
		}
	}
	slices.Sort(w.numbers)
	w.numbers = slices.Compact(w.numbers)
	edges := []uint32{0, 1, 1<<32 - 1, 1 << 31, 1<<31 - 1}
	w.low = append(append(w.low, edges...), w.numbers...)
	slices.Sort(w.low)
	w.low = slices.Compact(w.low)
	w.high = append(append(w.high, edges...), w.numbers...)
	return w
}

// near returns a call that the rule lets through, with garbage where the policy does not look.
func near(v variant, r rule, w words, random *rand.Rand) systemCall {
	c := systemCall{audit: v.own.audit, number: uint32(callNumbers[r.call][v.own.column])}
	for i := range c.args {
		c.args[i] = uint64(pick(w.high, random))<<32 | uint64(pick(w.low, random))
	}
	for _, when := range r.when {
		c.args[when.argument] = c.args[when.argument]&^when.mask | when.value
	}
	return c
}

func pick(from []uint32, random *rand.Rand) uint32 { return from[random.IntN(len(from))] }

// random yields calls at the edge of what the policy allows: one that a rule lets through, of which up to two halves of
// arguments, and sometimes the number, are exchanged.
func (v variant) random(seed uint64, count int, yield func(systemCall)) {
	random := rand.New(rand.NewPCG(seed, 1))
	w := v.words()
	conditional := slices.DeleteFunc(slices.Clone(v.rules), func(r rule) bool { return len(r.when) == 0 })
	for range count {
		r := conditional[random.IntN(len(conditional))]
		if random.IntN(8) == 0 {
			r = v.rules[random.IntN(len(v.rules))]
		}
		c := near(v, r, w, random)
		for range random.IntN(3) {
			argument, word := random.IntN(6), uint64(pick(w.low, random))
			if len(r.when) > 0 && random.IntN(2) == 0 {
				argument, word = r.when[random.IntN(len(r.when))].argument, uint64(pick(w.numbers, random))
			}
			if random.IntN(2) == 0 {
				c.args[argument] = c.args[argument]&^(1<<32-1) | word
			} else {
				c.args[argument] = c.args[argument]&(1<<32-1) | word<<32
			}
		}
		switch random.IntN(16) {
		case 0:
			c.number = pick(w.low, random)
		case 1:
			c.number |= 1 << 30 // the x32 table
		case 2:
			c.audit = pick([]uint32{unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, amd64.audit, arm64.audit, 0}, random)
		}
		yield(c)
	}
}

// exhaustive yields, for each rule with conditions, every pair of arguments with every pair of words in one and the
// neighbours in the other.
func (v variant) exhaustive(yield func(systemCall)) {
	w := v.words()
	random := rand.New(rand.NewPCG(1, 1))
	var few []uint64
	for _, high := range []uint32{0, 1, 1<<32 - 1} {
		for _, low := range []uint32{0, 1, 1<<32 - 1, testPID, testExecFD, unix.AT_EMPTY_PATH} {
			few = append(few, uint64(high)<<32|uint64(low))
		}
	}
	for _, r := range v.rules {
		if len(r.when) == 0 || callNumbers[r.call][v.own.column] == none {
			continue
		}
		base := near(v, r, w, random)
		for first := range 5 {
			for second := range 5 {
				for _, high := range w.high {
					for _, low := range w.low {
						c := base
						c.args[first] = uint64(high)<<32 | uint64(low)
						yield(c)
						for _, other := range few {
							c.args[second] = other
							yield(c)
						}
					}
				}
			}
		}
	}
}

// compare counts the calls that the program decides otherwise than the policy does, and of those the ones that it lets
// through. It shows the first.
func compare(v variant, program *filter, calls func(func(systemCall)), show func(string, ...any)) (total, wrong, open int) {
	calls(func(c systemCall) {
		total++
		got, want := program.run(c), v.decide(c)
		if got == want {
			return
		}
		if wrong++; wrong <= 3 {
			show("%s: call %d of %#x with %#x: got %#x, want %#x", v, c.number, c.audit, c.args, uint32(got), uint32(want))
		}
		if got == allow || got == ask {
			open++
		}
	})
	return total, wrong, open
}

// callsInCI is how many calls TestProgramDecidesAsThePolicy compares, over all variants.
const callsInCI = 1_200_000

// R10: for every call the program gives the verdict of the policy, whatever is in the halves of the arguments. With
// SECCOMP_EXHAUSTIVE=1 (task seccomp-exhaustive) each pair of arguments is tried with all words.
func TestProgramDecidesAsThePolicy(t *testing.T) {
	all := variants()
	sum := 0
	for _, v := range all {
		program, err := assemble(v.own, v.rules)
		if err != nil {
			t.Fatal(err)
		}
		calls := func(yield func(systemCall)) { v.random(rand.Uint64(), callsInCI/len(all), yield) }
		if os.Getenv("SECCOMP_EXHAUSTIVE") != "" {
			calls = v.exhaustive
		}
		total, wrong, _ := compare(v, newFilter(t, program), calls, t.Errorf)
		if sum += total; wrong > 0 {
			t.Errorf("%s: got %d of %d calls decided otherwise than by the policy, want 0", v, wrong, total)
		}
	}
	if sum < 1_000_000 {
		t.Errorf("compared %d calls, want at least 1000000", sum)
	}
	t.Logf("%d calls", sum)
}

// R10: the comparison finds this fault of an assembler: where a condition fails, it leaves the argument in the accumulator
// and then compares it with the numbers of later calls. faulty assembles that way.
func TestComparisonFindsTheOldFault(t *testing.T) {
	for _, v := range variants() {
		random := func(yield func(systemCall)) { v.random(1, 50_000, yield) }
		_, wrong, open := compare(v, newFilter(t, faulty(t, v)), random, t.Logf)
		if wrong == 0 || open == 0 {
			t.Errorf("%s: %d wrong verdicts were found, %d of which let a call through; want both", v, wrong, open)
		}
		t.Logf("%s: %d of 50000 wrong, %d let through", v, wrong, open)
	}
}

// faulty is the program without the verdict at the end of each call's rules.
func faulty(t *testing.T, v variant) []bpf.Instruction {
	t.Helper()
	whole, err := assemble(v.own, v.rules)
	if err != nil {
		t.Fatal(err)
	}
	program := slices.Clone(whole[:4]) // the calling convention, and the load of the number
	calls, alternatives := byCall(v.rules)
	for _, call := range calls {
		number, exists, err := v.own.number(call)
		if err != nil || !exists {
			continue
		}
		code, err := assembleCall(alternatives[call])
		if err != nil {
			t.Fatal(err)
		}
		if code[len(code)-1] == give(refuse) {
			code = code[:len(code)-1]
		}
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: number, SkipFalse: uint8(len(code))})
		program = append(program, code...)
	}
	return append(program, give(refuse))
}

// FuzzProgram is the comparison over calls that a fuzzer makes.
func FuzzProgram(f *testing.F) {
	all := variants()
	programs := make([]*filter, len(all))
	for i, v := range all {
		program, err := assemble(v.own, v.rules)
		if err != nil {
			f.Fatal(err)
		}
		programs[i] = newFilter(f, program)
	}
	f.Add(uint32(unix.SYS_SOCKET), uint64(unix.SYS_FCNTL)<<32|unix.AF_INET, uint64(unix.SOCK_DGRAM), uint64(0), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, number uint32, a, b, c, d, e uint64) {
		for i, v := range all {
			call := systemCall{v.own.audit, number, [6]uint64{a, b, c, d, e}}
			if got, want := programs[i].run(call), v.decide(call); got != want {
				t.Errorf("%s: %+v: got %#x, want %#x", v, call, uint32(got), uint32(want))
			}
		}
	})
}
