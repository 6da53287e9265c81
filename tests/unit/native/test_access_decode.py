"""Which address an instruction accesses: bytes and meaning as objdump prints them for Debian 12's libc."""

import random
from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balancerd.native._core import ffi, lib

PLACES = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{number}" for number in range(8, 16)))
"""As perf orders the registers that are sampled; the stack's is not."""

STRETCH = [
    "55",
    "48 89 e5",
    "41 57",
    "4d 89 c7",
    "41 56",
    "49 89 d6",
    "41 55",
    "41 54",
    "53",
    "48 89 cb",
    "48 83 ec 68",
    "48 89 7d 90",
    "48 89 75 88",
    "64 48 8b 04 25 28 00 00 00",
    "48 89 45 c8",
    "31 c0",
    "48 83 fa 20",
    "0f 87 ad 00 00 00",
    "48 0f af f2",
    "49 89 f4",
    "49 81 fc ff 03 00 00",
    "0f 87 b1 00 00 00",
    "48 c7 85 78 ff ff ff 00 00 00 00",
    "49 83 c4 17",
    "49 83 e4 f0",
    "4c 29 e4",
    "4c 8d 54 24 0f",
    "49 83 e2 f0",
    "4c 89 55 c0",
    "4c 89 75 a0",
    "48 c7 45 a8 04 00 00 00",
    "48 89 5d b0",
    "4c 89 7d b8",
    "49 83 fe 20",
    "0f 87 d0 00 00 00",
    "48 8b 45 90",
    "4c 09 f0",
    "a8 03",
    "0f 84 51 02 00 00",
    "48 8b 55 88",
]
"""The first forty instructions of qsort_r."""


def decode(text: str) -> tuple[int, str | None]:
    """Length, and the operand as base+index*scale+displacement; None: nothing that could be in a large mapping."""
    ret = ffi.new("struct bal_operand *")
    code = bytes.fromhex(text)
    if lib.bal_decode(code, len(code), ret):
        return 0, None
    if not ret.is_known:
        return ret.length, None
    base = PLACES[ret.base] if ret.base >= 0 else ""
    index = f"+{PLACES[ret.index]}*{1 << ret.shift}" if ret.index >= 0 else ""
    lost = " lost" if ret.is_lost else ""
    return ret.length, f"{base}{index}{ret.displacement:+#x}{lost}"


@pytest.mark.parametrize(
    ("text", "operand"),
    [
        ("49 03 0e", "r14+0x0"),  # add (%r14),%rcx
        ("4c 2b 3b", "rbx+0x0"),  # sub (%rbx),%r15
        ("48 63 04 82", "rdx+rax*4+0x0 lost"),  # movslq (%rdx,%rax,4),%rax
        ("0f b6 5f 11", "rdi+0x11"),  # movzbl 0x11(%rdi),%ebx
        ("0f b6 3c 06", "rsi+rax*1+0x0"),  # movzbl (%rsi,%rax,1),%edi
        ("48 89 00", "rax+0x0"),  # mov %rax,(%rax): writes no register
        ("48 01 00", "rax+0x0"),  # add %rax,(%rax)
        ("48 3b 00", "rax+0x0"),  # cmp (%rax),%rax: nor this
        ("48 8b 00", "rax+0x0 lost"),  # mov (%rax),%rax
        ("c6 40 02 00", "rax+0x2"),  # movb $0x0,0x2(%rax)
        ("42 69 74 28 54 e0 1f 00 00", "rax+r13*1+0x54"),  # imul $0x1fe0,0x54(%rax,%r13,1),%esi
        ("69 17 6d 4e c6 41", "rdi+0x0"),  # imul $0x41c64e6d,(%rdi),%edx
        ("4a 8b 7c 28 18", "rax+r13*1+0x18"),  # mov 0x18(%rax,%r13,1),%rdi
        ("48 63 49 48", "rcx+0x48 lost"),  # movslq 0x48(%rcx),%rcx
        ("f6 43 10 01", "rbx+0x10"),  # testb $0x1,0x10(%rbx)
        ("41 0f 11 42 18", "r10+0x18"),  # movups %xmm0,0x18(%r10)
        ("0f 29 10", "rax+0x0"),  # movaps %xmm2,(%rax)
        ("0f 28 54 0e 10", "rsi+rcx*1+0x10"),  # movaps 0x10(%rsi,%rcx,1),%xmm2
        ("f3 0f 6f 06", "rsi+0x0"),  # movdqu (%rsi),%xmm0: not %rax, though it has its number
        ("42 80 7c 3b fd 2f", "rbx+r15*1-0x3"),  # cmpb $0x2f,-0x3(%rbx,%r15,1)
        ("49 c7 44 df 20 00 00 00 00", "r15+rbx*8+0x20"),  # movq $0x0,0x20(%r15,%rbx,8)
        ("48 f7 a5 98 f7 ff ff", "rbp-0x868 lost"),  # mulq -0x868(%rbp): writes other registers
        ("84 8d 60 f9 ff ff", "rbp-0x6a0"),  # test %cl,-0x6a0(%rbp)
        ("f0 83 44 03 10 02", "rbx+rax*1+0x10"),  # lock addl $0x2,0x10(%rbx,%rax,1)
        ("62 d1 65 49 74 33", "r11+0x0"),  # vpcmpeqb (%r11),%zmm3,%k6{%k1}
        ("62 f1 fe 48 6f 01", "rcx+0x0"),  # vmovdqu64 (%rcx),%zmm0
        ("c5 fe 6f 4c 16 80", "rsi+rdx*1-0x80"),  # vmovdqu -0x80(%rsi,%rdx,1),%ymm1
        ("66 0f 3a 63 04 16 1a", "rsi+rdx*1+0x0"),  # pcmpistri $0x1a,(%rsi,%rdx,1),%xmm0
        ("48 8b 7c 24 10", None),  # mov 0x10(%rsp),%rdi: the stack
        ("48 39 2d a6 ea 1a 00", None),  # cmp %rbp,0x1aeaa6(%rip)
        ("64 48 8b 04 25 28 00 00 00", None),  # mov %fs:0x28,%rax
        ("0f 11 04 25 0c 00 00 00", None),  # movups %xmm0,0xc
        ("49 8d 04 f6", None),  # lea (%r14,%rsi,8),%rax
        ("66 0f 1f 84 00 00 00 00 00", None),  # nopw 0x0(%rax,%rax,1)
        ("ff 24 c2", None),  # jmp *(%rdx,%rax,8)
        ("62 e1 fe 28 6f 4c 16 fc", None),  # vmovdqu64 -0x80(%rsi,%rdx,1),%ymm17: in units
        ("c5 fe 6f d6", None),  # vmovdqu %ymm6,%ymm2
        ("49 bb f8 bf ff ff ff ff f7 ff", None),  # movabs $0xfff7ffffffffbff8,%r11
        ("66 90", None),  # xchg %ax,%ax
        ("f3 ab", None),  # rep stos %eax,%es:(%rdi)
        ("e8 19 00 00 00", None),  # call
        ("c3", None),  # ret
    ],
)
def test_an_instruction_tells_its_length_and_operand(text: str, operand: str | None) -> None:
    length = len(bytes.fromhex(text))
    assert decode(text) == (length, operand)
    assert decode(text + " 90 90") == (length, operand)
    if length > 1:
        assert decode(text[:-3])[0] < length


@pytest.mark.parametrize("text", ["06", "60", "d4 0a", "9a 00 00 00 00", "c5", "62 f1", "f0", "48", "0f", "0f 3a"])
def test_what_is_no_instruction_has_no_length(text: str) -> None:
    assert decode(text) == (0, None)


def last(code: bytes) -> int:
    """The length of the instruction that the bytes end with."""
    ret = ffi.new("struct bal_operand *")
    return 0 if lib.bal_decode_last(code, len(code), ret) else int(ret.length)


def test_the_last_instruction_is_found_from_behind() -> None:
    lengths = [len(bytes.fromhex(text)) for text in STRETCH]
    code = bytes.fromhex("".join(STRETCH))
    ends = list(accumulate(lengths))
    found = [last(code[max(0, end - 64) : end]) for end in ends]
    assert found == lengths
    rng = random.Random(1)  # noqa: S311 the same in every run
    noise = bytes(rng.randrange(256) for _ in range(24))
    after_noise = [last((noise + code[:end])[-64:]) for end in ends]
    assert sum(a == b for a, b in zip(after_noise, lengths, strict=True)) >= len(lengths) - 2


@given(st.binary(max_size=64))
@example(b"")
@example(bytes.fromhex("66" * 64))
@example(bytes.fromhex("90" * 64))
def test_any_bytes_are_read_without_harm(code: bytes) -> None:
    assert 0 <= last(code) <= min(15, len(code))
    assert 0 <= decode(code.hex())[0] <= min(15, len(code))
