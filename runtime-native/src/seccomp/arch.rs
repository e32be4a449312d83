//! The system call interfaces that a filter can tell apart.

use oci_spec::runtime::Arch as SpecArch;

/// One system call interface with its own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86 (`int 0x80` and `sysenter`, on a 64-bit kernel too).
    X86,
    /// 64-bit x86 with 32-bit pointers: the numbers carry a bit of their own.
    X32,
    /// 64-bit Arm.
    Aarch64,
    /// 32-bit Arm, EABI.
    Arm,
}

/// Marks an x32 call in the number (`__X32_SYSCALL_BIT` of `arch/x86/include/uapi/asm/unistd.h`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// How many interfaces there are: the width of a row in the table of calls.
pub(super) const COUNT: usize = 5;

impl Arch {
    /// The interface that this program was built for, if it has a table for it.
    #[must_use]
    pub const fn native() -> Option<Self> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// The interfaces that a kernel of this architecture serves, itself first.
    #[must_use]
    pub const fn family(self) -> &'static [Self] {
        match self {
            Self::X86_64 => &[Self::X86_64, Self::X86, Self::X32],
            Self::X32 => &[Self::X32, Self::X86_64, Self::X86],
            Self::X86 => &[Self::X86],
            Self::Aarch64 => &[Self::Aarch64, Self::Arm],
            Self::Arm => &[Self::Arm],
        }
    }

    /// The name that Docker's profiles use in `includes.arches` and `excludes.arches`.
    pub(super) const fn profile_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// The interface of a runtime specification's name; `native` answers for
    /// `SCMP_ARCH_NATIVE`.
    ///
    /// `None` for architectures without a table here. No kernel that runs this program reports
    /// them, so a filter loses nothing by leaving them out.
    pub(super) const fn from_spec(arch: SpecArch, native: Self) -> Option<Self> {
        match arch {
            SpecArch::ScmpArchNative => Some(native),
            SpecArch::ScmpArchX86_64 => Some(Self::X86_64),
            SpecArch::ScmpArchX86 => Some(Self::X86),
            SpecArch::ScmpArchX32 => Some(Self::X32),
            SpecArch::ScmpArchAarch64 => Some(Self::Aarch64),
            SpecArch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    /// The runtime specification's name.
    pub(super) const fn to_spec(self) -> SpecArch {
        match self {
            Self::X86_64 => SpecArch::ScmpArchX86_64,
            Self::X86 => SpecArch::ScmpArchX86,
            Self::X32 => SpecArch::ScmpArchX32,
            Self::Aarch64 => SpecArch::ScmpArchAarch64,
            Self::Arm => SpecArch::ScmpArchArm,
        }
    }

    /// `seccomp_data.arch`: an `AUDIT_ARCH_*` of `include/uapi/linux/audit.h`. x32 shares
    /// x86-64's.
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The place in a row of the table of calls.
    pub(super) const fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
        }
    }

    /// What is added to the table's number to give `seccomp_data.nr`.
    pub(super) const fn base(self) -> u32 {
        match self {
            Self::X32 => X32_BIT,
            _ => 0,
        }
    }

    /// Whether arguments are 64 bits wide. Where they are not, the upper half of
    /// `seccomp_data.args` carries nothing (on x32: nothing that the calls look at).
    pub(super) const fn is_64_bit(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }
}
