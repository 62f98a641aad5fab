package openai

import (
	"slices"
	"sync"
)

// patternCost is what a pattern costs the runtime for one token, in the units of maxWidth and maxPaths.
type patternCost struct {
	width int32 // grammar positions that may be held at once, weighted by what each compares
	paths int32 // ways in which one token may be read
	rules int32 // rules that the grammar parser makes for repetitions
}

const (
	// maxPaths bounds the ways in which one token can be read. The runtime tries each, without noticing
	// that two of them meet, and does so for every token of the vocabulary that the grammar refuses.
	maxPaths = 2048
	// tokenLength is the longest token, in characters, for which ways are counted. Longer ones exist, as
	// runs of one character, and are few.
	tokenLength = 32
	// entryWeight is how many comparisons of characters cost as much as one more position.
	entryWeight = 8
)

// weigh bounds the cost of a parsed pattern, of which there are three kinds. In a deterministic one the next
// character always tells which item reads it: it is at one place at a time, and costs what may come after that
// place. In an unambiguous one no text leads to the same item in two ways: it may be at all its items at once.
// An ambiguous one may be at all its items at once in each of their repetitions, in many ways.
func (p *patternParser) weigh(whole fragment) (patternCost, error) {
	cost := patternCost{width: p.weight(whole.first) + 1, paths: 1, rules: int32(whole.counted)}
	deterministic := p.distinct(whole.first)
	heaviest := int32(1)
	for _, item := range p.items {
		cost.width = max(cost.width, p.weight(item.follow)+1)
		deterministic = deterministic && p.distinct(item.follow)
		heaviest = max(heaviest, item.weight())
	}
	if deterministic {
		return cost, nil
	}
	if !p.ambiguous(whole.first) {
		cost.width = max(cost.width, min(int32(len(p.items)), int32(whole.unrolled))*heaviest)
		cost.paths = int32(len(p.items))
		return cost, nil
	}
	cost.width = max(cost.width, int32(whole.unrolled)*heaviest)
	if cost.paths = int32(p.paths(whole.first)); cost.paths > maxPaths {
		return cost, patternAmbiguous
	}
	return cost, nil
}

func (i patternItem) weight() int32 { return 1 + int32(i.entries)/entryWeight }

func (p *patternParser) weight(items []int16) (sum int32) {
	for _, i := range items {
		sum += p.items[i].weight()
	}
	return sum
}

// distinct reports whether no character is read by two of the items.
func (p *patternParser) distinct(items []int16) bool {
	var seen charSet
	for _, i := range items {
		if p.items[i].set.overlaps(seen) {
			return false
		}
		seen = seen.or(p.items[i].set)
	}
	return true
}

// itemPairs is scratch memory of ambiguous.
type itemPairs struct {
	seen  [maxPatternItems * maxPatternItems / 64]uint64
	queue []uint16
}

var itemPairsPool = sync.Pool{New: func() any { return new(itemPairs) }}

// ambiguous reports whether some text leads from one item, or from the start, to another item in two ways. It
// follows all pairs of items to which the same text leads.
func (p *patternParser) ambiguous(first []int16) bool {
	pairs := itemPairsPool.Get().(*itemPairs)
	defer itemPairsPool.Put(pairs)
	clear(pairs.seen[:])
	pairs.queue = pairs.queue[:0]
	fork := func(follow []int16) bool {
		for i := range follow {
			if p.meet(pairs, follow[i:i+1], follow[i+1:]) {
				return true
			}
		}
		return false
	}
	if fork(first) {
		return true
	}
	for i := range p.items {
		if fork(p.items[i].follow) {
			return true
		}
	}
	for len(pairs.queue) > 0 {
		last := len(pairs.queue) - 1
		a, b := pairs.queue[last]/maxPatternItems, pairs.queue[last]%maxPatternItems
		pairs.queue = pairs.queue[:last]
		if p.meet(pairs, p.items[a].follow, p.items[b].follow) {
			return true
		}
	}
	return false
}

// meet adds the pairs of an item of left and one of right that read the same character. It reports whether two
// are the same item.
func (p *patternParser) meet(pairs *itemPairs, left, right []int16) bool {
	for _, a := range left {
		for _, b := range right {
			if a == b {
				return true
			}
			if !p.items[a].set.overlaps(p.items[b].set) {
				continue
			}
			pair := uint16(min(a, b))*maxPatternItems + uint16(max(a, b))
			if bit := uint64(1) << (pair % 64); pairs.seen[pair/64]&bit == 0 {
				pairs.seen[pair/64] |= bit
				pairs.queue = append(pairs.queue, pair)
			}
		}
	}
	return false
}

// paths bounds in how many ways a text of tokenLength characters can be read, whole or in part. For each
// item and length it takes the worst next character.
func (p *patternParser) paths(first []int16) int {
	classes := p.characterClasses()
	longer := make([]int, len(p.items))
	shorter := make([]int, len(p.items))
	sums := make([]int, len(classes))
	worst := func(follow []int16) (most int) {
		clear(sums)
		for _, i := range follow {
			for k, c := range classes {
				if p.items[i].set.has(c) {
					sums[k] = min(sums[k]+shorter[i], maxPaths+1)
				}
			}
		}
		return max(1, slices.Max(sums))
	}
	for i := range shorter {
		shorter[i] = 1
	}
	for range tokenLength {
		for i := range p.items {
			longer[i] = worst(p.items[i].follow)
		}
		longer, shorter = shorter, longer
	}
	return worst(first)
}

// characterClasses divides the characters into classes, of which each item reads all or none, and returns one character
// of each class.
func (p *patternParser) characterClasses() (classes []int) {
	type key [maxPatternItems / 64]uint64
	seen := map[key]bool{}
	for c := range 129 {
		var k key
		for i := range p.items {
			if p.items[i].set.has(c) {
				k[i/64] |= 1 << (i % 64)
			}
		}
		if k != (key{}) && !seen[k] {
			seen[k] = true
			classes = append(classes, c)
		}
	}
	return classes
}
