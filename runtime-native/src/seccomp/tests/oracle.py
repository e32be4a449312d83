"""Answers from libseccomp. Reads one request as JSON on stdin, writes JSON on stdout.

{"resolve": [names]}  -> {"arch": {"name": number}}  with what the library knows
{"profile": {...}}    -> {"unknown": [names], "filter": "hex"}  added the way runc adds rules
"""

import ctypes
import json
import os
import sys

lib = ctypes.CDLL("libseccomp.so.2")
lib.seccomp_init.restype = ctypes.c_void_p

ARCHES = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}
OPERATORS = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]


class Compare(ctypes.Structure):
    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def check(code, what):
    if code != 0:
        sys.exit(f"{what}: {os.strerror(-code)}")


def action(name, errno):
    value = ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        value |= 1 if errno is None else errno
    return value


def compare(argument):
    operator = OPERATORS.index(argument["op"].removeprefix("SCMP_CMP_")) + 1
    return Compare(argument["index"], operator, argument["value"], argument.get("valueTwo") or 0)


def add(context, value, name, compares):
    number = lib.seccomp_syscall_resolve_name(name.encode())
    array = (Compare * len(compares))(*compares)
    code = lib.seccomp_rule_add_array(
        ctypes.c_void_p(context), ctypes.c_uint32(value), number, len(compares), array
    )
    check(code, f"rule for {name}")


def build(profile):
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = lib.seccomp_init(ctypes.c_uint32(default))
    native = lib.seccomp_arch_native() & 0xFFFFFFFF
    for arch in profile.get("architectures") or []:
        if ARCHES[arch] != native:
            check(lib.seccomp_arch_add(ctypes.c_void_p(context), ctypes.c_uint32(ARCHES[arch])), arch)
    unknown = []
    for rule in profile.get("syscalls") or []:
        value = action(rule["action"], rule.get("errnoRet"))
        compares = [compare(argument) for argument in rule.get("args") or []]
        repeated = len({one.arg for one in compares}) != len(compares)
        for name in rule["names"]:
            if lib.seccomp_syscall_resolve_name(name.encode()) == -1:
                unknown.append(name)
            elif value == default:
                pass
            elif repeated:
                for one in compares:
                    add(context, value, name, [one])
            else:
                add(context, value, name, compares)
    output = os.memfd_create("filter")
    check(lib.seccomp_export_bpf(ctypes.c_void_p(context), output), "export")
    os.lseek(output, 0, os.SEEK_SET)
    return {"unknown": unknown, "filter": os.read(output, 1 << 20).hex()}


def resolve(names):
    return {
        arch: {
            name: lib.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token), name.encode())
            for name in names
        }
        for arch, token in ARCHES.items()
    }


request = json.load(sys.stdin)
answer = build(request["profile"]) if "profile" in request else resolve(request["resolve"])
json.dump(answer, sys.stdout)
