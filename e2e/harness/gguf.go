package harness

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A GGUF file is a head (magic, version, number of tensors, number of keys), the keys with their values, a description of each
// tensor, and, aligned, the data of the tensors.

const ggufAlignment = 32

// The kinds of values (gguf.h).
const (
	ggufU16   = 2
	ggufU32   = 4
	ggufI32   = 5
	ggufF32   = 6
	ggufBool  = 7
	ggufText  = 8
	ggufArray = 9
)

var ggufSizes = map[uint32]int{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

type ggufTensor struct {
	name string
	dims []uint64
	kind uint32
	data []byte // with its padding
}

// ggufFile is a whole model file. keys are the encoded keys.
type ggufFile struct {
	count   uint64
	keys    []byte
	tensors []ggufTensor
}

// ggufCursor reads a file from the start; a file that ends early panics, and the test fails.
type ggufCursor struct {
	data []byte
	at   int
}

func (c *ggufCursor) take(n int) []byte { c.at += n; return c.data[c.at-n : c.at] }
func (c *ggufCursor) u32() uint32       { return binary.LittleEndian.Uint32(c.take(4)) }
func (c *ggufCursor) u64() uint64       { return binary.LittleEndian.Uint64(c.take(8)) }
func (c *ggufCursor) text() string      { return string(c.take(int(c.u64()))) }

func (c *ggufCursor) value(kind uint32) {
	switch kind {
	case ggufText:
		c.text()
	case ggufArray:
		of, n := c.u32(), c.u64()
		for range n {
			c.value(of)
		}
	default:
		c.take(ggufSizes[kind])
	}
}

func readGGUF(t testing.TB, path string) ggufFile {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := &ggufCursor{data: data}
	if magic := string(c.take(4)); magic != "GGUF" {
		t.Fatalf("%s begins with %q, want GGUF", path, magic)
	}
	c.u32()
	tensors, f := c.u64(), ggufFile{}
	f.count = c.u64()
	begin := c.at
	for range f.count {
		c.text()
		c.value(c.u32())
	}
	f.keys = data[begin:c.at]
	offsets := make([]int, 0, tensors+1)
	for range tensors {
		tensor := ggufTensor{name: c.text()}
		for range c.u32() {
			tensor.dims = append(tensor.dims, c.u64())
		}
		tensor.kind = c.u32()
		offsets = append(offsets, int(c.u64()))
		f.tensors = append(f.tensors, tensor)
	}
	start := (c.at + ggufAlignment - 1) / ggufAlignment * ggufAlignment
	ends := append(slices.Sorted(slices.Values(offsets)), len(data)-start)
	for i := range f.tensors {
		end := ends[slices.Index(ends, offsets[i])+1]
		f.tensors[i].data = data[start+offsets[i] : start+end]
	}
	return f
}

func (f *ggufFile) key(name string, kind uint32, value any) {
	b := bytes.NewBuffer(f.keys)
	put := func(v any) { _ = binary.Write(b, binary.LittleEndian, v) } // to memory
	put(uint64(len(name)))
	b.WriteString(name)
	put(kind)
	switch v := value.(type) {
	case string:
		put(uint64(len(v)))
		b.WriteString(v)
	case []float32:
		put(uint32(ggufF32))
		put(uint64(len(v)))
		put(v)
	default:
		put(value)
	}
	f.keys = b.Bytes()
	f.count++
}

func (f *ggufFile) write(t testing.TB, path string) string {
	t.Helper()
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	pad := func() { b.Write(make([]byte, (ggufAlignment-b.Len()%ggufAlignment)%ggufAlignment)) }
	b.WriteString("GGUF")
	put(uint32(3))
	put(uint64(len(f.tensors)))
	put(f.count)
	b.Write(f.keys)
	var offset int
	for _, tensor := range f.tensors {
		put(uint64(len(tensor.name)))
		b.WriteString(tensor.name)
		put(uint32(len(tensor.dims)))
		put(tensor.dims)
		put(tensor.kind)
		put(uint64(offset))
		offset += (len(tensor.data) + ggufAlignment - 1) / ggufAlignment * ggufAlignment
	}
	pad()
	for _, tensor := range f.tensors {
		b.Write(tensor.data)
		pad()
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Split writes a model in n parts, as llama-gguf-split does: the first has the whole description of the model. The names follow
// the pattern by which the runtime finds the parts.
func Split(t testing.TB, model string, n int) []string {
	t.Helper()
	whole := readGGUF(t, model)
	dir := TempDir(t)
	var parts []string
	for i := range n {
		part := ggufFile{tensors: whole.tensors[i*len(whole.tensors)/n : (i+1)*len(whole.tensors)/n]}
		if i == 0 {
			part.keys, part.count = slices.Clone(whole.keys), whole.count
		}
		part.key("split.no", ggufU16, uint16(i))
		part.key("split.count", ggufU16, uint16(n))
		part.key("split.tensors.count", ggufI32, int32(len(whole.tensors)))
		parts = append(parts, part.write(t, filepath.Join(dir, fmt.Sprintf("smol-%05d-of-%05d.gguf", i+1, n))))
	}
	return parts
}

// Projector writes a small projector for pictures, with the architecture of LLaVA's and arbitrary weights, for a model whose
// tokens have that many dimensions. The runtime can compute with it; what it sees means nothing.
func Projector(t testing.TB, width uint64) string {
	t.Helper()
	const inner, layers, patch, image = 32, 2, 14, 28
	var f ggufFile
	f.key("general.architecture", ggufText, "clip")
	f.key("general.file_type", ggufU32, uint32(0))
	f.key("clip.has_vision_encoder", ggufBool, true)
	f.key("clip.projector_type", ggufText, "mlp")
	f.key("clip.use_gelu", ggufBool, true)
	for name, value := range map[string]uint32{
		"image_size": image, "patch_size": patch, "embedding_length": inner, "feed_forward_length": 2 * inner, "block_count": layers,
		"attention.head_count": 2, "projection_dim": uint32(width),
	} {
		f.key("clip.vision."+name, ggufU32, value)
	}
	f.key("clip.vision.attention.layer_norm_epsilon", ggufF32, float32(1e-5))
	f.key("clip.vision.image_mean", ggufArray, []float32{0.5, 0.5, 0.5})
	f.key("clip.vision.image_std", ggufArray, []float32{0.5, 0.5, 0.5})
	random := rand.New(rand.NewPCG(1, 2))
	tensor := func(name string, dims ...uint64) {
		n := uint64(1)
		for _, d := range dims {
			n *= d
		}
		data := make([]byte, 0, 4*n)
		for range n {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(random.Float32()/8))
		}
		f.tensors = append(f.tensors, ggufTensor{name: name, dims: dims, data: data}) // kind 0: float32
	}
	both := func(name string, dims ...uint64) {
		tensor(name+".weight", dims...)
		tensor(name+".bias", dims[len(dims)-1])
	}
	tensor("v.class_embd", inner)
	tensor("v.patch_embd.weight", patch, patch, 3, inner)
	tensor("v.position_embd.weight", inner, (image/patch)*(image/patch)+1)
	both("v.pre_ln", inner)
	for i := range layers {
		block := fmt.Sprintf("v.blk.%d.", i)
		for _, name := range []string{"attn_q", "attn_k", "attn_v", "attn_out"} {
			both(block+name, inner, inner)
		}
		both(block+"ln1", inner)
		both(block+"ln2", inner)
		both(block+"ffn_up", inner, 2*inner)
		both(block+"ffn_down", 2*inner, inner)
	}
	both("mm.0", inner, width)
	both("mm.2", width, width)
	return f.write(t, filepath.Join(TempDir(t), "mmproj.gguf"))
}
