//go:build linux

#include "textflag.h"

// func call32(number, a, b uintptr) int32
// A system call through the 32-bit entry, which has a table of its own.
TEXT ·call32(SB), NOSPLIT, $0-28
	MOVQ number+0(FP), AX
	MOVQ a+8(FP), BX
	MOVQ b+16(FP), CX
	MOVQ $0, DX
	INT $0x80
	MOVL AX, ret+24(FP)
	RET
