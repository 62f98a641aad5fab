package openai

type typeSet uint8

const (
	typeObject typeSet = 1 << iota
	typeArray
	typeString
	typeNumber
	typeInteger
	typeBoolean
	typeNull
)

var typeNames = []string{"object", "array", "string", "number", "integer", "boolean", "null"}

// keyword is what the runtime reads of a schema object; all others are passed on and ignored by it.
type keyword uint32

const (
	keywordRef keyword = 1 << iota
	keywordUnion
	keywordAllOf
	keywordConst
	keywordEnum
	keywordProperties
	keywordAdditional // with a schema or false
	keywordAnyMore    // additionalProperties: true
	keywordItems
	keywordTuple
	keywordPattern
	keywordFormat // one that the runtime knows
	keywordRange
	keywordOther
)

// role is what a schema is for the one that holds it.
type role uint8

const (
	roleRoot role = iota
	roleProperty
	roleAdditional
	roleItem
	roleUnion
	roleAllOf
	roleElsewhere // definitions, and what the runtime ignores
)

// schemaNode is one schema object.
type schemaNode struct {
	place      uint64
	target     uint64 // of a reference
	name       uint64 // of a property
	rule       uint64 // the name as the runtime uses it for a rule, if that differs
	value      uint64 // of a const, or of an enum with one value
	content    uint64 // of a definition: the hash of its whole text
	pattern    patternCost
	literals   int32 // bytes of const and enum
	path       int32 // bytes of the rule's name
	child      int32 // the first one, or noNode
	last       int32
	sibling    int32
	values     int32 // of an enum
	properties int32
	keywords   keyword
	types      typeSet
	typeList   bool
	role       role
	required   bool
	known      costState
}

const noNode int32 = -1

// open adds a node below parent.
func (s *schemas) open(parent int32, as role, place uint64, nameLength int) int32 {
	n := int32(len(s.nodes))
	s.nodes = append(s.nodes, schemaNode{place: place, role: as, child: noNode, last: noNode, sibling: noNode})
	node := &s.nodes[n]
	if parent == noNode {
		return n
	}
	p := &s.nodes[parent]
	node.path = p.path + int32(nameLength) + 1
	if p.child == noNode {
		p.child = n
	} else {
		s.nodes[p.last].sibling = n
	}
	p.last = n
	return n
}
